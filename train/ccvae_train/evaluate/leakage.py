"""What z_s still says of the labels: a linear probe from residual latents to each label, beside one from its own block.

The probe is logistic regression on posterior means, fitted on one half of the images and scored on the other by
balanced accuracy; 1 / K is chance. A z_s free of label information scores chance, whatever the classifier scores.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from ccvae_deploy.arrays import Array

from ..accuracy import mean_of
from ..datasets.dataset import MISSING
from .bench import Bench
from .finding import Finding, Skipped, by_label

NAME = "leakage"
PENALTY, STEPS, FEWEST = 1e-2, 60, 20


def probe(latents: Array, values: NDArray[np.integer], classes: int) -> float:
    """Balanced accuracy of a linear probe on the second half of what is given; NaN where it cannot be fitted.

    Args:
        latents: (N, d). values: (N,), -1 where missing.
    """
    shown = np.flatnonzero(values != MISSING)
    half = len(shown) // 2
    train, test = shown[:half], shown[half:]
    if half < FEWEST or min(len(np.unique(values[part])) for part in (train, test)) < 2 or not latents.shape[1]:
        return float("nan")
    mean, spread = latents[train].mean(axis=0), latents[train].std(axis=0) + 1e-6
    x, x_test = (torch.from_numpy((latents[rows] - mean) / spread).double() for rows in (train, test))
    y = torch.from_numpy(values[train].astype(np.int64))
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    # rare values count as much as frequent ones, as they do in the score
    counts = torch.bincount(y, minlength=classes).double()
    balance = torch.where(counts > 0, len(y) / counts.clamp_min(1), 0)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = cross_entropy(x @ weight + bias, y, weight=balance) + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    said = (x_test @ weight + bias).argmax(1).detach().numpy()
    return mean_of(np.array([(said == value)[values[test] == value].mean() for value in np.unique(values[test])]))


def run(bench: Bench) -> Finding:
    """Every image of the bench."""
    subject = bench.split()
    if not subject.layout.residual:
        raise Skipped("the model has no residual latents")
    loc, _ = subject.encode(bench.images)
    rows = [
        (
            probe(loc[:, subject.layout.z_c :], bench.values[:, i], len(label.classes)),
            probe(loc[:, subject.layout.slices[i]], bench.values[:, i], len(label.classes)),
            1 / len(label.classes),
        )
        for i, label in enumerate(bench.labels.labels)
    ]
    residual, own, chance = (list(column) for column in zip(*rows, strict=True))
    return Finding(
        figures={"labels from z_s": mean_of(np.array(residual)), "labels from their own z_i": mean_of(np.array(own))},
        tables=(
            by_label(
                NAME, bench.labels.names, {"from z_s": residual, "from its z_i": own, "chance": chance}, shares=True
            ),
        ),
        note="Balanced accuracy of a linear probe on images that it was not fitted on; from z_s, chance is ideal.",
    )
