"""`python -m ccvae_deploy` is `ccvae-deploy`."""

from .cli import app

app(prog_name="ccvae-deploy")
