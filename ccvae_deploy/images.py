"""Pictures in memory: from Pillow and arrays, resized, encoded, with one rule per mode. Touches no file; see `canvas`.

| source                          | becomes                                                                        |
|---------------------------------|--------------------------------------------------------------------------------|
| EXIF orientation                | applied; what is kept of other metadata stands in `metadata`                    |
| 1-bit, grey, grey + alpha       | grey, alpha beside it; of a TIFF whose 0 is white the positive                  |
| 16-bit and 32-bit integer grey  | 8 bits by round(value * 255 / 65535), never clipped; beyond 65535 refused       |
| 12-bit grey of a TIFF           | 8 bits by round(value * 255 / 4095)                                             |
| 16-bit RGB, RGBA, grey + alpha  | 8 bits, the high byte of each value                                             |
| palette                         | RGB, transparency as alpha                                                      |
| RGBA, premultiplied RGBa        | RGB, alpha beside it                                                            |
| CMYK                            | sRGB by its colour profile where it has one that works, else by Pillow's rule   |
| YCbCr, LAB, HSV                 | RGB                                                                             |
| floating point                  | refused                                                                         |

For the network, transparent parts lie over white, and the picture is brought to the model's size by Pillow's
antialiased bilinear filter, its aspect ratio not kept. Training caches, edits and receipts all use that one rule.
"""

import io
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ImageError
from .pictures.canvas import leave, one_at_a_time, strips
from .pictures.metadata import Metadata, metadata, orientation, turn_resolution
from .pictures.pixels import WHITE, Pixels, upright_pixels
from .schema import ImageSpec

Format = Literal["jpeg", "png", "webp", "avif"]

ENDING: dict[Format, str] = {"jpeg": "jpg", "png": "png", "webp": "webp", "avif": "avif"}
GREY_AND_ALPHA = "ccvae-deploy: grey and alpha"
"""What is kept beside a Pillow image that is such, once it is loaded."""
MOST_PIXELS = 178_956_970
"""What Pillow itself refuses beyond."""
MAX_SIDE = 65_535
"""Width or height; work is bounded by it."""
LONGEST: dict[str, int] = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768}
"""The side that a format can have, where it is less. A longer AVIF would be written, but libavif reads none."""
KEPT_FORMATS: dict[str | None, Format] = {"JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp", "AVIF": "avif"}


@dataclass(frozen=True)
class Picture:
    """An upright 8-bit picture.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8.
        alpha: (H, W) uint8, or None where all is opaque.
        format: what `--format same` writes; JPEG, PNG, WebP and AVIF stay what they are, all else becomes PNG.
        lossless: the source is a WebP without loss, and stays one.
        metadata: what is written back with the result.
        read: False for a frame, of which only size, mode and format are known: its pixels are black.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    format: Format = "png"
    lossless: bool = False
    metadata: Metadata = field(default=Metadata())
    read: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return self.size[0] * self.size[1]

    @property
    def channels(self) -> int:
        """1 of grey, 3 of RGB; alpha is not counted."""
        return 1 if self.pixels.ndim == 2 else 3


def frame(size: tuple[int, int], channels: int, format: Format, lossless: bool = False) -> Picture:
    """A picture of which nothing but this is known; its pixels take no memory."""
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    return Picture(np.broadcast_to(np.uint8(0), shape), None, format, lossless, read=False)


def frame_of(picture: Picture) -> Picture:
    """The frame of a picture."""
    return frame(picture.size, picture.channels, picture.format, picture.lossless)


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of more pixels, or of a longer side, than can be.

    Raises:
        ImageError: it is too large.
    """
    if width * height > max_pixels:
        raise ImageError(f"{width * height:,} pixels, the limit is {max_pixels:,}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width:,} x {height:,} pixels, the limit of a side is {MAX_SIDE:,}")


def _raw_mode(image: Image.Image) -> object:
    """How the pixels lie in the file of an image that is not loaded yet."""
    tiles = getattr(image, "tile", ())
    return tiles[0].args if tiles else ""


def _match_transparency(image: Image.Image) -> None:
    """Bring the transparent value of a PNG to the 8 bits that Pillow brings its pixels to, but not this value."""
    hidden, raw = image.info.get("transparency"), _raw_mode(image)
    if isinstance(hidden, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = hidden * (85 if raw == "L;2" else 17)
    elif isinstance(hidden, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in hidden)


def from_pil(image: Image.Image) -> Picture:
    """A picture from a Pillow image of any mode, by the rules above; of one that is opened but not loaded yet the file
    says more than of its pixels alone.

    Raises:
        ImageError: the mode has no rule, or a side is beyond the limit.
    """
    if image.mode == "F":
        raise ImageError("floating-point pixels; convert to 8 or 16 bits first")
    if 0 in image.size:
        raise ImageError("an image without pixels")
    refuse_large(*image.size, MOST_PIXELS)
    with one_at_a_time(image.size):
        # grey and alpha, whatever Pillow makes of it: an image says so until it is loaded, and may be asked again
        if _raw_mode(image) == "LA;16B":
            image.info[GREY_AND_ALPHA] = True
        grey = GREY_AND_ALPHA in image.info
        _match_transparency(image)
        turn_resolution(image)
        # the profile of a PNG may stand behind its pixels, and Pillow turns a TIFF upright as it loads
        image.load()
        turned = orientation(image)
        pixels, alpha = upright_pixels(image, turned, grey=grey)
    picture = Picture(pixels, alpha, KEPT_FORMATS.get(image.format, "png"))
    kept = metadata(image, picture.channels, turned)
    if image.mode in ("CMYK", "LAB"):
        kept = replace(kept, icc_profile=None)
    return replace(picture, metadata=kept)


def from_array(array: NDArray[np.uint8]) -> Picture:
    """A picture from a uint8 array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.

    Raises:
        ImageError: another shape or type.
    """
    if array.dtype != np.uint8 or 0 in array.shape or not (array.ndim == 2 or array.shape[2:] in ((3,), (4,))):
        raise ImageError(f"array of {array.dtype} {array.shape}; expected uint8 of (H, W), (H, W, 3) or (H, W, 4)")
    if array.ndim == 3 and array.shape[2] == 4:
        return Picture(np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3]))
    return Picture(np.ascontiguousarray(array))


