"""Labels as numbers, one-hot columns and log-probabilities, for binary and categorical labels alike. Pure numpy.

A binary label has one column of logits (that of 1), a categorical one a column per class (`LabelSet.columns`).
"""

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.schema import LabelSet

from .datasets.dataset import MISSING

Floats = NDArray[np.float64]
Values = NDArray[np.int64]


def class_log_probabilities(logits: NDArray[np.floating], labels: LabelSet) -> list[Floats]:
    """Per label log p(y_i = k), (N, K): K is 2 for a binary label."""
    found: list[Floats] = []
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        block = logits[:, columns].astype(np.float64)
        if label.kind == "binary":
            block = np.concatenate([np.zeros_like(block), block], axis=1)
        top = block.max(axis=1, keepdims=True)
        found.append(block - top - np.log(np.exp(block - top).sum(axis=1, keepdims=True)))
    return found


def log_probability(logits: NDArray[np.floating], values: NDArray[np.integer], labels: LabelSet) -> Floats:
    """log p(y_i = values_i), (N, L); NaN where the value is missing."""
    found = np.full(values.shape, np.nan)
    for i, log_p in enumerate(class_log_probabilities(logits, labels)):
        shown = values[:, i] != MISSING
        found[shown, i] = log_p[shown, values[shown, i].astype(np.intp)]
    return found


def predicted(logits: NDArray[np.floating], labels: LabelSet) -> Values:
    """The more probable value of every label, (N, L); 0 where a binary label stands at one half."""
    best = [log_p.argmax(axis=1) for log_p in class_log_probabilities(logits, labels)]
    return np.stack(best, axis=1).astype(np.int64)


def one_hot(values: NDArray[np.integer], labels: LabelSet) -> NDArray[np.float32]:
    """Values (N, L) as y (N, Y): 0 or 1 for a binary label, one-hot for a categorical one; missing is all 0."""
    y = np.zeros((len(values), labels.width), np.float32)
    for i, (label, columns) in enumerate(zip(labels.labels, labels.columns, strict=True)):
        if label.kind == "binary":
            y[:, columns.start] = values[:, i] == 1
        else:
            shown = np.flatnonzero(values[:, i] != MISSING)
            y[shown, columns.start + values[shown, i].astype(np.intp)] = 1
    return y


def uniform_values(count: int, labels: LabelSet, rng: np.random.Generator) -> Values:
    """Every label drawn on its own, each of its values as likely, (count, L)."""
    return np.stack([rng.integers(0, len(label.classes), count) for label in labels.labels], axis=1)


def prior_values(count: int, labels: LabelSet, prior: NDArray[np.floating], rng: np.random.Generator) -> Values:
    """Every label drawn on its own from p(y), (count, L).

    Args:
        prior: (Y,), p(y_i = 1) of a binary label, the classes' probabilities of a categorical one.
    """
    drawn = [rng.choice(len(chances), size=count, p=chances) for chances in prior_chances(labels, prior)]
    return np.stack(drawn, axis=1).astype(np.int64)


def prior_chances(labels: LabelSet, prior: NDArray[np.floating]) -> list[Floats]:
    """Per label p(y_i = k), (K,), from p(y) by column, (Y,)."""
    found: list[Floats] = []
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        block = np.asarray(prior[columns], np.float64)
        found.append(np.array([1 - block[0], block[0]]) if label.kind == "binary" else block / block.sum())
    return found


def other_value(values: NDArray[np.integer], label: int, labels: LabelSet, rng: np.random.Generator) -> Values:
    """Another value of one label than it has, (N,): the opposite, or one of the other classes, each as likely."""
    count = len(labels.labels[label].classes)
    return (values[:, label].astype(np.int64) + rng.integers(1, count, len(values))) % count


def majority(values: NDArray[np.integer], labels: LabelSet) -> Values:
    """The most frequent shown value of every label, (L,)."""
    return np.array(
        [
            np.bincount(column[column != MISSING].astype(np.intp), minlength=len(label.classes)).argmax()
            for column, label in zip(values.T, labels.labels, strict=True)
        ]
    )
