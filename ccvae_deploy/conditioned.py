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

from .interventions import Array, Block

Wide = NDArray[np.float64]

LOG_HALF = math.log(0.5)
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
TAIL = 5.0
"""From here on the survival function is taken from its continued fraction."""

_erfc = np.frompyfunc(math.erfc, 1, 1)


def log_survival(t: Wide) -> Wide:
    """log P(T > t) of a standard normal T, to about 1e-14 of its size at any t."""
    t = np.asarray(t, np.float64)
    near = np.minimum(t, TAIL)
    # above 0 the survival itself is small, below 0 it is 1 minus a small number
    upper = np.log(0.5 * _erfc(np.maximum(near, 0) / math.sqrt(2)).astype(np.float64))
    lower = np.log1p(-0.5 * _erfc(np.maximum(-near, 0) / math.sqrt(2)).astype(np.float64))
    far = np.maximum(t, TAIL)
    fraction = np.zeros_like(far)
    for k in range(60, 0, -1):
        fraction = k / (far + fraction)
    tail = -0.5 * np.square(far) - LOG_ROOT_TWO_PI - np.log(far + fraction)
    return np.where(t > TAIL, tail, np.where(t > 0, upper, lower))


def inverse_log_survival(log_p: Wide) -> Wide:
    """The t with log P(T > t) = log_p, for log_p < 0.

    Newton's method from t = sqrt(-2 (log_p - log 1/2)), which lies above the root: log P is concave, so it comes down
    to it and never past it. Below the median the other tail is solved for.
    """
    log_p = np.minimum(np.asarray(log_p, np.float64), -np.finfo(np.float64).tiny)
    below = log_p > LOG_HALF
    tail = np.where(below, np.log(-np.expm1(np.where(below, log_p, LOG_HALF))), log_p)
    t = np.sqrt(2 * np.maximum(LOG_HALF - tail, 0))
    for _ in range(30):
        survival = log_survival(t)
        step = (survival - tail) / np.exp(_log_density(t) - survival)
        t = np.maximum(t + step, 0)
        if (np.abs(step) <= 1e-14 * (1 + t)).all():
            break
    return np.where(below, -t, t)


def truncated_normal(noise: Wide, bound: Wide) -> Wide:
    """A standard normal draw given that it is at least `bound`, by inverse CDF.

    P(T > t) = P(T > noise) P(T > bound): a monotone function of the noise that is the noise itself where the bound is
    far below it.
    """
    t = inverse_log_survival(log_survival(noise) + log_survival(bound))
    return np.maximum(t, bound)


def truncated_mean(bound: Wide) -> Wide:
    """E[T | T > bound] = density(bound) / P(T > bound)."""
    mean: Wide = np.exp(_log_density(np.asarray(bound, np.float64)) - log_survival(bound))
    return mean


def draw_beyond(block: Block, weight: Array, bias: float, value: int, confidence: float, noise: Array) -> Array:
    """A draw of N(loc, diag S^2) given that the binary classifier is at least `confidence` sure of `value`.

    z = loc + S (e + g (t - g . e)), e the noise and t its component g . e brought beyond the boundary
    s u = logit(confidence), s = 2 value - 1. With confidence 0.5 that is the decision boundary.

    Args:
        block: loc and scale, (..., d), against noise (..., d).
        weight: (d,).
    """
    along, bound = _axis(block, weight, bias, value, confidence)
    e = noise.astype(np.float64)
    component = (along * e).sum(axis=-1)
    moved = truncated_normal(component, bound) - component
    return _placed(block, e + along * moved[..., None])


def mean_beyond(block: Block, weight: Array, bias: float, value: int, confidence: float) -> Array:
    """The mean of what `draw_beyond` draws: loc + S g E[T | T > bound], (..., d)."""
    along, bound = _axis(block, weight, bias, value, confidence)
    return _placed(block, along * truncated_mean(bound)[..., None])


def inside(z: NDArray[np.floating], weight: Array, bias: Array, value: int, confidence: float | None) -> NDArray[np.bool_]:
    """Whether a categorical classifier gives class `value` to z (..., d), with at least `confidence` unless None.

    Args:
        weight: (d, C). bias: (C,).
    """
    logits = z.astype(np.float64) @ weight + bias
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    if confidence is None:
        chosen: NDArray[np.bool_] = odds.argmax(axis=-1) == value
        return chosen
    sure: NDArray[np.bool_] = odds[..., value] >= confidence * odds.sum(axis=-1)
    return sure


def _axis(block: Block, weight: Array, bias: float, value: int, confidence: float) -> tuple[Wide, Wide]:
    """s g, along which the classifier's certainty grows, and the least component that is sure enough."""
    sign = 2 * value - 1
    scaled = block.scale.astype(np.float64) * weight
    length = np.maximum(np.linalg.norm(scaled, axis=-1), np.finfo(np.float64).tiny)
    at_loc = block.loc.astype(np.float64) @ weight.astype(np.float64) + bias
    bound = (math.log(confidence / (1 - confidence)) - sign * at_loc) / length
    return sign * scaled / length[..., None], bound


def _placed(block: Block, standard: Wide) -> Array:
    return (block.loc + block.scale * standard).astype(np.float32)


def _log_density(t: Wide) -> Wide:
    density: Wide = -0.5 * np.square(t) - LOG_ROOT_TWO_PI
    return density
