"""The settings and the data of the small runs that are evaluated, and the command on them."""

from typer.testing import CliRunner

from ccvae_deploy.cli import app

from .. import made_images

SMALL = {"epochs": 2, "latents": 6, "batch_size": 32, "learning_rate": 3e-3, "device": "cpu", "image_size": 32}
DATA = made_images.made_data(made_images.BINARY)


def command(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--device", "cpu", "--images", "80"])
