"""Bring a decoder's image to the size of a picture and add it. Pure functions of arrays.

Enlarging is Pillow's bicubic filter (a = -0.5, antialiased where it shrinks) as two products with small matrices of
weights, one per axis: 255 D becomes V (255 D) H^T. A few output rows depend on a few input rows only, so the products
go band by band: a fraction of the work, and no buffer as large as the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..arrays import Array
from ..images import Picture, over_white
from .canvas import blank, is_large, leave
from .pixels import Pixels

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BAND = 32
ONE_THREAD = 1 << 18
"""Multiplications of a product up to which BLAS stays on the calling thread; the workers are the parallelism here."""


@dataclass(frozen=True)
class Band:
    """Output rows `first` to `last`, the input rows they need, and the weights (rows, needed)."""

    first: int
    last: int
    needed: slice
    weights: Array


def composite(picture: Picture, difference: Array) -> Picture:
    """Residual compositing: add the difference of two decoded images to a picture at its own size.

    pixels' = clip(round(pixels + 255 * enlarge(difference))). A grey picture takes the luma of the difference and
    stays grey; a grey difference moves all channels alike. Depends on nothing but its two arguments.

    Args:
        difference: (C, S, S) float32, edited minus unedited decoder output.
    """
    return replace(picture, pixels=_added(picture.pixels, difference, picture.pixels.shape))


def enlarge(image: Array, picture: Picture) -> Picture:
    """Decode mode: the decoder's image (C, S, S) in [0, 1] at the size and in the colour space of a picture."""
    return replace(picture, pixels=_added(None, image, picture.pixels.shape), read=True)


def pixel_change(source: Picture, result: Picture) -> float:
    """Mean absolute difference of two pictures of one size, transparent parts over white, in levels of 255."""
    dimensions = max(source.pixels.ndim, result.pixels.ndim)
    total = count = 0
    rows = max(1, (1 << 20) // source.pixels[0].size)
    for top in range(0, len(source.pixels), rows):
        a, b = (_shown(picture, slice(top, top + rows), dimensions) for picture in (source, result))
        count += a.size
        # |a - b| without leaving uint8
        total += int((np.maximum(a, b) - np.minimum(a, b)).sum(dtype=np.uint32 if a.size < 1 << 24 else np.uint64))
        leave(source.pixels, result.pixels)
    return total / count


def _shown(picture: Picture, rows: slice, dimensions: int) -> Pixels:
    """Rows of a picture over white, grey ones with three channels where the other picture has them."""
    pixels = picture.pixels[rows]
    if picture.alpha is not None:
        pixels = over_white(pixels, picture.alpha[rows])
    return pixels if pixels.ndim == dimensions else np.broadcast_to(pixels[..., None], (*pixels.shape, 3))


def _added(pixels: Pixels | None, image: Array, shape: tuple[int, ...]) -> Pixels:
    """`pixels`, or black, of this shape plus 255 times an image (C, S, S), enlarged, rounded and clipped."""
    height, width = shape[:2]
    channels = 1 if len(shape) == 2 else 3
    if channels == 1 and len(image) == 3:
        image = np.tensordot(LUMA, image, axes=1)[None].astype(np.float32)
    result, large = blank(shape), is_large((width, height))
    flat = result.reshape(height, -1)
    for band, levels in _enlarged(image, width, height):
        rows = slice(band.first, band.last)
        if channels > len(image):
            levels = np.repeat(levels, channels, axis=1)
        if pixels is not None:
            levels += pixels[rows].reshape(levels.shape)
        np.rint(levels, out=levels)
        np.clip(levels, 0, 255, out=levels)
        flat[rows] = levels
        if large:
            leave(pixels, result)
    return result


def _enlarged(image: Array, width: int, height: int) -> Iterator[tuple[Band, Array]]:
    """255 times an image (C, S, S) at a size, in bands of rows (rows, width * C), channels innermost."""
    channels, rows, columns = image.shape
    # columns first, as rows of the transposed image: (S, C * S) to (width, C * S), which is (width * C, S)
    turned = (image * np.float32(255)).reshape(-1, columns).T
    wide = np.empty((width, channels * rows), np.float32)
    for band in _bands(columns, width, channels * rows):
        np.matmul(band.weights, turned[band.needed], out=wide[band.first : band.last])
    wide = np.ascontiguousarray(wide.reshape(-1, rows).T)
    for band in _bands(rows, height, width * channels):
        yield band, band.weights @ wide[band.needed]


@lru_cache(128)
def _bands(given: int, wanted: int, columns: int) -> tuple[Band, ...]:
    """How `given` rows of `columns` values become `wanted` rows; the size of a band is a function of these three."""
    weights = _bicubic(given, wanted)
    # rows are few where they are long, so that one product stays small
    height = BAND
    while height > 1 and height * columns * min(given, (height + 4) * given // wanted + 5) > ONE_THREAD:
        height //= 2
    bands = []
    for first in range(0, wanted, height):
        part = weights[first : first + height]
        used = np.flatnonzero(part.any(axis=0))
        needed = slice(int(used[0]), int(used[-1]) + 1)
        bands.append(Band(first, first + len(part), needed, np.ascontiguousarray(part[:, needed])))
    return tuple(bands)


def _bicubic(given: int, wanted: int) -> Array:
    """Weights (wanted, given) of Pillow's bicubic filter along one axis."""
    if given == wanted:
        return np.eye(given, dtype=np.float32)
    ratio = given / wanted
    stretch = max(ratio, 1.0)
    centres = (np.arange(wanted)[:, None] + 0.5) * ratio
    # Pillow takes whole pixels whose centres are within two (stretched) pixels
    first = np.maximum((centres - 2 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centres + 2 * stretch + 0.5).astype(int), given)
    position = np.arange(given)[None]
    x = np.abs((position + 0.5 - centres) / stretch)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * ((position >= first) & (position < last))
    scaled: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled
