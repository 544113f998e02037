"""`python -m ccvae_deploy` is `ccvae-deploy`."""

from .cli import main

main()
