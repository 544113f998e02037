"""`portraits`, the embedded data set: drawn once, then cached. Touches the cache folder only."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import UsageError
from ccvae_deploy.schema import ImageSpec, LabelSet

from ..cache import cached_images
from .dataset import Dataset, Partition, fingerprint_of
from .portraits import LABELS, VERSION, labels_of, portraits
from .selection import select

TRAINING, VALIDATION = 20_000, 2_000


def open_portraits(source: str, labels: Sequence[str] | None, spec: ImageSpec) -> Dataset:
    """20,000 portraits to train on and the 2,000 after them to validate.

    Raises:
        LabelError: an unknown label.
        UsageError: grey portraits were asked for.
    """
    if spec.channels != 3:
        raise UsageError("--channels 1: portraits are in colour, and skin and hair colour are labels; use 3")
    names = [label.name for label in LABELS]
    chosen = select(names, labels) if labels else list(range(len(names)))
    count = TRAINING + VALIDATION

    def fill(array: NDArray[np.uint8]) -> None:
        portraits(count, size=spec.size, title="draw portraits", out=array)

    key = f"portraits-{VERSION}-{count}-{spec.size}"
    images = cached_images(key, (count, spec.size, spec.size, 3), fill)
    values = labels_of(count)[:, chosen]
    label_set = LabelSet(labels=tuple(LABELS[index] for index in chosen))
    identity = hashlib.sha256(key.encode()).hexdigest()
    return Dataset(
        source=source,
        labels=label_set,
        image=spec,
        train=Partition(images[:TRAINING], values[:TRAINING]),
        valid=Partition(images[TRAINING:], values[TRAINING:]),
        fingerprint=fingerprint_of(identity, label_set.names, values),
    )
