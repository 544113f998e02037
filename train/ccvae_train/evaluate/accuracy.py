"""How well probabilities tell labels: accuracy beside its floor, balanced accuracy, AUROC, calibration. Pure numpy.

Table 1 and Table 6. Accuracy alone says little where labels are rare: always saying each label's more frequent value
is right for 0.7935 of CelebA's test labels, which is what weak models score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.schema import LabelSet

from ..datasets.dataset import MISSING
from .label_columns import Floats, class_log_probabilities

BINS = 15


@dataclass(frozen=True)
class Accuracy:
    """Figures per label, each (L,), NaN where they cannot be told: no image shows the label, or one value only.

    Attributes:
        accuracy: share of shown labels whose more probable value is the true one.
        balanced: mean over the values that occur of the share that is told right; 1 / K is chance. NaN where only one
            occurs, of which always saying it would tell all.
        auroc: area under the ROC curve; of a categorical label the mean of one class against the others.
        ece: expected calibration error of the more probable value over 15 equal bins (Guo et al. 2017).
        floor: accuracy of always saying the majority value.
        count: images that show the label.
    """

    accuracy: Floats
    balanced: Floats
    auroc: Floats
    ece: Floats
    floor: Floats
    count: NDArray[np.int64]

    def means(self) -> dict[str, float]:
        """Means over labels; NaN where no label can be told."""
        return {name: mean_of(getattr(self, name)) for name in ("accuracy", "balanced", "auroc", "ece", "floor")}


def measure_accuracy(
    logits: NDArray[np.floating], values: NDArray[np.integer], majority: NDArray[np.integer], labels: LabelSet
) -> Accuracy:
    """Compare logits with true labels.

    Args:
        logits: (N, Y).
        values: (N, L), -1 where missing.
        majority: (L,), the value that the floor always says.
    """
    rows = []
    for i, log_p in enumerate(class_log_probabilities(logits, labels)):
        shown = values[:, i] != MISSING
        true, chances = values[shown, i].astype(np.intp), np.exp(log_p[shown])
        rows.append((*_of_label(true, chances), share(true == majority[i]), int(shown.sum())))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Accuracy(*columns)


def _of_label(true: NDArray[np.intp], chances: Floats) -> tuple[float, float, float, float]:
    """Accuracy, balanced accuracy, AUROC and calibration error of one label."""
    said = chances.argmax(axis=1) if len(chances) else true
    right = said == true
    present = np.unique(true)
    recalls = [share(right[true == value]) for value in present]
    balanced = mean_of(np.array(recalls)) if len(recalls) > 1 else float("nan")
    sides = range(1, 2) if chances.shape[1] == 2 else range(chances.shape[1])
    areas = np.array([area_under_roc(chances[:, k], true == k) for k in sides])
    return share(right), balanced, mean_of(areas), calibration_error(chances.max(axis=1, initial=0), right)


def area_under_roc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN where one side is empty."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    above = mean_rank[inverse][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Mean over images of |accuracy - confidence| of their bin; NaN without images."""
    if not len(right):
        return float("nan")
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    gaps = np.bincount(bins, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def share(hits: NDArray[np.bool_]) -> float:
    """The share that is true; NaN of nothing."""
    return float(hits.mean()) if hits.size else float("nan")


def mean_of(values: Floats) -> float:
    """The mean of what is not NaN; NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
