"""Images of three binary labels that `train` learns within seconds, and settings for it."""

import numpy as np

from ccvae_deploy.schema import Label, LabelSet
from ccvae_train.datasets.dataset import Partition

LABELS = LabelSet(labels=(Label(name="bright"), Label(name="Left_Bar"), Label(name="red")))
SMALL = {"epochs": 3, "latents": 8, "batch_size": 32, "learning_rate": 3e-3, "device": "cpu"}


def made_partition(count: int, seed: int) -> Partition:
    """Images of 32x32 whose three labels are plain to see: brightness, a bar on the left, a red tint."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 3)).astype(np.int8)
    images = rng.integers(20, 60, (count, 1, 1, 1)) + np.zeros((count, 32, 32, 3))
    images += 110 * labels[:, 0, None, None, None]
    images[..., 0] += 50 * labels[:, 2, None, None]
    images[:, 8:24, 4:12] += 60 * (labels[:, 1, None, None, None] * 2 - 1)
    return Partition(np.clip(images, 0, 255).astype(np.uint8), labels)
