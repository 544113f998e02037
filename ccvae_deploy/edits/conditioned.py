"""Draws of a normal block given what the classifier says of it. Pure functions of numpy arrays; touches nothing.

A linear binary classifier sees a block z ~ N(loc, diag S^2) through u = w . z + b only. With g = S w / |S w|,
t = g . S^-1 (z - loc) is standard normal and independent of the rest of z, and u = w . loc + b + |S w| t. So the
block given s u >= threshold is exact: t from a truncated normal, the rest as it was. Regions of a categorical label
have no such form; there draws are tried until one lies inside.

All is computed in double precision, the normal's tails as logarithms.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..interventions import Block

Wide = NDArray[np.float64]
Side = int | NDArray[np.integer]

LOG_HALF = math.log(0.5)
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
PRODUCTS = 1 << 20
"""Products of latents and weights that are in memory at once."""
TAIL = 5.0
"""From here on the survival function is taken from its continued fraction."""


def log_survival(t: Wide) -> Wide:
    """log P(T > t) of a standard normal T, to about 1e-14 of its size at any t."""
    t = np.asarray(t, np.float64)
    near = np.minimum(t, TAIL)
    # above 0 the survival itself is small, below 0 it is 1 minus a small number
    upper = np.log(_survival(np.maximum(near, 0)))
    lower = np.log1p(-_survival(np.maximum(-near, 0)))
    far = np.maximum(t, TAIL)
    tail = _log_density(far) - np.log(_hazard(far))
    return np.asarray(np.where(t > TAIL, tail, np.where(t > 0, upper, lower)))


def inverse_log_survival(log_p: Wide) -> Wide:
    """The t with log P(T > t) = log_p, for log_p < 0.

    Newton's method from t = sqrt(-2 (log_p - log 1/2)), which lies above the root: log P is concave, so it comes down
    to it and never past it. Below the median the other tail is solved for.
    """
    log_p = np.minimum(np.asarray(log_p, np.float64), -np.finfo(np.float64).tiny)
    below = log_p > LOG_HALF
    tail = np.where(below, np.log(-np.expm1(np.where(below, log_p, LOG_HALF))), log_p)
    t = np.sqrt(2 * np.maximum(LOG_HALF - tail, 0))
    active = np.ones(t.shape, bool)
    for _ in range(30):
        survival = log_survival(t)
        step = (survival - tail) / np.exp(_log_density(t) - survival)
        # an entry that has come to rest stays there, so that none depends on what is solved beside it
        t = np.where(active, np.maximum(t + step, 0), t)
        active &= np.abs(step) > 1e-14 * (1 + t)
        if not active.any():
            break
    return np.asarray(np.where(below, -t, t))


def truncated_normal(noise: Wide, bound: Wide) -> Wide:
    """A standard normal draw given that it is at least `bound`, by inverse CDF.

    P(T > t) = P(T > noise) P(T > bound): a monotone function of the noise that is the noise itself where the bound is
    far below it.
    """
    t: Wide = np.maximum(inverse_log_survival(log_survival(noise) + log_survival(bound)), bound)
    return t


def truncated_mean(bound: Wide) -> Wide:
    """E[T | T > bound] = density(bound) / P(T > bound)."""
    near = np.minimum(np.asarray(bound, np.float64), TAIL)
    ratio = np.exp(_log_density(near) - log_survival(near))
    return np.asarray(np.where(bound > TAIL, _hazard(np.maximum(bound, TAIL)), ratio))


def draw_beyond(block: Block, weight: Array, bias: float, value: Side, confidence: float, noise: Array) -> Array:
    """A draw of N(loc, diag S^2) given that the binary classifier is at least `confidence` sure of `value`.

    z = loc + S (e + g (t - g . e)), e the noise and t its component g . e brought beyond the boundary
    s u = logit(confidence), s = 2 value - 1. With confidence 0.5 that is the decision boundary.

    Args:
        block: loc and scale, (..., d), against noise (..., d).
        weight: (d,).
        value: 0 or 1, or one for each block, (...).
    """
    along, bound = _axis(block, weight, bias, value, confidence)
    e = noise.astype(np.float64)
    component = (along * e).sum(axis=-1)
    moved = truncated_normal(component, bound) - component
    return _placed(block, e + along * moved[..., None])


def mean_beyond(block: Block, weight: Array, bias: float, value: Side, confidence: float) -> Array:
    """The mean of what `draw_beyond` draws: loc + S g E[T | T > bound], (..., d)."""
    along, bound = _axis(block, weight, bias, value, confidence)
    return _placed(block, along * truncated_mean(bound)[..., None])


def inside(z: Array, weight: Array, bias: Array, value: int, confidence: float | None) -> NDArray[np.bool_]:
    """Whether a categorical classifier decides for class `value` at z (N, d), or is `confidence` sure of it if given.

    Args:
        weight: (d, C). bias: (C,).
    """
    rows = max(1, PRODUCTS // weight.size)
    logits = np.concatenate(
        [(z[at : at + rows].astype(np.float64)[..., None] * weight).sum(axis=-2) for at in range(0, len(z), rows)]
    )
    logits += bias
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    if confidence is None:
        return np.asarray(odds.argmax(axis=-1) == value)
    return np.asarray(odds[..., value] >= confidence * odds.sum(axis=-1))


def _axis(block: Block, weight: Array, bias: float, value: Side, confidence: float) -> tuple[Wide, Wide]:
    """s g, along which the classifier's certainty grows, and the least component that is sure enough."""
    # sums of products, not matrix products: those may round differently in batches of another size
    sign = 2 * np.asarray(value) - 1
    scaled = block.scale.astype(np.float64) * weight
    length = np.maximum(np.sqrt(np.square(scaled).sum(axis=-1)), np.finfo(np.float64).tiny)
    at_loc = (block.loc.astype(np.float64) * weight).sum(axis=-1) + bias
    bound = (math.log(confidence / (1 - confidence)) - sign * at_loc) / length
    return sign[..., None] * scaled / length[..., None], bound


def _placed(block: Block, standard: Wide) -> Array:
    return (block.loc + block.scale * standard).astype(np.float32)


def _survival(t: Wide) -> Wide:
    return np.asarray(np.frompyfunc(math.erfc, 1, 1)(t / math.sqrt(2)), np.float64) / 2


def _hazard(t: Wide) -> Wide:
    """density(t) / P(T > t) for t >= TAIL, a continued fraction."""
    fraction = np.zeros_like(t)
    for k in range(60, 0, -1):
        fraction = k / (t + fraction)
    return np.asarray(t + fraction)


def _log_density(t: Wide) -> Wide:
    density: Wide = -0.5 * np.square(t) - LOG_ROOT_TWO_PI
    return density
