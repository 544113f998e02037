"""How well probabilities tell labels: accuracy beside its floor, balanced accuracy, ranking, calibration. Pure numpy.

Table 1 and Table 6. Accuracy alone says little where labels are rare: always saying each label's more frequent value
is right for 0.7935 of CelebA's test labels, which is what weak models score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.schema import LabelSet

from .datasets.dataset import MISSING
from .label_columns import Floats, class_log_probabilities, predicted

BINS = 15


@dataclass(frozen=True)
class Accuracy:
    """Figures per label, each (L,), NaN where they cannot be told: no image shows the label, or one value only.

    Attributes:
        accuracy: share of shown labels whose more probable value is the true one.
        balanced: mean over the values that occur of the share that is told right; 1 / K is chance. NaN where only one
            occurs, of which always saying it would tell all.
        auroc: area under the ROC curve; of a categorical label the mean of one class against the others.
        average_precision: of value 1, whose share of the images is chance; of a categorical label the mean of classes.
        ece: expected calibration error of the more probable value over 15 equal bins (Guo et al. 2017).
        floor: accuracy of always saying the majority value.
        count: images that show the label.
    """

    accuracy: Floats
    balanced: Floats
    auroc: Floats
    average_precision: Floats
    ece: Floats
    floor: Floats
    count: NDArray[np.int64]

    def means(self) -> dict[str, float]:
        """Means over labels; NaN where no label can be told."""
        names = ("accuracy", "balanced", "auroc", "average_precision", "ece", "floor")
        return {name: mean_of(getattr(self, name)) for name in names}


def measure_accuracy(
    logits: NDArray[np.floating], values: NDArray[np.integer], majority: NDArray[np.integer], labels: LabelSet
) -> Accuracy:
    """Compare logits with true labels.

    Args:
        logits: (N, Y).
        values: (N, L), -1 where missing.
        majority: (L,), the value that the floor always says.
    """
    said = predicted(logits, labels)
    accuracy, balanced, floor = accuracies(said, values, majority)
    areas, precisions, errors = [], [], []
    for i, log_p in enumerate(class_log_probabilities(logits, labels)):
        shown = values[:, i] != MISSING
        true, chances = values[shown, i], np.exp(log_p[shown])
        sides = range(1, 2) if chances.shape[1] == 2 else range(chances.shape[1])
        areas.append(mean_of(np.array([area_under_roc(chances[:, k], true == k) for k in sides])))
        precisions.append(mean_of(np.array([average_precision(chances[:, k], true == k) for k in sides])))
        errors.append(calibration_error(chances.max(axis=1, initial=0), said[shown, i] == true))
    counts = (values != MISSING).sum(axis=0)
    return Accuracy(accuracy, balanced, np.array(areas), np.array(precisions), np.array(errors), floor, counts)


def accuracies(
    said: NDArray[np.integer], values: NDArray[np.integer], majority: NDArray[np.integer]
) -> tuple[Floats, Floats, Floats]:
    """Accuracy, balanced accuracy and floor of each label, as `Accuracy` has them.

    Args:
        said, values: (N, L), 0 or 1 or a class index; values are -1 where missing.
        majority: (L,), the value that the floor always says.
    """

    def among(rows: NDArray[np.bool_], hits: NDArray[np.bool_]) -> Floats:
        counts = rows.sum(axis=0)
        found: Floats = np.full(counts.shape, np.nan)
        np.divide((hits & rows).sum(axis=0), counts, out=found, where=counts > 0)
        return found

    shown, right = values != MISSING, said == values
    recalls = np.stack([among(values == value, right) for value in range(int(values.max(initial=0)) + 1)])
    present = (~np.isnan(recalls)).sum(axis=0)
    balanced = np.divide(np.nansum(recalls, axis=0), present, out=np.full(present.shape, np.nan), where=present > 1)
    return among(shown, right), balanced, among(shown, values == majority)


def area_under_roc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN where one side is empty."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    above = mean_rank[inverse][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(score: Floats, positive: NDArray[np.bool_]) -> float:
    """The mean over positives of the precision among all that score no less; NaN where one side is empty."""
    if not positive.any() or positive.all():
        return float("nan")
    _, inverse, counts = np.unique(-score, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, positive)
    return float(hits @ (np.cumsum(hits) / np.cumsum(counts)) / positive.sum())


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
