"""From memory-mapped uint8 rows to tensors on a device, and the order in which training sees them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .datasets.dataset import MISSING
from .device import Device
from .noise import Noise
from .states import States


def images_of(images: NDArray[np.uint8], rows: NDArray[np.intp], device: Device) -> Tensor:
    """Rows of (N, H, W, C) uint8 as (n, C, H, W) float32 in [0, 1], channels last in memory."""
    return as_image(pixels_of(images, rows, device))


def pixels_of(images: NDArray[np.uint8], rows: NDArray[np.intp], device: Device) -> Tensor:
    """Rows of (N, H, W, C) uint8 on the device, (n, H, W, C): bytes travel, and are moved about as such."""
    return _sent(torch.from_numpy(images[rows]), device)


def as_image(pixels: Tensor) -> Tensor:
    """Pixels (n, H, W, C) uint8 as (n, C, H, W) float32 in [0, 1], in the layout that convolutions like best."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def half_mirrored(pixels: Tensor, noise: Noise) -> Tensor:
    """Every image of (n, H, W, C) mirrored left to right with probability one half."""
    mirrored = noise.uniform((len(pixels),)) < 0.5
    either = torch.cat([pixels, pixels.flip(2)])
    return either[torch.arange(len(pixels), device=pixels.device) + len(pixels) * mirrored]


def shifted(pixels: Tensor, most: int, noise: Noise) -> Tensor:
    """Every image of (n, H, W, C) moved by up to `most` pixels along both axes; its edge repeats where it leaves."""
    height, width = pixels.shape[1:3]
    offset = (noise.uniform((len(pixels), 2)) * (2 * most + 1)).long() - most
    at, down, right = (torch.arange(size, device=pixels.device) for size in (len(pixels), height, width))
    rows, columns = (offset[:, :1] + down).clamp(0, height - 1), (offset[:, 1:] + right).clamp(0, width - 1)
    return pixels[at[:, None, None], rows[:, :, None], columns[:, None, :]]


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
        share: the least share of them in the epoch; where chance alone would give fewer, that many are taken, again
            and again through the labelled rows, as many in one batch as in the next or one more, and the rest from
            the others.
    """
    # a stream of its own: that of (seed, 0) is the stream of seed, by which labels are shown
    rng = np.random.default_rng((seed, epoch, 1))
    size = min(batch_size, count)
    steps = count // size
    if labelled is None or not len(labelled) or share <= len(labelled) / count:
        return rng.permutation(count)[: steps * size].reshape(steps, size)
    wanted = round(share * size * steps)
    chosen = np.concatenate([rng.permutation(labelled) for _ in range(-(-wanted // len(labelled)))])[:wanted]
    others = rng.permutation(np.setdiff1d(np.arange(count), labelled))[: steps * size - wanted]
    by_step = np.diff(np.arange(steps + 1) * wanted // steps)
    order = np.empty((steps, size), np.intp)
    first = np.arange(size) < by_step[:, None]
    order[first], order[~first] = chosen, others
    return order
