"""The figures of a validation pass, each beside what makes it honest: accuracy beside its floor, w beside its ESS."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ccvae_deploy.schema import LabelSet

from .accuracy import accuracies, mean_of
from .batches import images_of, labels_of
from .datasets.dataset import MISSING, Partition
from .device import Device
from .model import Model
from .networks import CCVAE
from .noise import Noise
from .objective import Posterior
from .objective.tilted import tilt

BATCH, WEIGHT_DRAWS = 500, 64
BY_LABEL = ("accuracy", "balanced_accuracy", "floor")
DECODED = 1024
"""Images that are decoded for the reconstruction figure; the rest are encoded only."""


@dataclass(frozen=True)
class Validation:
    """Figures over a validation partition.

    Attributes:
        accuracy: mean over shown labels of the share predicted right at the posterior mean (Table 1).
        balanced_accuracy: mean over labels of the mean recall of their values; 1/2 is chance for a binary label. Labels
            of which the partition shows one value only have none.
        floor: the accuracy of always predicting each label's more frequent value in all training labels.
        l1: mean absolute difference between image and reconstruction, in [0, 1].
        weight_mean: mean of w = q(y|z_c) / q(y|x), 1 when the estimate is sound; None for a model without the four
            networks of eq. 4.
        weight_ess: effective sample size of w as a share of its draws, or None.
        by_label: accuracy, balanced accuracy and floor per label name, without those that cannot be told.
    """

    accuracy: float
    balanced_accuracy: float
    floor: float
    l1: float
    weight_mean: float | None
    weight_ess: float | None
    by_label: dict[str, dict[str, float]]

    def figures(self) -> dict[str, float]:
        """The scalar figures by name, without those that cannot be told."""
        return {name: v for name, v in vars(self).items() if isinstance(v, float) and math.isfinite(v)}


@torch.no_grad()
def validate(
    model: Model, part: Partition, labels: LabelSet, majority: NDArray[np.int64], device: Device
) -> tuple[Validation, NDArray[np.float32]]:
    """Run a partition through the model; also gives its posterior means, (N, Z).

    Args:
        majority: (L,), the value that the floor always says.
    """
    codes, logits, errors = [], [], []
    for start in range(0, len(part), BATCH):
        rows = np.arange(start, min(start + BATCH, len(part)))
        image = images_of(part.images, rows, device)
        with device.autocast():
            code, told = model.read(image)
            if start < DECODED:
                some = slice(DECODED - start)
                errors.append((model.decoder(code[some]) - image[some]).abs().mean((1, 2, 3)))
        codes.append(code[:, : model.layout.size])
        logits.append(told)
    weight_mean, weight_ess = _weights(model, part, device) if isinstance(model, CCVAE) else (None, None)
    predicted = model.states.likeliest(torch.cat(logits).float()).cpu().numpy()
    accuracy, balanced, floor = accuracies(predicted, np.asarray(part.labels), majority)
    figures = Validation(
        accuracy=mean_of(accuracy),
        balanced_accuracy=mean_of(balanced),
        floor=mean_of(floor),
        l1=float(torch.cat(errors).mean()),
        weight_mean=weight_mean,
        weight_ess=weight_ess,
        by_label={
            name: {kind: float(value) for kind, value in zip(BY_LABEL, values, strict=True) if math.isfinite(value)}
            for name, *values in zip(labels.names, accuracy, balanced, floor, strict=True)
        },
    )
    return figures, torch.cat(codes).float().cpu().numpy()


def _weights(model: CCVAE, part: Partition, device: Device) -> tuple[float | None, float | None]:
    """Mean and effective sample share of w over draws of q(z_c|x), averaged over the first images that show a label."""
    states, split = model.states, model.layout.z_c
    rows = np.flatnonzero((np.asarray(part.labels) != MISSING).any(axis=1))[:DECODED]
    if not len(rows):
        return None, None
    count = len(rows)
    with device.autocast():
        loc, scale = (one[:, :split] for one in model.encoder(images_of(part.images, rows, device)))
    state, observed = labels_of(np.asarray(part.labels)[rows], states, device)
    noise = Noise(device.generator(count))
    log_q = tilt(model, Posterior(loc, scale), state, noise).log_q
    draws = loc.unsqueeze(1) + scale.unsqueeze(1) * noise.normal((count, WEIGHT_DRAWS, split), loc)
    log_weight = (states.log_probabilities(model.classifier(draws)) * state.unsqueeze(1)) @ states.membership
    weight = ((log_weight - log_q.unsqueeze(1)) * observed.unsqueeze(1)).sum(2).exp()
    ess = weight.sum(1).square() / weight.square().sum(1) / WEIGHT_DRAWS
    return float(weight.mean()), float(ess.mean())
