"""From a decoded change to a picture and to the bytes of a file, in one way for all commands. Touches nothing."""

import io
from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image, features

from .. import images
from ..arrays import Array
from ..edits.request import Compose
from ..errors import UsageError, nearest
from ..images import Format, Picture
from ..pictures.decoding import decode
from ..schema import ImageSpec
from . import compositing
from .canvas import is_large


@dataclass(frozen=True)
class Rendered:
    """One output as a file, and what the receipt needs of it.

    Attributes:
        data: the encoded file.
        seen: what the encoder sees of the written pixels, (C, S, S).
        pixel_change: mean absolute difference to the source at its own size, in levels of 255; 0 where it was not read.
    """

    data: bytes
    seen: Array
    pixel_change: float


def render(picture: Picture, edited: Array, unedited: Array, how: Compose) -> Picture:
    """A picture at its own size after an edit: residual compositing, or the decoder's image.

    Args:
        edited, unedited: decoder output (C, S, S) in [0, 1].
    """
    if how == "decode":
        return compositing.enlarge(edited, picture)
    return compositing.composite(picture, edited - unedited)


def write_out(
    picture: Picture, edited: Array, unedited: Array, how: Compose, format: Format, spec: ImageSpec
) -> Rendered:
    """Render, encode, and look again at what was written: lossy files are decoded from their bytes.

    Raises:
        ImageError: the format does not take a picture of this size.
    """
    result = render(picture, edited, unedited, how)
    data = images.encode(result, format)
    written, seen = look_again(result, data, format, spec)
    return Rendered(data, seen, compositing.pixel_change(picture, written) if picture.read else 0.0)


def look_again(result: Picture, data: bytes, format: Format, spec: ImageSpec) -> tuple[Picture, Array]:
    """What was written, and what the encoder sees of it, (C, S, S).

    Args:
        result: what was encoded as `data`.
    """
    if format == "jpeg" and not is_large(result.size):
        # a JPEG of ours is upright, opaque, grey or RGB: one Pillow image gives both without the rules for strangers'
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return Picture(np.asarray(image)), images.brought_down(image, spec)
    written = result if format == "png" else decode(data, max_pixels=images.MOST_PIXELS)
    return written, images.network_input(written, spec)


def output_format(asked: str, kept: Format) -> Format:
    """The format of the outputs of a source whose own counts where `same` was asked for."""
    return kept if asked == "same" else asked  # type: ignore[return-value]


def refuse_format(format: str) -> None:
    """Refuse a format that outputs cannot have.

    Raises:
        UsageError: an unknown word, or one that this Pillow cannot write.
    """
    known = ("same", *get_args(Format))
    if format not in known:
        raise UsageError(f"--format {format!r}: {nearest(format, known)}")
    if format == "avif" and not features.check("avif"):
        raise UsageError("--format avif: this Pillow is built without AVIF; install a wheel of Pillow, or take webp")
