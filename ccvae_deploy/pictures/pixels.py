"""Pixels of an opened Pillow image: upright, 8 bits, one rule per mode as the table in `images` has it. Pure, strip by
strip where the picture is large.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..errors import ImageError
from .canvas import blank, leave, strips
from .metadata import SIDEWAYS

Pixels = NDArray[np.uint8]

WHITE = 255
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Two tags of TIFF, and a value of the second."""
TWELVE_BITS, SIXTEEN_BITS = 4095, 65_535
"""The values of white."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


def upright_pixels(image: Image.Image, turned: int, *, grey: bool = False) -> tuple[Pixels, Pixels | None]:
    """Pixels (H, W) or (H, W, 3), and alpha (H, W) or None, of a loaded image with this EXIF orientation.

    Args:
        grey: RGBA that is grey and alpha in truth.

    Raises:
        ImageError: integers that are no 16-bit values, or no room on the disk.
    """
    height = image.width if turned in SIDEWAYS else image.height
    convert = (lambda strip: strip.convert("LA")) if grey else _converter(image)
    return _collected(_upright(image, turned, convert), height)


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What brings a strip of this image to mode L, RGB, LA, RGBA, or to integers."""
    clear = "transparency" in image.info
    mode = image.mode
    if mode == "CMYK" and (convert := _by_profile(image)):
        return convert
    if mode.startswith("I") and isinstance(hidden := image.info.get("transparency"), int):
        return partial(_with_hidden, hidden=hidden)
    tags = getattr(image, "tag_v2", {})
    if mode.startswith("I") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return _positive
    if mode.startswith("I") and tags.get(BITS) == (12,):
        return _of_twelve_bits
    if mode in ("1", "L") and clear:
        target = "LA"
    elif mode == "P" or (mode == "RGB" and clear):
        target = "RGBA" if clear else "RGB"
    elif mode in ("L", "RGB", "LA", "RGBA") or mode.startswith("I"):
        return lambda strip: strip
    else:
        target = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(mode, "RGB")
    return lambda strip: strip.convert(target)


def _positive(strip: Image.Image) -> Image.Image:
    """16-bit grey whose 0 is white, as mode L; of fewer bits Pillow makes the positive itself."""
    return Image.fromarray(WHITE - _to_eight_bits(np.asarray(strip)))


def _of_twelve_bits(strip: Image.Image) -> Image.Image:
    """Grey of microscopes and X-rays, which Pillow leaves in the low bits of 16, as mode L."""
    return Image.fromarray(_to_eight_bits(np.asarray(strip), TWELVE_BITS))


def _with_hidden(strip: Image.Image, hidden: int) -> Image.Image:
    """16-bit grey of which one value is transparent, as mode LA."""
    values = np.asarray(strip)
    alpha = np.where(values == hidden, np.uint8(0), np.uint8(WHITE))
    return Image.merge("LA", (Image.fromarray(_to_eight_bits(values)), Image.fromarray(alpha)))


def _by_profile(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """Conversion to sRGB by the embedded profile, None where there is none that works."""
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    except (KeyError, TypeError, OSError, ImageCms.PyCMSError):
        return None
    return transform.apply


def _upright(
    image: Image.Image, turned: int, convert: Callable[[Image.Image], Image.Image]
) -> Iterator[tuple[int, Image.Image]]:
    """Strips of the upright, converted image, with the first row of each."""
    width, height = image.size
    parts = strips((height, width) if turned in SIDEWAYS else image.size)
    for top, end in parts:
        strip = image
        if len(parts) > 1:
            # where these rows lie in the image as it is stored: rows or columns, from the near or the far end
            length = width if turned in SIDEWAYS else height
            first, last = (top, end) if turned in (1, 2, 5, 6) else (length - end, length - top)
            strip = image.crop((first, 0, last, height) if turned in SIDEWAYS else (0, first, width, last))
        if turned in UPRIGHT:
            strip = strip.transpose(UPRIGHT[turned])
        yield top, convert(strip)


def _collected(parts: Iterator[tuple[int, Image.Image]], height: int) -> tuple[Pixels, Pixels | None]:
    """Pixels and alpha of strips put together; an alpha of 255 throughout is none."""
    found: list[Pixels | None] = [None, None]
    opaque = True
    for top, strip in parts:
        for i, array in enumerate(_arrays(strip)):
            if array is None or len(array) == height:
                found[i] = array
            else:
                whole = found[i] = blank((height, *array.shape[1:])) if top == 0 else found[i]
                whole[top : top + len(array)] = array  # type: ignore[index]
                leave(whole)
            opaque &= i == 0 or array is None or bool((array == WHITE).all())
    pixels, alpha = found
    return pixels, None if opaque else alpha  # type: ignore[return-value]


def _arrays(strip: Image.Image) -> tuple[Pixels, Pixels | None]:
    alpha = None
    if strip.mode in ("RGBA", "LA"):
        alpha = np.asarray(strip.getchannel("A"))
        strip = strip.convert("RGB" if strip.mode == "RGBA" else "L")
    pixels = np.asarray(strip)
    return _to_eight_bits(pixels) if strip.mode.startswith("I") else pixels, alpha


def _to_eight_bits(values: NDArray[np.integer], white: int = SIXTEEN_BITS) -> Pixels:
    if values.min(initial=0) < 0 or values.max(initial=0) > white:
        raise ImageError(f"integer pixels from {values.min():,} to {values.max():,}; expected 0 to {white:,}")
    # a few bytes per pixel, since a picture just below a large one is here whole
    wide = values.astype(np.uint32)
    wide *= 255
    wide += white // 2
    wide //= white
    narrow: Pixels = wide.astype(np.uint8)
    return narrow
