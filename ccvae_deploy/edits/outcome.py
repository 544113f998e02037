"""What label probabilities say of an edit: which side or class, and whether it is the one that was asked. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..schema import LabelSet
from .request import Asked


@dataclass(frozen=True)
class Outcome:
    """One asked label, of one output or of N: both are numbers or (N,).

    Attributes:
        reached: it is on the asked side of 0.5, or is the most probable class; a varied label: it kept its side.
        probability: what the classifier gives to the asked side or class.
    """

    reached: NDArray[np.bool_] | np.bool_
    probability: NDArray[np.floating] | np.floating


def decided(labels: LabelSet, probabilities: NDArray[np.floating]) -> Array:
    """Probabilities (N, Y) as states y (N, Y): 1 above 0.5 for a binary label, one-hot for a categorical one."""
    y = (probabilities > 0.5).astype(np.float32)
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        if label.kind == "categorical":
            y[:, columns] = np.eye(label.columns, dtype=np.float32)[probabilities[:, columns].argmax(axis=1)]
    return y


def state(labels: LabelSet, label: int, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """What probabilities (…, Y) make of a label: 0 or 1, or the index of the most probable class, (…)."""
    mine = probabilities[..., labels.columns[label]]
    return (mine[..., 0] > 0.5 if labels.labels[label].kind == "binary" else mine.argmax(-1)).astype(np.float64)


def outcome(labels: LabelSet, label: int, value: float | NDArray[np.floating], after: NDArray[np.floating]) -> Outcome:
    """What became of a label that was to have a value; `after` are label probabilities, (…, Y)."""
    now = after[..., labels.columns[label]]
    if labels.labels[label].kind == "binary":
        wanted, probability = np.asarray(value) >= 0.5, now[..., 0]
        return Outcome((probability > 0.5) == wanted, np.where(wanted, probability, 1 - probability)[()])
    chosen = np.asarray(value)[..., None] == np.arange(now.shape[-1])
    return Outcome(now.argmax(-1) == value, np.where(chosen, now, 0).sum(-1))


def outcomes(
    labels: LabelSet, asked: Sequence[Asked], before: NDArray[np.floating], after: NDArray[np.floating]
) -> dict[int, Outcome]:
    """By label, what became of it; `before` and `after` are label probabilities, (…, Y)."""
    wanted = {one.label: state(labels, one.label, before) if one.value is None else one.value for one in asked}
    return {label: outcome(labels, label, value, after) for label, value in wanted.items()}


def drift(
    labels: LabelSet, asked: Iterable[int], before: NDArray[np.floating], after: NDArray[np.floating]
) -> NDArray[np.floating] | np.floating:
    """How far the labels that were not asked have moved, 0 to 1: the mean of their total variation, which is
    |after - before| of a binary label and half the sum of it over the classes of a categorical one; 0 where all were.

    Args:
        before, after: label probabilities, (…, Y).
    """
    given = set(asked)
    left = [i for i in range(len(labels.labels)) if i not in given]
    moved = np.add.reduceat(np.abs(after - before), [columns.start for columns in labels.columns], axis=-1)
    half = np.array([1.0 if label.kind == "binary" else 0.5 for label in labels.labels], moved.dtype)
    # the order in memory decides the order of a sum, and that must not hang on how many outputs there are
    moving = np.ascontiguousarray((half * moved)[..., left])
    found: NDArray[np.floating] = moving.mean(-1) if left else moving.sum(-1)
    return found
