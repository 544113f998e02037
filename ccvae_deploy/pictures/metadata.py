"""What an image file says beside its pixels: colour profile, resolution, EXIF. Pure, and forgiving: damaged parts are
left out.

| part                 | what becomes of it                                                                      |
|----------------------|-----------------------------------------------------------------------------------------|
| colour profile (ICC) | kept, as long as it describes the colours that are written                              |
| resolution (DPI)     | kept: in JPEG and PNG in the field that they have for it, in WebP and AVIF in EXIF      |
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

RESOLUTION = (Base.XResolution, Base.YResolution, Base.ResolutionUnit)
INCH, CENTIMETRE = 2, 3
IN_AN_INCH = {INCH: 1.0, CENTIMETRE: 2.54}
"""How many of a unit of resolution; the third that there is means no length."""

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
        if format in ("jpeg", "png"):
            found = {"icc_profile": self.icc_profile, "exif": self.exif, "dpi": self.dpi}
        else:
            profile = self.icc_profile if channels == 3 else None
            found = {"icc_profile": profile, "exif": _with_resolution(self.exif, self.dpi)}
        return {key: value for key, value in found.items() if value}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where none can be read."""
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # the parsers of damaged EXIF raise almost anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_resolution(image: Image.Image) -> None:
    """Turn the resolution of a TIFF that is not loaded yet: Pillow turns its pixels as it loads, but not this."""
    dpi = image.info.get("dpi")
    if isinstance(dpi, tuple) and getattr(image, "tag_v2", {}).get(Base.Orientation) in SIDEWAYS:
        image.info["dpi"] = dpi[::-1]


def metadata(image: Image.Image, channels: int, turned: int) -> Metadata:
    """What is kept of an opened image of this orientation that becomes one of 1 or 3 channels."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or COLOUR_SPACES.get(profile[16:20], channels) != channels:
        profile = None
    return Metadata(profile or None, _dpi(image, turned), _exif(image))


def _dpi(image: Image.Image, turned: int) -> tuple[float, float] | None:
    given = _sound(image.info.get("dpi")) or _sound(_dpi_of_exif(image))
    return given[::-1] if given and turned in SIDEWAYS else given


def _dpi_of_exif(image: Image.Image) -> tuple[float, float] | None:
    with contextlib.suppress(Exception):  # as above
        exif = image.getexif()
        in_an_inch = IN_AN_INCH[exif.get(Base.ResolutionUnit, INCH)]
        return float(exif[Base.XResolution]) * in_an_inch, float(exif[Base.YResolution]) * in_an_inch
    return None


def _sound(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # one dot per inch is what Pillow says of a TIFF that says nothing
    return (across, down) if all(math.isfinite(v) and 1 < v <= 65_535 for v in (across, down)) else None


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
        return _block(_kept(image.getexif()))
    return None


def _with_resolution(block: bytes | None, dpi: tuple[float, float] | None) -> bytes | None:
    """A block of ours with a resolution in it, for a format without a field of its own."""
    if dpi is None:
        return block
    found = Image.Exif()
    found.load(block or b"")
    resolution = {(None, tag): value for tag, value in zip(RESOLUTION, (*dpi, INCH), strict=True)}
    return _block(_kept(found) | resolution) or block


Tags = dict[tuple[int | None, int], Any]
"""Values by directory, None for the first, and tag."""


def _kept(found: Image.Exif) -> Tags:
    """The tags that are kept, of what can be read."""
    kept: Tags = {}
    for tag in KEPT:
        with contextlib.suppress(Exception):  # a tag that is damaged, or not there
            kept[None, tag] = _as_it_stood(found[tag])
    for directory in KEPT_DIRECTORIES:
        with contextlib.suppress(Exception):  # as above
            inner = found.get_ifd(directory).items()
            kept |= {(directory, tag): _as_it_stood(value) for tag, value in inner if tag not in DROPPED}
    return kept


def _block(tags: Tags) -> bytes | None:
    """An EXIF block of these tags, without those that Pillow reads but cannot write, as a fraction for a text."""
    if (block := _written(tags)) is None:
        tags = {key: value for key, value in tags.items() if _written({key: value})}
        block = _written(tags)
    return block if tags and block and len(block) <= EXIF_LIMIT else None


def _written(tags: Tags) -> bytes | None:
    """The block of these tags, or None where Pillow cannot write one of them."""
    exif = Image.Exif()
    for directory in KEPT_DIRECTORIES:
        inner = {tag: value for (of, tag), value in tags.items() if of == directory}
        if inner:
            exif[directory] = inner
    for (of, tag), value in tags.items():
        if of is None:
            exif[tag] = value
    try:
        return exif.tobytes()
    except Exception:  # as above
        return None
