"""Pictures in rows with captions, and as an animation, for people to look at. Pure pictures, no files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .images import Picture, from_pil, to_pil

GAP, TITLE, CAPTION = 6, 26, 18
PAPER, INK = (255, 255, 255), (40, 40, 40)
FRAME_MS = 120


@dataclass(frozen=True)
class Cell:
    """A picture and what stands under it."""

    picture: Picture
    caption: str = ""


def thumbnail(picture: Picture, size: int) -> Image.Image:
    """An RGB image of size x size: the picture in the middle, its aspect ratio kept, over white."""
    image = to_pil(picture).convert("RGBA")
    factor = size / max(image.size)
    small = image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.LANCZOS
    )
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2), small)
    return square


def shrunk(picture: Picture, size: int) -> Picture:
    """The picture with its longer side brought down to `size`; a smaller one stays as it is."""
    if max(picture.size) <= size:
        return picture
    factor = size / max(picture.size)
    box = (max(1, round(picture.size[0] * factor)), max(1, round(picture.size[1] * factor)))
    image = Image.fromarray(picture.pixels).resize(box, Image.Resampling.LANCZOS)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha).resize(box, Image.Resampling.LANCZOS))
    return from_pil(image)


def film_grid(rows: Sequence[Sequence[Cell]], title: str, *, size: int = 128) -> Image.Image:
    """Cells of `size` pixels in rows, each with its caption, under one title."""
    captioned = any(cell.caption for row in rows for cell in row)
    step = size + GAP + (CAPTION if captioned else 0)
    columns = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (GAP + columns * (size + GAP), TITLE + len(rows) * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, title, (GAP, TITLE / 2), 13, sheet.width - 2 * GAP, "lm")
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            left, top = GAP + c * (size + GAP), TITLE + r * step
            sheet.paste(thumbnail(cell.picture, size), (left, top))
            _text(draw, cell.caption, (left + size / 2, top + size + CAPTION / 2), 11, size, "mm")
    return sheet


def film_gif(frames: Sequence[Cell], title: str, *, size: int = 256) -> bytes:
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


def _text(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[float, float], points: int, width: float, anchor: str
) -> None:
    """Text cut to a width; what a font cannot draw must not stop a sheet."""
    font = ImageFont.load_default(points)
    text = text.encode("utf-8", "replace").decode("utf-8")
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…"
    draw.text(place, text, fill=INK, font=font, anchor=anchor)
