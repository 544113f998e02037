"""Which labels training may see: the supervision rate and p(y). Pure numpy."""

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError, UsageError
from ccvae_deploy.schema import LabelSet

from .datasets.dataset import MISSING


def supervised(labels: NDArray[np.int8], rate: float, seed: int) -> NDArray[np.int8]:
    """The labels with those outside a random subset hidden.

    A share `rate` of the images that have any label keeps theirs; for one seed the subset of a lower rate lies
    inside that of a higher one.

    Args:
        labels: (N, L), -1 where missing.
        rate: f, in (0, 1].

    Raises:
        UsageError: no image would keep its labels.
    """
    labelled = np.flatnonzero((labels != MISSING).any(axis=1))
    keep = round(rate * len(labelled))
    if keep == 0:
        raise UsageError(
            f"--supervision {rate:g} of {len(labelled):,} labelled images shows none of them; "
            f"give at least {1 / max(len(labelled), 1):.2g}"
        )
    order = np.random.default_rng(seed).permutation(labelled)
    shown = np.full_like(labels, MISSING)
    shown[order[:keep]] = labels[order[:keep]]
    return shown


def label_prior(labels: NDArray[np.int8], names: LabelSet) -> NDArray[np.float64]:
    """p(y) in columns of y, (Y,): the mean of the shown labels, kept half an image away from 0 and 1; for classes
    their shares with half an image added to each.

    Raises:
        DataError: a label is shown for no image.
    """
    columns: list[NDArray[np.float64]] = []
    for label, values in zip(names.labels, labels.T, strict=True):
        counts = np.bincount(values[values != MISSING], minlength=len(label.classes)).astype(float)
        total = counts.sum()
        if not total:
            raise DataError(f"label {label.name} is shown for no training image; raise --supervision or leave it out")
        if label.kind == "binary":
            columns.append(np.clip(counts[1:] / total, 0.5 / total, 1 - 0.5 / total))
        else:
            columns.append((counts + 0.5) / (counts + 0.5).sum())
    return np.concatenate(columns)


def unseen_values(labels: NDArray[np.int8], shown: NDArray[np.int8], names: LabelSet) -> list[str]:
    """Values that no shown label has, as `label=value`: what cannot be learned.

    Args:
        labels, shown: (N, L) before and after `supervised`.

    Raises:
        DataError: a label has one value in all training images.
    """
    unseen = []
    for column, label in enumerate(names.labels):
        present, seen = (set(np.unique(part[:, column])) - {MISSING} for part in (labels, shown))
        if len(present) == 1:
            value = label.classes[present.pop()]
            raise DataError(f"label {label.name} is {value} in every training image; leave it out with --labels")
        unseen += [f"{label.name}={name}" for value, name in enumerate(label.classes) if value not in seen]
    return unseen
