"""Means over images with intervals that say how sure they are, many at once. Pure functions of arrays.

Images are resampled with replacement. One test alone has the percentile interval of its resampled means. All tests of
an audit together have joint intervals by the bootstrap of the largest deviation (single-step max-t):

    T_b = max over tests j of |m_bj - m_j| / s_j        m_j +- t(q) s_j,  q the 95th percentile of T_b

so that, where no label moves anything, the chance that any joint interval excludes zero is about 5 %. As Bonferroni's,
but without paying for tests that go together. t(q) is the value of Student's t that is exceeded as rarely as q is by a
normal variable: with few images s_j itself is unsure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]
Z = TypeVar("Z", float, Wide)

RESAMPLES = 2000
LEVEL = 0.95
FEWEST = 20
"""Images below which no interval is to be believed."""
WEIGHTS = 4_000_000
"""Numbers of resampled counts that are in memory at once."""


@dataclass(frozen=True)
class Resampled:
    """Means of columns over images, and over resamples of them.

    Attributes:
        mean: (M,); NaN where there is no image.
        error: standard error of the mean, (M,); 0 for less than two images.
        freedom: degrees of freedom of `error`, at least 1, (M,).
        offsets: mean of each resample less `mean`, (B, M); beside a mean of 1 a float32 would round them away.
    """

    mean: Wide
    error: Wide
    freedom: Wide
    offsets: NDArray[np.float32]

    def interval(self) -> tuple[Wide, Wide]:
        """The percentile interval of each column alone, low and high (M,)."""
        low, high = np.quantile(self.offsets, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return self.mean + low, self.mean + high

    def deviations(self, columns: slice) -> Wide:
        """The largest deviation |m_bj - m_j| / s_j of each resample over some columns, (B,); 0 where none varies."""
        varying = self.error[columns] > 0
        if not varying.any():
            return np.zeros(len(self.offsets))
        return np.asarray(np.abs(self.offsets[:, columns][:, varying] / self.error[columns][varying]).max(axis=1))


def resample(values: NDArray[np.floating], rows: int, where: NDArray[np.intp], seed: int) -> Resampled:
    """Resample images.

    Args:
        values: (n, M), of the images at `where`.
        rows: number of all images; the same images are drawn for the same `rows` and `seed`, whatever the values are,
            so that resamples of several calls go together.
        where: (n,) places among all images.
    """
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0) if len(wide) else np.full(wide.shape[1], np.nan)
    error = wide.std(axis=0, ddof=1) / np.sqrt(len(wide)) if len(wide) > 1 else np.zeros(wide.shape[1])
    # rounding of equal values is no spread
    error[error <= 1e-12 * np.abs(mean)] = 0
    offsets = np.zeros((RESAMPLES, wide.shape[1]), np.float32)
    at = 0
    for counts in _counts(rows, seed):
        mine = counts[:, where]
        # a resample without any of these images says nothing; it keeps the mean
        total = np.maximum(mine.sum(axis=1, keepdims=True), 1)
        offsets[at : at + len(counts)] = mine @ (wide - mean) / total
        at += len(counts)
    return Resampled(mean, error, np.full(len(mean), max(len(wide) - 1.0, 1.0)), offsets)


def halves(first: Resampled, second: Resampled) -> Resampled:
    """Half the sum of the means of two groups of images that were resampled together; freedom after Welch."""
    squares = np.square(first.error), np.square(second.error)
    weight = np.square(squares[0]) / first.freedom + np.square(squares[1]) / second.freedom
    freedom = np.divide(np.square(squares[0] + squares[1]), weight, out=np.ones_like(weight), where=weight > 0)
    return Resampled(
        (first.mean + second.mean) / 2,
        np.sqrt(squares[0] + squares[1]) / 2,
        np.maximum(freedom, 1),
        (first.offsets + second.offsets) / np.float32(2),
    )


def critical(largest: Wide) -> float:
    """q of the largest deviations (B,): the 95th percentile."""
    return float(np.quantile(largest, LEVEL, method="higher"))


def student(z: Z, freedom: float) -> Z:
    """t(z), by the expansion of Cornish and Fisher (Abramowitz and Stegun 26.7.5)."""
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def adjusted(mean: float, error: float, freedom: float, largest: Wide) -> float:
    """The p-value of |m_j| / s_j among the largest deviations of all tests, never 0."""
    if error == 0:
        return 1.0 if mean == 0 else 1 / (len(largest) + 1)
    beyond = int((student(largest, freedom) >= abs(mean) / error).sum())
    return (1 + beyond) / (len(largest) + 1)


def _counts(rows: int, seed: int) -> Iterator[Wide]:
    """How often each image is in each resample, some resamples at a time, (b, rows)."""
    random = np.random.Generator(np.random.Philox(key=seed))
    step = max(1, WEIGHTS // max(rows, 1))
    for first in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - first)
        drawn = random.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
