"""M2 and MVAE as the protocols see them: labels stand beside z or are experts on it, no latent belongs to one.

Everything but generation is at posterior means, as for the other models.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccvae_deploy.arrays import Array
from ccvae_deploy.schema import ImageSpec, LabelSet

from ..baselines.m2 import M2
from ..baselines.mvae import MVAE
from ..datasets.dataset import MISSING
from ..device import Device

Values = NDArray[np.integer]

CHUNK = 250


@dataclass(frozen=True)
class LabelledSubject:
    """A model that takes labels as they are."""

    model: M2 | MVAE
    labels: LabelSet
    image: ImageSpec
    device: Device

    def predict(self, images: Array) -> Array:
        """Logits of q(y|x) of M2, of p(y|z) at the mean of q(z|x) of MVAE; (N, Y)."""
        return self._run(lambda image: self.model.read(image)[1], images)

    def reconstruct(self, images: Array) -> Array:
        """The decoder at the posterior mean, M2's with the labels that it sees itself."""
        return self._run(lambda image: self.model.decoder(self.model.read(image)[0]), images)

    def swap(self, images: Array, values: Values, residual: Array) -> Array:
        """M2: y = `values` beside z of `residual`; MVAE: the mean of q(z|residual, values). `images` are not used."""
        return self._changed(residual, values)

    def generate(self, values: Values, rng: np.random.Generator) -> Array:
        """M2: y = `values` beside z ~ N(0, I); MVAE: z ~ q(z|y)."""
        noise = rng.standard_normal((len(values), self.model.layout.size), dtype=np.float32)

        def made(normal: Tensor, asked: Tensor) -> Tensor:
            decoded: Tensor = self.model.decoder(self.model.generated(asked, normal))
            return decoded

        return self._run(made, noise, values.astype(np.int64))

    def intervene(self, images: Array, label: int, value: Values, rng: np.random.Generator | None) -> Array:
        """M2: one label of y replaced; MVAE: the mean of q(z|x, y_i). Neither has anything of a label to draw."""
        asked = np.full((len(images), len(self.labels)), MISSING, np.int64)
        asked[:, label] = value
        return self._changed(images, asked)

    def _changed(self, images: Array, values: Values) -> Array:
        def made(image: Tensor, asked: Tensor) -> Tensor:
            decoded: Tensor = self.model.decoder(self.model.changed(image, asked))
            return decoded

        return self._run(made, images, values.astype(np.int64))

    @torch.inference_mode()
    def _run(self, compute: Callable[..., Tensor], *given: NDArray[np.generic]) -> Array:
        """Rows in chunks to the device, and what is computed of them back."""
        found = []
        for start in range(0, len(given[0]), CHUNK):
            rows = [torch.from_numpy(np.ascontiguousarray(one[start : start + CHUNK])) for one in given]
            found.append(compute(*(one.to(self.device.torch_device) for one in rows)).float().cpu().numpy())
        return np.concatenate(found)
