"""A model and a judge whose every answer is known: one pixel of an image holds each label, the rest is noise."""

from types import SimpleNamespace

import numpy as np

from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.evaluate.bench import Bench, Settings
from ccvae_train.label_columns import one_hot

LABELS = LabelSet(
    labels=(Label(name="a"), Label(name="b"), Label(name="k", kind="categorical", classes=("x", "y", "z")))
)
SURE = 4.0


def paint(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    images = rng.integers(0, 256, (len(values), 32, 32, 3)).astype(np.uint8)
    for i in range(values.shape[1]):
        images[:, 0, i] = values[:, i, None] * 100
    return images


def read(images: np.ndarray) -> np.ndarray:
    return np.rint(images[:, 0, 0, :3] * 2.55).astype(int)


class Painter:
    """A perfect model: it sets the pixels of labels and nothing else."""

    labels, image = LABELS, ImageSpec(size=32)

    def predict(self, images):
        return logits(images)

    def reconstruct(self, images):
        return images

    def swap(self, images, values, residual):
        return self._set(residual, read(images))

    def generate(self, values, rng):
        return self._set(rng.random((len(values), 3, 32, 32)).astype(np.float32), values)

    def intervene(self, images, label, value, rng):
        values = read(images)
        values[:, label] = value
        return self._set(images, values)

    def _set(self, images, values):
        painted = images.copy()
        painted[:, :, 0, :3] = values[:, None] * np.float32(100 / 255)
        return painted


def logits(images: np.ndarray) -> np.ndarray:
    """Of a judge that is always right and equally sure: 4 for a binary label, 8 between classes."""
    return (2 * SURE * one_hot(read(images), LABELS) - SURE).astype(np.float32)


def part(count: int, seed: int) -> Partition:
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(0, k, count) for k in (2, 2, 3)], axis=1).astype(np.int8)
    return Partition(paint(values, rng), values)


def bench(subject, count: int = 200) -> Bench:
    data = Dataset("made", LABELS, subject.image, part(count, 1), part(count, 0), "f" * 64)
    judge = SimpleNamespace(logits=logits, features=lambda images: images[:, 0, 4, :8], state=None)
    prior = np.array([0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])
    return Bench.of(subject, judge, data, prior, Settings(images=count))
