"""What every reader gives to training: two partitions of memory-mapped images and their labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.schema import ImageSpec, LabelSet

MISSING = -1


@dataclass(frozen=True)
class Partition:
    """Images and labels of one partition, row by row.

    Attributes:
        images: (N, H, W, C) uint8, usually memory-mapped.
        labels: (N, L) int8; 0 or 1 for a binary label, the class index for a categorical one, -1 where missing.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A data set that has been checked, decoded and cached.

    Attributes:
        source: as the user typed it, such as `celeba:DIR`.
        fingerprint: sha256 of what the arrays were made from; two runs with the same value saw the same data.
    """

    source: str
    labels: LabelSet
    image: ImageSpec
    train: Partition
    valid: Partition
    fingerprint: str

    @classmethod
    def of(
        cls,
        source: str,
        labels: LabelSet,
        image: ImageSpec,
        images: NDArray[np.uint8],
        values: Sequence[NDArray[np.int8]],
        fingerprint: str,
    ) -> "Dataset":
        """The images of both partitions in one array, those that train first.

        Args:
            values: the labels of each partition.
            fingerprint: of the images.
        """
        train, valid = values
        return cls(
            source=source,
            labels=labels,
            image=image,
            train=Partition(images[: len(train)], train),
            valid=Partition(images[len(train) :], valid),
            fingerprint=fingerprint_of(fingerprint, labels.names, train, valid),
        )


def fingerprint_of(images: str, names: tuple[str, ...], *labels: NDArray[np.int8]) -> str:
    """sha256 over the fingerprint of the images, the label names and every partition's size and labels."""
    digest = hashlib.sha256(images.encode())
    digest.update("\0".join(names).encode())
    for part in labels:
        digest.update(f"\0{len(part)}\0".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
