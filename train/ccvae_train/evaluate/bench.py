"""What the protocols work with: one model, the judge, and a bounded number of real images with their labels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import in_unit
from ccvae_deploy.schema import LabelSet

from ..datasets import portraits
from ..datasets.dataset import MISSING, Dataset
from ..datasets.embedded import TRAINING
from ..judge import Judge
from ..label_columns import Values, majority, predicted
from .finding import Skipped
from .subject import SplitSubject, Subject


@dataclass(frozen=True)
class Settings:
    """What the figures depend on beside model, judge and data.

    Attributes:
        images: real images (and generated images) per protocol.
        inception: a file of Inception weights, for the FID.
        partition: which real images: `valid` or `test`.
    """

    images: int = 1000
    seed: int = 0
    inception: Path | None = None
    partition: str = "valid"


@dataclass(frozen=True)
class Bench:
    """Materials of one evaluation.

    Attributes:
        images: (N, C, S, S) float32 in [0, 1], the first of the validation partition.
        values: (N, L), -1 where missing.
        prior: (Y,), the model's p(y).
    """

    subject: Subject
    given_judge: Judge | None
    data: Dataset
    images: Array
    values: NDArray[np.int8]
    prior: NDArray[np.float64]
    settings: Settings

    @classmethod
    def of(
        cls, subject: Subject, judge: Judge | None, data: Dataset, prior: NDArray[np.float64], settings: Settings
    ) -> "Bench":
        """Take the first `settings.images` of the validation partition."""
        count = min(settings.images, len(data.valid))
        return cls(
            subject,
            judge,
            data,
            in_unit(data.valid.images[:count]),
            np.asarray(data.valid.labels[:count]),
            prior,
            settings,
        )

    @property
    def judge(self) -> Judge:
        """The judge, of a protocol that is `judged`."""
        if self.given_judge is None:
            raise RuntimeError("this protocol says that it needs no judge")
        return self.given_judge

    @property
    def labels(self) -> LabelSet:
        """The labels, of model, judge and data alike."""
        return self.subject.labels

    @property
    def majority(self) -> Values:
        """The more frequent value of every training label, (L,)."""
        return majority(np.asarray(self.data.train.labels), self.labels)

    @cached_property
    def known_values(self) -> Values:
        """The true values, and the model's own prediction where one is missing, (N, L)."""
        if not (self.values == MISSING).any():
            return self.values.astype(np.int64)
        return np.where(self.values == MISSING, predicted(self.subject.predict(self.images), self.labels), self.values)

    def rng(self, name: str) -> np.random.Generator:
        """Noise that is a function of the seed and of the protocol's name alone."""
        return np.random.default_rng([self.settings.seed, *name.encode()])

    def split(self) -> SplitSubject:
        """The subject as a model whose latents are split by label.

        Raises:
            Skipped: it is none.
        """
        if not isinstance(self.subject, SplitSubject):
            raise Skipped("the model's latents are not split by label")
        return self.subject

    def true_masks(self, count: int) -> NDArray[np.bool_]:
        """Per image and label the pixels that the label may touch, (count, L, S, S).

        Raises:
            Skipped: the data are not portraits, whose factors are known.
        """
        if self.data.source != "portraits":
            raise Skipped("true factors are known of portraits only")
        names = [label.name for label in portraits.LABELS]
        chosen = [names.index(name) for name in self.labels.names]
        drawn = (portraits.draw_factors(0, TRAINING + index) for index in range(min(count, len(self.images))))
        return np.stack([portraits.masks(factors, self.subject.image.size)[chosen] for factors in drawn])
