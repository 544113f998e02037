"""What label probabilities say of an edit: which side or class, and whether it is the one that was asked. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .request import Asked
from .schema import LabelSet

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """One asked label of one output.

    Attributes:
        reached: it is on the asked side of 0.5, or is the most probable class; a varied label: it kept its side.
        probability: what the classifier gives to the asked side or class.
    """

    reached: bool
    probability: float


def decided(labels: LabelSet, probabilities: NDArray[np.floating]) -> Array:
    """Probabilities (N, Y) as states y (N, Y): 1 above 0.5 for a binary label, one-hot for a categorical one."""
    y = (probabilities > 0.5).astype(np.float32)
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        if label.kind == "categorical":
            y[:, columns] = np.eye(label.columns, dtype=np.float32)[probabilities[:, columns].argmax(axis=1)]
    return y


def outcomes(
    labels: LabelSet, asked: Sequence[Asked], before: NDArray[np.floating], after: NDArray[np.floating]
) -> dict[int, Outcome]:
    """By label, what became of it; `before` and `after` are one image's label probabilities, (Y,)."""
    found = {}
    for one in asked:
        was, now = (probabilities[labels.columns[one.label]] for probabilities in (before, after))
        if labels.labels[one.label].kind == "binary":
            wanted = was[0] > 0.5 if one.value is None else one.value >= 0.5
            found[one.label] = Outcome(bool((now[0] > 0.5) == wanted), float(now[0] if wanted else 1 - now[0]))
        else:
            chosen = int(was.argmax() if one.value is None else one.value)
            found[one.label] = Outcome(int(now.argmax()) == chosen, float(now[chosen]))
    return found
