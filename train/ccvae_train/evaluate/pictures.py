"""Arrays as captioned sheets of pictures. Pure."""

from collections.abc import Sequence

from PIL import Image

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import from_unit
from ccvae_deploy.pictures.film import Cell, film_grid

SIZE = 80


def cells(images: Array, captions: Sequence[str] = ()) -> list[Cell]:
    """Images (N, C, S, S) as one row of a sheet; captions for the first of them."""
    texts = [*captions, *[""] * (len(images) - len(captions))]
    return [Cell(from_unit(image), text) for image, text in zip(images, texts, strict=True)]


def sheet(rows: Sequence[Sequence[Cell]], title: str) -> Image.Image:
    """Rows of cells under a title."""
    return film_grid(rows, title, size=SIZE)
