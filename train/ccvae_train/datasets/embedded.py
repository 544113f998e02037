"""`portraits`, the embedded data set: drawn once, then cached. Touches the cache folder only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import UsageError
from ccvae_deploy.progress import progress
from ccvae_deploy.schema import ImageSpec, LabelSet

from ..cache import cached_images
from .dataset import Dataset, Partition, fingerprint_of
from .portraits import LABELS, VERSION, labels_of, portraits
from .selection import select

TRAINING, VALIDATION = 20_000, 2_000
"""How many portraits by default; another number of training images keeps the ratio."""


def open_portraits(
    source: str, labels: Sequence[str] | None, spec: ImageSpec, *, seed: int = 0, count: int | None = None
) -> Dataset:
    """Portraits 0 to `count` to train on, and those after them, a tenth as many, to validate.

    Args:
        count: training images; None takes 20,000, and 2,000 to validate.

    Raises:
        LabelError: an unknown label.
        UsageError: grey portraits or fewer than one were asked for.
        DataError: the cache cannot be written.
    """
    if spec.channels != 3:
        raise UsageError("--channels 1: portraits are in colour, and skin and hair colour are labels; use 3")
    training = TRAINING if count is None else count
    if training < 1:
        raise UsageError(f"{training} portraits to train on; expected 1 or more")
    total = training + max(1, training * VALIDATION // TRAINING)
    names = [label.name for label in LABELS]
    chosen = select(names, labels) if labels is not None else list(range(len(names)))

    def fill(array: NDArray[np.uint8]) -> None:
        with progress("draw portraits", total, "images") as bar:
            portraits(total, seed=seed, size=spec.size, report=bar.advance, out=array)

    key = f"portraits-{VERSION}-{seed}-{total}-{spec.size}"
    entry = cached_images(key, (total, spec.size, spec.size, 3), fill)
    values = labels_of(total, seed=seed)[:, chosen]
    label_set = LabelSet(labels=tuple(LABELS[index] for index in chosen))
    return Dataset(
        source=source,
        labels=label_set,
        image=spec,
        train=Partition(entry.images[:training], values[:training]),
        valid=Partition(entry.images[training:], values[training:]),
        fingerprint=fingerprint_of(entry.sha256, label_set.names, values[:training], values[training:]),
    )