def to_pil(picture: Picture) -> Image.Image:
    """The picture as a Pillow image of mode L, RGB, LA or RGBA, with its metadata beside it."""
    image = _whole(picture, flat=False)
    image.info.update(picture.metadata.options("jpeg", picture.channels))
    return image


def network_input(picture: Picture, spec: ImageSpec) -> NDArray[np.float32]:
    """What the encoder sees of a picture: float32 (C, S, S) in [0, 1]."""
    return in_unit(resized(picture, spec.mode, (spec.size, spec.size)))


def brought_down(image: Image.Image, spec: ImageSpec) -> NDArray[np.float32]:
    """What the encoder sees of an opaque Pillow image of mode L or RGB: float32 (C, S, S) in [0, 1]."""
    return in_unit(_shrunk(image if image.mode == spec.mode else image.convert(spec.mode), (spec.size, spec.size)))


def in_unit(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels (…, H, W, C) uint8 as the encoder takes them: float32 (…, C, H, W) in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3), np.float32) / np.float32(255)


def from_unit(image: NDArray[np.float32]) -> Picture:
    """A decoder's image (C, S, S) in [0, 1] as an 8-bit picture of its own size."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return from_array(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def resized(picture: Picture, mode: Literal["L", "RGB"], size: tuple[int, int]) -> Pixels:
    """A picture over white at a width and height, its aspect ratio not kept: uint8 (H, W, 1) or (H, W, 3)."""
    with one_at_a_time(picture.size):
        return _shrunk(_whole(picture, flat=True, mode=mode), size)


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Pixels:
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size[1], size[0], -1)


def encode(picture: Picture, format: Format) -> bytes:
    """A picture as a file: JPEG at quality 95 without chroma subsampling, WebP at 95, AVIF at 90, PNG without loss.

    What was a lossless WebP stays one. JPEG has no alpha: transparent parts are laid over white.

    Raises:
        ImageError: the format does not take a picture of this size.
    """
    width, height = picture.size
    longest = LONGEST.get(format)
    if longest and max(width, height) > longest:
        raise ImageError(
            f"{width:,} x {height:,} pixels, the limit of a side in {format} is {longest:,}; take --format png"
        )
    options: dict[str, Any] = picture.metadata.options(format, picture.channels)
    match format:
        case "jpeg":
            options |= {"quality": 95, "subsampling": 0}
        case "webp" if picture.lossless:
            options |= {"lossless": True, "exact": True, "quality": 20, "method": 1}
        case "webp":
            options |= {"quality": 95, "method": 2}
        case "avif":
            # the workers are the parallelism
            options |= {"quality": 90, "subsampling": "4:4:4", "speed": 8, "max_threads": 1}
        case _:
            # runs alone suit filtered photographs: smaller than the default strategy at level 3, in two thirds the time
            options |= {"compress_level": 3, "compress_type": Image.RLE}
    buffer = io.BytesIO()
    try:
        with one_at_a_time(picture.size):
            _whole(picture, flat=format == "jpeg").save(buffer, format.upper(), **options)
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{width}x{height} cannot be written as {format}: {error}") from error
    return buffer.getvalue()


def _whole(picture: Picture, *, flat: bool, mode: str | None = None) -> Image.Image:
    """A Pillow image of a picture, put together from strips; `flat` lays it over white."""
    whole: Image.Image | None = None
    for top, end in strips(picture.size):
        pixels = picture.pixels[top:end]
        alpha = None if picture.alpha is None else picture.alpha[top:end]
        strip = Image.fromarray(pixels if alpha is None or not flat else over_white(pixels, alpha))
        if mode is not None and strip.mode != mode:
            strip = strip.convert(mode)
        if alpha is not None and not flat:
            strip.putalpha(Image.fromarray(alpha))
        if strip.height == picture.size[1]:
            return strip
        whole = whole or Image.new(strip.mode, picture.size, None)
        whole.paste(strip, (0, top))
        leave(picture.pixels, picture.alpha)
    return whole  # type: ignore[return-value]


def over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Pixels (H, W) or (H, W, 3) laid over white by an alpha (H, W)."""
    # all of it fits into 16 bits, and a picture just below a large one is here whole
    weight = alpha.astype(np.uint16)
    if pixels.ndim == 3:
        weight = weight[..., None]
    mixed = pixels * weight
    mixed += WHITE * (255 - weight)
    mixed += 127
    mixed //= 255
    over: Pixels = mixed.astype(np.uint8)
    return over
