"""From a decoded change to a picture and to the bytes of a file, in one way for all commands. Touches nothing."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from . import compositing, images
from .errors import UsageError, nearest
from .images import Format, Picture
from .request import Compose
from .schema import ImageSpec

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rendered:
    """One output as a file, and what the receipt needs of it.

    Attributes:
        data: the encoded file.
        seen: what the encoder sees of the written pixels, (C, S, S).
        pixel_change: mean absolute difference to the source at its own size, in levels of 255.
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
    written = result if format == "png" else images.decode(data, max_pixels=images.MOST_PIXELS)
    return Rendered(data, images.network_input(written, spec), compositing.pixel_change(picture, written))


def output_format(asked: str, kept: Format) -> Format:
    """The format of the outputs of a source whose own counts where `same` was asked for."""
    return kept if asked == "same" else asked  # type: ignore[return-value]


def refuse_format(format: str) -> None:
    """Refuse a format that outputs cannot have.

    Raises:
        UsageError: an unknown word.
    """
    known = ("same", *get_args(Format))
    if format not in known:
        raise UsageError(f"--format {format!r}: {nearest(format, known)}")
