"""Read, resize, composite and encode images, with one rule per mode. Touches files only in `read_file`.

| source                          | becomes                                                                        |
|---------------------------------|--------------------------------------------------------------------------------|
| EXIF orientation                | applied; no other EXIF is carried over                                          |
| 1-bit, grey, grey + alpha       | grey, alpha beside it                                                           |
| 16-bit and 32-bit integer grey  | 8 bits by round(value * 255 / 65535), never clipped; beyond 65535 refused       |
| palette                         | RGB, transparency as alpha                                                      |
| RGBA, premultiplied RGBa        | RGB, alpha beside it                                                            |
| CMYK, YCbCr, LAB, HSV           | RGB                                                                             |
| floating point                  | refused                                                                         |
| animation                       | its first frame                                                                 |

For the network, transparent parts lie over white, and the picture is brought to the model's size by Pillow's
antialiased bilinear filter, its aspect ratio not kept. Training caches, edits and receipts all use that one rule.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError
from .remote import Place, Remote
from .schema import ImageSpec

Format = Literal["jpeg", "png", "webp"]
Pixels = NDArray[np.uint8]

MAX_PIXELS = 100_000_000
MAX_BYTES = 512 << 20
READ_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif"),
    )
)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
WHITE = 255


@dataclass(frozen=True)
class Picture:
    """An upright 8-bit picture.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8.
        alpha: (H, W) uint8, or None where all is opaque.
        format: what `--format same` writes; JPEG, PNG and WebP stay what they are, all else becomes PNG.
        icc_profile: the colour profile of the source, written back with the result.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    format: Format = "png"
    icc_profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_file(path: Place) -> bytes:
    """The bytes of a regular file, or of one behind a URL, of at most 512 MiB.

    Raises:
        ImageError: it cannot be read, is no regular file, is empty or is longer.
    """
    if isinstance(path, Remote):
        return path.read(MAX_BYTES)
    try:
        # a fifo would block for ever without O_NONBLOCK
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file")
            if status.st_size > MAX_BYTES:
                raise ImageError(f"{status.st_size:,} bytes, the limit is {MAX_BYTES:,}")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"unreadable: {(error.strerror or str(error)).lower()}") from error
    if not data:
        raise ImageError("empty file")
    return data


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first frame of an image file.

    Raises:
        ImageError: the bytes are no image, are damaged, or decode to more than `max_pixels`.
    """
    if not data:
        raise ImageError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_readable_formats()) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(f"{image.width * image.height:,} pixels, the limit is {max_pixels:,}")
                return from_pil(image)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError(f"more pixels than the limit of {max_pixels:,}") from error
        except UnidentifiedImageError as error:
            raise ImageError("not an image, or of an unknown kind") from error
        except MemoryError as error:
            raise ImageError("too large for the memory of this machine") from error
        # the decoders of damaged files raise almost anything: OSError, SyntaxError, ValueError, struct.error, …
        except Exception as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ImageError(f"damaged or truncated image: {reason}") from error


def from_pil(image: Image.Image) -> Picture:
    """A picture from a Pillow image of any mode, by the rules above.

    Raises:
        ImageError: the mode has no rule.
    """
    kept: Format = {"JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}.get(image.format or "", "png")  # type: ignore[assignment]
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "L", "LA") else None
    image = ImageOps.exif_transpose(image)
    if image.mode == "P" or (image.mode in ("RGB", "L") and "transparency" in image.info):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("PA", "RGBa", "La"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    alpha = None
    if image.mode in ("RGBA", "LA"):
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if image.mode.startswith("I"):
        return Picture(_sixteen_to_eight(np.asarray(image)), alpha, kept)
    if image.mode == "F":
        raise ImageError("floating-point pixels; convert to 8 or 16 bits first")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if 0 in image.size:
        raise ImageError("an image without pixels")
    opaque = alpha is None or bool((alpha == WHITE).all())
    return Picture(np.asarray(image), None if opaque else alpha, kept, profile)


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
    """The picture as a Pillow image of mode L, RGB, LA or RGBA."""
    image = Image.fromarray(picture.pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def network_input(picture: Picture, spec: ImageSpec) -> NDArray[np.float32]:
    """What the encoder sees of a picture: float32 (C, S, S) in [0, 1]."""
    image = Image.fromarray(_over_white(picture))
    if image.mode != spec.mode:
        image = image.convert(spec.mode)
    if image.size != (spec.size, spec.size):
        image = image.resize((spec.size, spec.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(spec.size, spec.size, spec.channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)


def composite(picture: Picture, difference: NDArray[np.float32]) -> Picture:
    """Residual compositing: add the difference of two decoded images to a picture at its own size.

    pixels' = clip(round(pixels + 255 * enlarge(difference))), enlarged by Pillow's bicubic filter. A grey picture
    takes the luma of the difference and stays grey; a grey difference moves all channels alike.

    Args:
        difference: (C, S, S) float32, edited minus unedited decoder output.
    """
    if picture.pixels.ndim == 2:
        change = _enlarged(_luma(difference), picture.size)
    elif len(difference) == 1:
        change = np.repeat(_enlarged(difference[0], picture.size)[..., None], 3, axis=2)
    else:
        change = np.stack([_enlarged(channel, picture.size) for channel in difference], axis=-1)
    change += picture.pixels
    np.rint(change, out=change)
    np.clip(change, 0, 255, out=change)
    return replace(picture, pixels=change.astype(np.uint8))


def enlarge(image: NDArray[np.float32], picture: Picture) -> Picture:
    """Decode mode: the decoder's image (C, S, S) in [0, 1] at the size and in the colour space of a picture."""
    empty = replace(picture, pixels=np.zeros_like(picture.pixels))
    if len(image) == 1 and picture.pixels.ndim == 3:
        image = np.repeat(image, 3, axis=0)
    return composite(empty, image)


