"""Pictures in rows with captions, and as an animation, for people to look at. Pure pictures, no files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..images import Picture
from .sheet import GAP, PAPER, paste, small, write

TITLE, CAPTION = 26, 18
FRAME_MS = 120


@dataclass(frozen=True)
class Cell:
    """A picture and what stands under it."""

    picture: Picture
    caption: str = ""


def thumbnail(picture: Picture, size: int) -> Image.Image:
    """An RGB image of size x size: the picture in the middle, its aspect ratio kept, over white."""
    square = Image.new("RGB", (size, size), PAPER)
    paste(square, picture, 0, 0, size)
    return square


def shrunk(picture: Picture, size: int) -> Picture:
    """The picture with its longer side brought down to `size`; a smaller one stays as it is."""
    return picture if max(picture.size) <= size else small(picture, size)


def film_grid(rows: Sequence[Sequence[Cell]], title: str, *, size: int = 128) -> Image.Image:
    """Cells of `size` pixels in rows, each with its caption, under one title."""
    captioned = any(cell.caption for row in rows for cell in row)
    step = size + GAP + (CAPTION if captioned else 0)
    columns = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (GAP + columns * (size + GAP), TITLE + len(rows) * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, title, (GAP, TITLE / 2), 13, sheet.width - 2 * GAP, "lm")
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            left, top = GAP + c * (size + GAP), TITLE + r * step
            paste(sheet, cell.picture, left, top, size)
            write(draw, cell.caption, (left + size / 2, top + size + CAPTION / 2), 11, size, "mm")
    return sheet


def film_gif(frames: Sequence[Cell], title: str, *, size: int) -> bytes:
    """An endless animation that runs through the frames and back, each under the title, its caption below."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    drawn = [film_grid([[cell]], title, size=size) for cell in there_and_back]
    # one palette for all, or colours would flicker from frame to frame
    strip = Image.new("RGB", (drawn[0].width, sum(image.height for image in drawn[: len(frames)])))
    for i, image in enumerate(drawn[: len(frames)]):
        strip.paste(image, (0, i * image.height))
    palette = strip.quantize(255)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in drawn]
    buffer = io.BytesIO()
    flat[0].save(buffer, "GIF", save_all=True, append_images=flat[1:], duration=FRAME_MS, loop=0)
    return buffer.getvalue()
