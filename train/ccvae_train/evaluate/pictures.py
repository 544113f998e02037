"""Arrays as captioned sheets of pictures. Pure."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import Picture, from_pil
from ccvae_deploy.pictures.film import Cell, film_grid

SIZE = 80


def picture(image: Array) -> Picture:
    """An image (C, S, S) in [0, 1]."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return from_pil(Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def cells(images: Array, captions: Sequence[str] = ()) -> list[Cell]:
    """Images (N, C, S, S) as one row of a sheet; captions for the first of them."""
    texts = [*captions, *[""] * (len(images) - len(captions))]
    return [Cell(picture(image), text) for image, text in zip(images, texts, strict=True)]


def sheet(rows: Sequence[Sequence[Cell]], title: str) -> Image.Image:
    """Rows of cells under a title."""
    return film_grid(rows, title, size=SIZE)