def pixel_change(source: Picture, result: Picture) -> float:
    """Mean absolute difference of two pictures of one size, in levels of 255."""
    pixels, others = source.pixels, result.pixels
    if pixels.ndim != others.ndim:
        pixels, others = (p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in (pixels, others))
    # |a - b| without leaving uint8
    difference = np.maximum(pixels, others) - np.minimum(pixels, others)
    return float(difference.mean(dtype=np.float64))


def encode(picture: Picture, format: Format) -> bytes:
    """A picture as a file: JPEG at quality 95 without chroma subsampling, WebP at quality 95, PNG without loss.

    JPEG has no alpha: transparent parts are laid over white.

    Raises:
        ImageError: the format does not take a picture of this size.
    """
    buffer = io.BytesIO()
    profile = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    try:
        if format == "jpeg":
            Image.fromarray(_over_white(picture)).save(buffer, "JPEG", quality=95, subsampling=0, **profile)
        elif format == "webp":
            to_pil(picture).save(buffer, "WEBP", quality=95, method=2, **profile)
        else:
            # level 3 is within a few percent of the default's size at half its time
            to_pil(picture).save(buffer, "PNG", compress_level=3, **profile)
    except (OSError, ValueError) as error:
        raise ImageError(f"{picture.size[0]}x{picture.size[1]} cannot be written as {format}: {error}") from error
    return buffer.getvalue()


def _readable_formats() -> list[str]:
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            pass
        else:
            register_heif_opener()
    Image.preinit()
    Image.init()
    return [name for name in (*READ_FORMATS, "MPO") if name in Image.OPEN]


def _over_white(picture: Picture) -> Pixels:
    if picture.alpha is None:
        return picture.pixels
    alpha = picture.alpha.astype(np.uint32)
    if picture.pixels.ndim == 3:
        alpha = alpha[..., None]
    mixed = picture.pixels.astype(np.uint32) * alpha + WHITE * (255 - alpha)
    over: Pixels = ((mixed + 127) // 255).astype(np.uint8)
    return over


def _sixteen_to_eight(values: NDArray[np.integer]) -> Pixels:
    wide = values.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
        raise ImageError(f"integer pixels from {wide.min():,} to {wide.max():,}; expected 0 to 65,535")
    narrow: Pixels = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    return narrow


def _luma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(image) == 1:
        only: NDArray[np.float32] = image[0]
        return only
    luma: NDArray[np.float32] = np.tensordot(LUMA, image, axes=1).astype(np.float32)
    return luma


def _enlarged(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """One channel times 255, brought to (width, height)."""
    levels = Image.fromarray(np.ascontiguousarray(channel * np.float32(255)))
    if levels.size != size:
        levels = levels.resize(size, Image.Resampling.BICUBIC)
    return np.array(levels)
