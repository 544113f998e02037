"""`data`: write the made images out, fetch data sets that may be fetched, check those that may not.

Thin shells over library functions. Imports what a command needs when it runs.
"""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .options import Once

data_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Get a data set: make it, fetch it, or check it.",
)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the data set.")]


@data_app.command(cls=Once)
def portraits(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
    count: Annotated[int, typer.Option(metavar="N", help="How many portraits.")] = 100,
    size: Annotated[int, typer.Option(metavar="N", help="Height and width in pixels.")] = 64,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same portraits.")] = 0,
) -> None:
    """Write made portraits as PNG files plus labels.csv, which `table:DIR` reads back."""
    from ccvae_train.datasets.writer import write_portraits

    write_portraits(folder, count, seed=seed, size=size)
    print(f"{count:,} portraits and labels.csv are in {folder}")


@data_app.command(cls=Once)
def mnist(folder: FolderArgument) -> None:
    """Fetch MNIST, 55 MB, for `mnist:DIR`; files that are there are kept."""
    from ccvae_train.datasets.download import fetch
    from ccvae_train.datasets.mnist import MNIST

    fetch(folder, MNIST)
    print(f"MNIST is in {folder}; next: ccvae-deploy train --data {quote(f'mnist:{folder}')}")


@data_app.command(cls=Once)
def fashion_mnist(folder: FolderArgument) -> None:
    """Fetch Fashion-MNIST, 55 MB, for `fashion-mnist:DIR`; files that are there are kept."""
    from ccvae_train.datasets.download import fetch
    from ccvae_train.datasets.mnist import FASHION_MNIST

    fetch(folder, FASHION_MNIST)
    print(f"Fashion-MNIST is in {folder}; next: ccvae-deploy train --data {quote(f'fashion-mnist:{folder}')}")


@data_app.command(cls=Once)
def celeba(folder: FolderArgument) -> None:
    """Say where CelebA is got and what its licence asks; check that DIR is whole."""
    from ccvae_train.datasets.licensed import CELEBA, check_celeba

    print(CELEBA)
    print(f"{check_celeba(folder)}; next: ccvae-deploy train --data {quote(f'celeba:{folder}')}")


@data_app.command(cls=Once)
def chexpert(folder: FolderArgument) -> None:
    """Say where CheXpert is got and what its licence asks; check that DIR is whole."""
    from ccvae_train.datasets.licensed import CHEXPERT, check_chexpert

    print(CHEXPERT)
    print(f"{check_chexpert(folder)}; next: ccvae-deploy train --data {quote(f'chexpert:{folder}')}")
