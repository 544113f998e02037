"""A model whose latents are split by label and whose every network is a function written by hand."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout, ModelSpec
from ccvae_train.device import choose_device
from ccvae_train.evaluate.bench import Bench, Settings
from ccvae_train.evaluate.subject import SplitSubject

CPU = choose_device("cpu", "fp32")


class HandMade(SplitSubject):
    """Encoded images are given, p(z_i|y_i) lies about 10 i + y_i; every z that is decoded is kept.

    Attributes:
        means: (N, Z), the posterior means of the images of the bench, whatever they show.
        decoded: each z (M, Z) that was decoded.
    """

    def __init__(self, labels: LabelSet, layout: LatentLayout, means: np.ndarray) -> None:
        super().__init__(None, labels, layout, ImageSpec(size=32), ModelSpec(), CPU)
        self.__dict__.update(means=means.astype(np.float32), decoded=[])

    def encode(self, images):
        return self.means[: len(images)], np.ones_like(self.means[: len(images)])

    def decode(self, z):
        self.decoded.append(z)
        return np.zeros((len(z), 3, 32, 32), np.float32)

    def prior(self, values):
        loc = np.zeros((len(values), self.layout.z_c), np.float32)
        for i, block in enumerate(self.layout.slices):
            loc[:, block] = 10 * i + values[:, i, None]
        return loc, np.full_like(loc, 0.25)


def hand_made(labels: LabelSet, layout: LatentLayout, means: np.ndarray, values: np.ndarray) -> Bench:
    """The bench of a hand-made model whose images have these labels, (N, L)."""
    images = np.zeros((len(means), 3, 32, 32), np.float32)
    prior = np.full(labels.width, 0.5)
    return Bench(HandMade(labels, layout, means), None, None, images, values, prior, Settings())


class Toy(SplitSubject):
    """Two labels of one latent each, q(z|x) the same for every image, normals and logits of one multiplication.

    Images are what it decodes: z itself. The constant of log p(x|z) is left out, which E[w] = 1 takes out of E[w f].
    """

    LOC, SCALE = torch.tensor([0.7, -1.2]), torch.tensor([0.8, 1.1])
    PRIOR = np.array([0.3, 0.8])

    def __init__(self) -> None:
        labels = LabelSet(labels=(Label(name="a"), Label(name="b")))
        super().__init__(None, labels, LatentLayout(blocks=(1, 1), residual=0), ImageSpec(size=32), ModelSpec(), CPU)

    @property
    def four(self):
        return SimpleNamespace(
            encoder=lambda image: (self.LOC.expand(len(image), 2), self.SCALE.expand(len(image), 2)),
            decoder=lambda z: z,
            classifier=lambda z: torch.tensor([1.3, 0.9]) * z + torch.tensor([0.1, -0.2]),
            conditional_prior=self._prior,
        )

    def _prior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        shown = y > 0
        loc = torch.where(shown, torch.tensor([2.0, 3.0]), torch.tensor([-2.0, -1.0]))
        return loc, torch.where(shown, torch.tensor([1.5, 2.0]), torch.tensor([1.1, 1.7]))

    def encode(self, images):
        return tuple(part.numpy() for part in self.four.encoder(images))

    def decode(self, z):
        return z

    def classify(self, z_c):
        return self.four.classifier(torch.from_numpy(z_c)).numpy()

    def prior(self, values):
        return tuple(part.numpy() for part in self._prior(torch.from_numpy(values)))

    def log_likelihood(self, image: Tensor, mean: Tensor) -> Tensor:
        first, second = mean.unbind(1)
        return 0.8 * first - 0.5 * second + 0.3 * first * second - 0.1 * first**2
