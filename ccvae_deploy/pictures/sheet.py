"""Contact sheets: originals beside their samples, for people to look at. Pure pictures, no files."""

import math
from collections.abc import Sequence

from PIL import ExifTags, Image, ImageDraw, ImageFont

from ..images import Picture, encode, from_pil, to_pil
from ..records.pages import MARK
from .canvas import one_at_a_time

CELL, GAP, HEAD, CAPTION = 128, 6, 26, 16
ROWS, COLUMNS = 12, 8
PAPER, INK, RULE = (255, 255, 255), (40, 40, 40), (200, 200, 200)


def contact_sheet(
    rows: Sequence[tuple[Picture, Sequence[Picture]]], title: str, captions: Sequence[str] = ()
) -> Image.Image:
    """One row per source: the original, a rule, then its samples; at most 12 rows of 8 samples.

    Few samples leave the sheet as wide as its title and captions, up to the width of 8.

    Args:
        rows: each original with its results.
        title: what stands over the samples, such as `smiling=1`.
        captions: what stands over each row, where rows differ; none leaves no room for it.
    """
    shown = [(original, list(samples)[:COLUMNS]) for original, samples in list(rows)[:ROWS]]
    columns = max((len(samples) for _, samples in shown), default=0)
    first = GAP + CELL + 2 * GAP
    texts = [(title, 13), *((caption, 11) for caption in captions)]
    wanted = max(ImageFont.load_default(points).getlength(_drawable(text)) for text, points in texts)
    width = max(columns * (CELL + GAP), min(math.ceil(wanted) + GAP, COLUMNS * (CELL + GAP)))
    over = CAPTION if captions else 0
    sheet = Image.new("RGB", (first + width, HEAD + len(shown) * (over + CELL + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, "original", (GAP + CELL / 2, HEAD / 2), 13, CELL, "mm")
    write(draw, title, (first, HEAD / 2), 13, width, "lm")
    draw.line([(first - 1.5 * GAP, 4), (first - 1.5 * GAP, sheet.height - 4)], fill=RULE)
    for row, (original, samples) in enumerate(shown):
        top = HEAD + row * (over + CELL + GAP) + over
        if captions:
            write(draw, captions[row], (first, top - over / 2), 11, width, "lm")
        paste(sheet, original, GAP, top)
        for column, sample in enumerate(samples):
            paste(sheet, sample, first + column * (CELL + GAP), top)
    return sheet


def sheet_file(sheet: Image.Image) -> bytes:
    """A sheet as PNG, with the mark of our pages."""
    sheet.getexif()[ExifTags.Base.Software] = MARK
    return encode(from_pil(sheet), "png")


def small(picture: Picture, size: int = CELL) -> Picture:
    """A picture as a cell shows it, its aspect ratio kept; all that need be in memory of one for a sheet."""
    factor = size / max(picture.size)
    fitting = (max(1, round(picture.size[0] * factor)), max(1, round(picture.size[1] * factor)))
    if picture.size == fitting:
        return picture
    with one_at_a_time(picture.size):
        image = to_pil(picture).resize(fitting, Image.Resampling.LANCZOS)
    return from_pil(image)


def paste(sheet: Image.Image, picture: Picture, left: int, top: int, size: int = CELL) -> None:
    """A picture in the middle of its cell, transparent parts over the paper."""
    image = to_pil(small(picture, size)).convert("RGBA")
    sheet.paste(image, (left + (size - image.width) // 2, top + (size - image.height) // 2), image)


def write(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[float, float], points: int, width: float, anchor: str
) -> None:
    """Text cut to a width; what a font cannot draw must not stop a sheet."""
    font = ImageFont.load_default(points)
    text = _drawable(text)
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…"
    draw.text(place, text, fill=INK, font=font, anchor=anchor)


def _drawable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
