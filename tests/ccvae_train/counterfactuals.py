"""The same made portrait with one thing changed: what an intervention should come to."""

from dataclasses import replace

import numpy as np

from ccvae_train.datasets.portraits import Factors


def with_label(factors: Factors, label: int, value: int) -> Factors:
    """One label set."""
    return replace(factors, labels=(*factors.labels[:label], value, *factors.labels[label + 1 :]))


def with_style(factors: Factors, label: int, numbers: np.ndarray) -> Factors:
    """Another look, (2, 6), of one label in both states."""
    style = factors.style.copy()
    style[label] = numbers
    return replace(factors, style=style)
