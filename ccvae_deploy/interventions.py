"""The paper's operations on latents, as pure functions of numpy arrays. Touches nothing.

An intervention replaces the block z_i of one or more labels and leaves every other latent as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .arrays import Array

SCALE_FLOOR = np.float32(1e-3)


@dataclass(frozen=True)
class Block:
    """p(z_i|y_i) of one label as a diagonal normal: loc and scale, each (..., d)."""

    loc: Array
    scale: Array


def position(value: float, strength: float) -> float:
    """Where between the two modes of a binary label an edit aims: 0 is the mode of y = 0, 1 that of y = 1.

    p = (1 - t)(1 - v) + t v, so t = 1 aims at the value v itself, t = 0 at its opposite, t > 1 beyond it.
    """
    return (1 - strength) * (1 - value) + strength * value


def between(absent: Block, present: Block, p: float) -> Block:
    """The block at position p between two modes, or beyond them: loc is on their line, scale at most at its end.

    loc = (1 - p) loc_0 + p loc_1; scale likewise with p clipped to [0, 1], where it has a meaning, not below 1e-3.
    """
    loc = absent.loc * np.float32(1 - p) + present.loc * np.float32(p)
    share = min(max(p, 0.0), 1.0)
    scale = absent.scale * np.float32(1 - share) + present.scale * np.float32(share)
    return Block(loc, np.maximum(scale, SCALE_FLOOR))


def draw(block: Block, noise: Array) -> Array:
    """z_i = loc + scale * noise, a draw of p(z_i|y_i)."""
    drawn: Array = block.loc + block.scale * noise
    return drawn


def closest(z_i: Array, weight: Array, bias: float, scale: Array, value: float, confidence: float) -> Array:
    """The smallest move of a binary label's block after which q(y_i = value|z_i) is at least `confidence`.

    Minimise |S^-1 (z' - z)|^2 subject to s (w . z' + b) >= logit(confidence), with s = 2 value - 1 and S the
    conditional prior's scale: z' = z + S^2 w s max(0, gap) / (w . S^2 w), gap = logit(confidence) - s (w . z + b)
    (appendix A's intervention, in closed form). A soft value v is met exactly instead, q(y_i = 1|z'_i) = v:
    s = 1, and gap = logit(v) - (w . z + b) of either sign.

    Args:
        z_i: (N, d). weight: (d,). scale: (d,) or (N, d).
    """
    soft = value not in (0, 1)
    sign = np.float32(1 if soft else 2 * value - 1)
    sure = value if soft else confidence
    # not `@`: a product of matrices may round a row by what stands beside it
    gap = np.float32(np.log(sure / (1 - sure))) - sign * ((z_i * weight).sum(axis=-1) + np.float32(bias))
    if not soft:
        gap = np.maximum(gap, np.float32(0))
    direction = np.square(scale) * weight
    length = np.maximum((direction * weight).sum(axis=-1), np.finfo(np.float32).tiny)
    moved: Array = z_i + direction * (sign * gap / length)[..., None]
    return moved


def intervene(z: Array, blocks: Mapping[int, Array], slices: tuple[slice, ...]) -> Array:
    """z with the blocks of some labels replaced; every other latent keeps its bits.

    Args:
        z: (..., Z).
        blocks: label position to its new block, (..., d).
        slices: per label, its columns of z.
    """
    edited = z.copy()
    for label, block in blocks.items():
        edited[..., slices[label]] = block
    return edited
