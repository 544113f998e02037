"""Blocks drawn from N(0, I) given that the classifier is sure enough of a value (appendix A of the paper).

What stands in for a conditional prior in a model that has none. Pure functions of numpy arrays.
"""

from collections.abc import Callable

import numpy as np

from .. import interventions
from ..arrays import Array
from ..graphs.head import Head
from ..interventions import Block
from . import conditioned
from .closest_class import closest_class

TRIES, ROUND = 10_000, 1_000
"""How many further draws a categorical label tries at most, and how many at once."""


def accepted(
    head: Head, value: int, confidence: float, first: Array, further: Callable[[int, int], np.random.Generator]
) -> Array:
    """Draws of N(0, I), (N, K, d), given that the classifier is `confidence` sure of the value.

    Exact for a binary label. A categorical one tries `TRIES` draws; where none is sure enough, the first is moved into
    the region by the smallest step.

    Args:
        first: standard normal, (N, K, d).
        further: a source of more noise for one row and sample.
    """
    unit = Block(np.zeros_like(first), np.ones_like(first))
    if head.binary:
        return conditioned.draw_beyond(unit, head.weight[:, 0], float(head.bias[0]), value, confidence, first)
    drawn = first.copy()
    for row, k in np.ndindex(first.shape[:2]):
        own = Block(unit.loc[row, k], unit.scale[row, k])
        found = first_inside(own, head, value, confidence, first[row, k], further(row, k))
        if found is None:
            near = first[row, k][None]
            found = closest_class(near, head.weight, head.bias, np.ones_like(near), value, confidence)[0]
        drawn[row, k] = found
    return drawn


def accepted_mean(head: Head, value: int, confidence: float, label: int) -> Array:
    """The mean of what `accepted` draws, (d,): exact for a binary label.

    For a categorical one that of the sure ones among `TRIES` fixed draws, or the sure point nearest to 0.

    Args:
        label: keys the fixed draws.
    """
    zero = np.zeros((1, len(head.weight)), np.float32)
    unit = Block(zero, np.ones_like(zero))
    if head.binary:
        mean: Array = conditioned.mean_beyond(unit, head.weight[:, 0], float(head.bias[0]), value, confidence)[0]
        return mean
    fixed = np.random.Generator(np.random.Philox(key=label)).standard_normal((TRIES, zero.shape[1]), np.float32)
    sure = fixed[conditioned.inside(fixed, head.weight, head.bias, value, confidence)]
    middle = sure.mean(axis=0, keepdims=True) if len(sure) else zero
    inside: Array = closest_class(middle, head.weight, head.bias, unit.scale, value, confidence)[0]
    return inside


def first_inside(
    block: Block, head: Head, value: int, confidence: float | None, noise: Array, further: np.random.Generator
) -> Array | None:
    """The first draw of a block (d,) that the classifier gives to class `value`, or None after `TRIES` further ones.

    The first is loc + scale * noise, the others come from `further`. With a confidence it must be that sure.
    """
    tries = noise[None]
    for _ in range(TRIES // ROUND + 1):
        z = interventions.draw(block, tries)
        hits = conditioned.inside(z, head.weight, head.bias, value, confidence)
        if hits.any():
            first: Array = z[hits.argmax()]
            return first
        tries = further.standard_normal((ROUND, len(noise)), np.float32)
    return None
