"""`python -m ccvae_train` is `ccvae-deploy train`, in a form that `torchrun -m` can start."""

import sys

from ccvae_deploy.cli import app

if __name__ == "__main__":
    app(["train", *sys.argv[1:]], prog_name="ccvae-deploy")
