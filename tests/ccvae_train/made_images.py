"""Images whose labels are plain to see, for tests that train something within a second or two."""

import numpy as np

from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train.datasets.dataset import Dataset, Partition

LABELS = LabelSet(
    labels=(
        Label(name="bright"),
        Label(name="Left_Bar"),
        Label(name="hue", kind="categorical", classes=("r", "g", "b")),
    )
)
BINARY = LabelSet(labels=LABELS.labels[:2])


def made_values(count: int, seed: int) -> np.ndarray:
    """Values of the three labels, (count, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, k, count) for k in (2, 2, 3)], axis=1).astype(np.int8)


def paint(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Images (N, 32, 32, 3) uint8: bright or dark, a bar on the left or none, a tint; all else is noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(20, 50, (len(values), 1, 1, 1)) + np.zeros((len(values), 32, 32, 3))
    images += 90 * values[:, 0, None, None, None]
    images[:, 8:24, 4:12] += 40 * (values[:, 1, None, None, None] * 2 - 1)
    if values.shape[1] > 2:
        images += 60 * np.eye(3)[values[:, 2]][:, None, None, :]
    return np.clip(images, 0, 255).astype(np.uint8)


def made_data(labels: LabelSet = LABELS, train: int = 512, valid: int = 128) -> Dataset:
    """Two partitions of made images."""
    parts = []
    for seed, count in enumerate((train, valid)):
        values = made_values(count, seed)[:, : len(labels)]
        parts.append(Partition(paint(values, seed), values))
    return Dataset("made", labels, ImageSpec(size=32), *parts, fingerprint="a1b2c3d4" * 8)
