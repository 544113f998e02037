"""One rule for how a decoded change becomes a picture. Touches nothing."""

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from . import images
from .errors import UsageError, nearest
from .images import Picture
from .request import Compose


def composed(picture: Picture, edited: NDArray[np.float32], unedited: NDArray[np.float32], how: Compose) -> Picture:
    """A picture at its own size after an edit: residual compositing, or the decoder's image.

    Args:
        edited, unedited: decoder output (C, S, S) in [0, 1].
    """
    if how == "decode":
        return images.enlarge(edited, picture)
    return images.composite(picture, edited - unedited)


def checked(compose: str) -> Compose:
    """The way of compositing that a word names.

    Raises:
        UsageError: an unknown word.
    """
    for known in get_args(Compose):
        if compose == known:
            return compose  # type: ignore[return-value]
    raise UsageError(f"--compose {compose!r}: {nearest(compose, get_args(Compose))}")
