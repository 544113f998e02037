"""From a decoded change to a picture and to the bytes of a file, in one way for all commands. Touches nothing."""

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from . import compositing, images
from .editor import Rendered
from .errors import UsageError, nearest
from .images import Format, Picture
from .request import Compose
from .schema import ImageSpec

Array = NDArray[np.float32]


def rendered(picture: Picture, edited: Array, unedited: Array, how: Compose) -> Picture:
    """A picture at its own size after an edit: residual compositing, or the decoder's image.

    Args:
        edited, unedited: decoder output (C, S, S) in [0, 1].
    """
    if how == "decode":
        return compositing.enlarge(edited, picture)
    return compositing.composite(picture, edited - unedited)


def as_file(picture: Picture, result: Picture, format: Format, spec: ImageSpec) -> Rendered:
    """A result as a file, and what is seen when it is looked at again: lossy files are decoded from their bytes.

    Raises:
        ImageError: the format does not take a picture of this size.
    """
    data = images.encode(result, format)
    written = result if format == "png" else images.decode(data, max_pixels=images.MOST_PIXELS)
    return Rendered(data, images.network_input(written, spec), compositing.pixel_change(picture, written))


def file_ending(format: Format) -> str:
    """How names of files of a format end."""
    return "jpg" if format == "jpeg" else format


def checked(compose: str) -> Compose:
    """The way of compositing that a word names.

    Raises:
        UsageError: an unknown word.
    """
    for known in get_args(Compose):
        if compose == known:
            return compose  # type: ignore[return-value]
    raise UsageError(f"--compose {compose!r}: {nearest(compose, get_args(Compose))}")
