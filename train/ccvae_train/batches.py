"""From memory-mapped uint8 rows to tensors on a device, and the order in which training sees them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .datasets.dataset import MISSING
from .device import Device
from .noise import Noise
from .states import States


def images_of(images: NDArray[np.uint8], rows: NDArray[np.intp], device: Device) -> Tensor:
    """Rows of (N, H, W, C) uint8 as (n, C, H, W) float32 in [0, 1], channels last in memory.

    The bytes travel and are converted on the device; gathering by row keeps the layout that convolutions like best.
    """
    return _sent(torch.from_numpy(images[rows]), device).permute(0, 3, 1, 2).float().div_(255)


def half_mirrored(image: Tensor, noise: Noise) -> Tensor:
    """Every image of (n, C, H, W) mirrored left to right with probability one half."""
    mirrored = noise.uniform((len(image),)) < 0.5
    return torch.where(mirrored[:, None, None, None], image.flip(3), image)


def shifted(image: Tensor, most: int, noise: Noise) -> Tensor:
    """Every image of (n, C, H, W) moved by up to `most` pixels along both axes; its edge repeats where it leaves."""
    height, width = image.shape[2:]
    offset = (noise.uniform((len(image), 2)) * (2 * most + 1)).long()
    rows = offset[:, :1] + torch.arange(height, device=image.device)
    columns = offset[:, 1:] + torch.arange(width, device=image.device)
    padded = functional.pad(image, [most] * 4, mode="replicate").permute(0, 2, 3, 1)
    at = torch.arange(len(image), device=image.device)
    return padded[at[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def labels_of(labels: NDArray[np.int8], states: States, device: Device) -> tuple[Tensor, Tensor]:
    """Labels as one-hot states (n, S), the first state where missing, and the mask of those shown, (n, L)."""
    tensor = _sent(torch.from_numpy(labels), device)
    return states.of_values(tensor), tensor != MISSING


def _sent(tensor: Tensor, device: Device) -> Tensor:
    """A tensor on the device; from pinned memory, since the host would wait for the device to copy any other."""
    if device.torch_device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device.torch_device, non_blocking=True)


def epoch_order(
    count: int, batch_size: int, seed: int, epoch: int, labelled: NDArray[np.intp] | None = None, share: float = 0.0
) -> NDArray[np.intp]:
    """The rows of every batch of an epoch, (steps, batch_size), a function of its arguments alone.

    The remainder of the division waits for another epoch's order, so that every batch has one shape; a set smaller
    than a batch is one batch.

    Args:
        labelled: the rows with labels.
        share: the least share of them in a batch; where chance alone would give fewer, each batch takes that many,
            again and again through the labelled rows, and the rest from the others.
    """
    rng = np.random.default_rng((seed, epoch))
    size = min(batch_size, count)
    steps = count // size
    wanted = round(share * size)
    if labelled is None or not len(labelled) or wanted <= size * len(labelled) / count:
        return rng.permutation(count)[: steps * size].reshape(steps, size)
    passes = -(-steps * wanted // len(labelled))
    chosen = np.concatenate([rng.permutation(labelled) for _ in range(passes)])[: steps * wanted]
    others = rng.permutation(np.setdiff1d(np.arange(count), labelled))[: steps * (size - wanted)]
    return np.concatenate([chosen.reshape(steps, wanted), others.reshape(steps, size - wanted)], axis=1)
