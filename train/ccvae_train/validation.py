"""The figures of a validation pass, each beside what makes it honest: accuracy beside its floor, w beside its ESS."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from .batches import images_of, labels_of
from .datasets.dataset import MISSING, Partition
from .device import Device
from .networks import CCVAE
from .quadrature import label_integrals

WEIGHT_DRAWS = 64
DECODED = 1024
"""Images that are decoded for the reconstruction figure; the rest are encoded only."""


@dataclass(frozen=True)
class Validation:
    """Figures over a validation partition.

    Attributes:
        accuracy: mean over shown labels of the share predicted right at the posterior mean (Table 1).
        balanced_accuracy: mean over labels of (sensitivity + specificity) / 2; 0.5 is chance.
        floor: the accuracy of always predicting each label's more frequent value in the shown training labels.
        l1: mean absolute difference between image and reconstruction, in [0, 1].
        weight_mean: mean of w = q(y|z_c) / q(y|x), 1 when the estimate is sound.
        weight_ess: effective sample size of w as a share of its draws.
        by_label: accuracy and balanced accuracy per label name.
    """

    accuracy: float
    balanced_accuracy: float
    floor: float
    l1: float
    weight_mean: float
    weight_ess: float
    by_label: dict[str, dict[str, float]]

    def figures(self) -> dict[str, float]:
        """The scalar figures by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


@torch.no_grad()
def validate(
    model: CCVAE, part: Partition, names: tuple[str, ...], prior: NDArray[np.float64], device: Device, batch: int = 500
) -> tuple[Validation, NDArray[np.float32]]:
    """Run a partition through the model; also gives its posterior means, (N, Z)."""
    locs, scales, errors = [], [], []
    for start in range(0, len(part), batch):
        rows = np.arange(start, min(start + batch, len(part)))
        image = images_of(part.images, rows, device)
        with device.autocast():
            loc, scale = model.encoder(image)
            if start < DECODED:
                errors.append((model.decoder(loc) - image).abs().mean((1, 2, 3)))
        locs.append(loc)
        scales.append(scale)
    loc, scale = torch.cat(locs), torch.cat(scales)
    y, observed = labels_of(np.asarray(part.labels), device)
    weight_mean, weight_ess = _weights(model, loc, scale, y, observed, device)
    logits = model.classifier(loc[:, : model.layout.z_c])
    right = ((logits > 0) == (y > 0.5)).cpu().numpy()
    accuracy, balanced, floor = _accuracies(right, np.asarray(part.labels), prior > 0.5)
    figures = Validation(
        accuracy=float(np.nanmean(accuracy)),
        balanced_accuracy=float(np.nanmean(balanced)),
        floor=float(np.nanmean(floor)),
        l1=float(torch.cat(errors).mean()),
        weight_mean=weight_mean,
        weight_ess=weight_ess,
        by_label={
            name: {"accuracy": float(a), "balanced_accuracy": float(b), "floor": float(f)}
            for name, a, b, f in zip(names, accuracy, balanced, floor, strict=True)
            if not np.isnan([a, b, f]).any()
        },
    )
    return figures, loc.float().cpu().numpy()


def _accuracies(
    right: NDArray[np.bool_], labels: NDArray[np.int8], majority: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy, balanced accuracy and floor per label over its shown values, each (L,); NaN where none is shown."""

    def share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = among.sum(axis=0)
        rate: NDArray[np.float64] = np.full(counts.shape, np.nan)
        np.divide((hits & among).sum(axis=0), counts, out=rate, where=counts > 0)
        return rate

    shown, positive, negative = labels != MISSING, labels == 1, labels == 0
    sides = np.stack([share(right, positive), share(right, negative)])
    present = ~np.isnan(sides)
    balanced = np.divide(
        np.nansum(sides, axis=0), present.sum(axis=0), out=np.full(sides.shape[1], np.nan), where=present.any(axis=0)
    )
    return share(right, shown), balanced, share(positive == majority, shown)


def _weights(
    model: CCVAE, loc: Tensor, scale: Tensor, y: Tensor, observed: Tensor, device: Device
) -> tuple[float, float]:
    """Mean and effective sample share of w over draws of q(z_c|x), averaged over the first images."""
    split, count = model.layout.z_c, min(len(loc), DECODED)
    loc, scale, y, observed = loc[:count, :split], scale[:count, :split], y[:count], observed[:count]
    head = model.classifier
    log_q = label_integrals(loc, scale, head.weight, head.bias, head.membership, y).log_q
    noise = torch.randn(
        (count, WEIGHT_DRAWS, split), generator=device.generator(count), device=loc.device, dtype=loc.dtype
    )
    draws = loc.unsqueeze(1) + scale.unsqueeze(1) * noise
    log_weight = logsigmoid((2 * y - 1).unsqueeze(1) * head(draws)) - log_q.unsqueeze(1)
    weight = (log_weight * observed.unsqueeze(1)).sum(2).exp()
    ess = weight.sum(1).square() / weight.square().sum(1) / WEIGHT_DRAWS
    return float(weight.mean()), float(ess.mean())
