"""What an image file says beside its pixels: colour profile, resolution, EXIF. Pure, and forgiving: damaged parts are
left out.

| part                 | what becomes of it                                                                      |
|----------------------|-----------------------------------------------------------------------------------------|
| colour profile (ICC) | kept, as long as it describes the colours that are written                              |
| resolution (DPI)     | kept in JPEG and PNG, the formats with a field for it                                   |
| EXIF                 | camera, time, place, author and rights are kept; orientation is gone, since it is       |
|                      | applied; thumbnail and maker notes, which may show the unedited picture, are dropped    |
| XMP, IPTC, comments  | dropped: XMP repeats orientation and thumbnail                                          |
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

Base = ExifTags.Base
KEPT = (Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright)
"""Of the first directory; the others of it describe how pixels were stored."""

KEPT_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
DROPPED = (Base.MakerNote, Base.ExifImageWidth, Base.ExifImageHeight, ExifTags.IFD.Interop)
"""Of the EXIF directory; the last is the place of a directory in the old block."""

EXIF_LIMIT = 65_533
"""Bytes a JPEG segment can take."""

SIDEWAYS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

COLOUR_SPACES = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}
"""Channels by the colour space a profile names."""


@dataclass(frozen=True)
class Metadata:
    """What is written back with the result.

    Attributes:
        icc_profile: the colour profile of the pixels.
        dpi: horizontal and vertical resolution.
        exif: an EXIF block as it stands in a JPEG, without orientation.
    """

    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    exif: bytes | None = None

    def options(self, format: str, channels: int) -> dict[str, Any]:
        """Arguments for Pillow's `save`.

        Args:
            format: jpeg, png, webp or avif; the last two have no grey, so that a profile of grey describes nothing.
            channels: 1 or 3, of the picture.
        """
        profile = self.icc_profile if channels == 3 or format in ("jpeg", "png") else None
        found = {"icc_profile": profile, "exif": self.exif}
        if format in ("jpeg", "png"):
            found["dpi"] = self.dpi  # type: ignore[assignment]
        return {key: value for key, value in found.items() if value}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where none can be read."""
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # the parsers of damaged EXIF raise almost anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def metadata(image: Image.Image, channels: int, turned: int) -> Metadata:
    """What is kept of an opened image of this orientation that becomes one of 1 or 3 channels."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or COLOUR_SPACES.get(profile[16:20], channels) != channels:
        profile = None
    return Metadata(profile or None, _dpi(image, turned), _exif(image))


def _dpi(image: Image.Image, turned: int) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and 1 <= value <= 65_535 for value in (across, down)):
        return None
    return (down, across) if turned in SIDEWAYS else (across, down)


class _Text(str):
    """Text that Pillow has read as Latin-1, whatever it is, and would write as ASCII: it keeps its bytes, and its type,
    which bytes alone would lose.
    """

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        return super().encode("latin-1", "replace")


def _as_it_stood(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def _exif(image: Image.Image) -> bytes | None:
    with contextlib.suppress(Exception):  # as above
        found = image.getexif()
        if not found:
            return None
        kept = Image.Exif()
        for directory in KEPT_DIRECTORIES:
            inner = {tag: _as_it_stood(value) for tag, value in found.get_ifd(directory).items() if tag not in DROPPED}
            if inner:
                kept[directory] = inner
        for tag in KEPT:
            if tag in found:
                kept[tag] = _as_it_stood(found[tag])
        block = kept.tobytes() if len(kept) else b""
        return block if 0 < len(block) <= EXIF_LIMIT else None
    return None
