"""From the bytes of a stranger's image file to a picture: which formats are read, and what is refused before it costs
time or memory. Touches a file in `open_picture` only.

An animation and a file of several pages are refused; of the pictures in a phone's JPEG (MPO) or HEIC the first is
taken. What becomes of the pixels stands in `images`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib import import_module

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from ..images import Picture, from_pil, refuse_large
from ..limits import MAX_PIXELS
from ..storage.remote import Place
from ..storage.source_file import read_file

MAX_SCANS = 500
"""Of a JPEG, with the previews in it; a progressive one has some ten."""
TILE, TILE_SIDES = 1024, (322, 323)
"""The side that a TIFF's tile may have whatever the picture's, and the tags that say it."""
READ_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
PLUGINS = ("Jpeg", "Png", "WebP", "Bmp", "Tiff", "Gif", "Ppm", "Avif")
ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif"),
    )
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


def open_picture(path: Place, *, max_pixels: int = MAX_PIXELS) -> tuple[Picture, bytes]:
    """The picture of one image file, and the bytes it was decoded from.

    Raises:
        ImageError: as `read_file` and `decode`; the message names the file.
    """
    try:
        data = read_file(path)
        return decode(data, max_pixels=max_pixels), data
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image file of one picture.

    Raises:
        ImageError: the bytes are no image, are damaged, hold an animation or pages, or decode to more than
            `max_pixels`.
    """
    if not data:
        raise ImageError("empty file")
    with told(max_pixels, data), Image.open(io.BytesIO(data), formats=_readable_formats()) as image:
        refuse_large(*image.size, max_pixels)
        _refuse_several(image)
        _refuse_hidden_work(image, data)
        picture = from_pil(image)
        return replace(picture, lossless=True) if _is_lossless_webp(data) else picture


@contextmanager
def told(max_pixels: int, data: bytes = b"") -> Iterator[None]:
    """Tell in one line what a decoder raises.

    Raises:
        ImageError: in place of anything else.
    """
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"more pixels than the limit of {max_pixels:,}") from error
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and "HEIF" not in _readable_formats():
            raise ImageError("HEIC needs pip install 'ccvae-deploy[heif]'") from error
        raise ImageError("not an image, or of an unknown kind") from error
    except MemoryError as error:
        raise ImageError("too large for the memory of this machine") from error
    # the decoders of damaged files raise almost anything: OSError, SyntaxError, ValueError, struct.error, …
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"damaged or truncated image: {reason}") from error


@cache
def _readable_formats() -> tuple[str, ...]:
    """Found once: looking for an extra that is not installed costs more than decoding a small picture."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    # the plugins of these formats alone: Pillow's own list takes 30 ms of every start
    for plugin in PLUGINS:
        with suppress(ImportError):
            import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for name in READ_FORMATS if name in Image.OPEN)


def _refuse_several(image: Image.Image) -> None:
    # MPO and HEIF photographs carry previews and depth maps behind their picture
    if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        what = "a file of several pages" if image.format == "TIFF" else "an animation"
        raise ImageError(f"{what}; save the one picture to edit as a file of its own")


def _refuse_hidden_work(image: Image.Image, data: bytes) -> None:
    """What a small picture can make a decoder do: fill a tile many times its size, walk over it thousands of times."""
    width, height = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in TILE_SIDES)
    sides = ((side, own) for side, own in zip((width, height), image.size, strict=True) if isinstance(side, int))
    if any(side > max(TILE, 2 * own) for side, own in sides):
        raise ImageError(f"tiles of {width} x {height} pixels in a picture of {image.width:,} x {image.height:,}")
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(f"{scans:,} scans, the limit is {MAX_SCANS}; save it again")


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the first picture chunk is VP8L, behind the chunks of the extended format."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    at = 12
    while at + 8 <= len(data) and data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return data[at : at + 4] == b"VP8L"
