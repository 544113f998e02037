"""What is evaluated: a model behind the few things that the protocols ask of it. Numpy in, numpy out.

`Subject` is all that every model can do; `SplitSubject` adds the latents of models whose z is split by label.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccvae_deploy.arrays import Array
from ccvae_deploy.schema import ImageSpec, LabelSet, LatentLayout, ModelSpec

from ..baselines.m2 import M2
from ..baselines.mvae import MVAE
from ..baselines.vae_classifier import VAEClassifier
from ..checkpoint import TrainedRun
from ..datasets.dataset import MISSING
from ..device import Device
from ..label_columns import one_hot
from ..networks import CCVAE, SplitVAE
from ..objective import bernoulli_log_likelihood, laplace_log_likelihood
from .finding import Skipped
from .labelled_subject import LabelledSubject

Values = NDArray[np.integer]

CHUNK = 250


class Subject(Protocol):
    """A model under evaluation. Images are (N, C, S, S) float32 in [0, 1], values (N, L) integers, none missing."""

    @property
    def labels(self) -> LabelSet:
        """The labels the model knows."""

    @property
    def image(self) -> ImageSpec:
        """What its images are."""

    @property
    def device(self) -> Device:
        """Where it runs, and all that is computed beside it."""

    def predict(self, images: Array) -> Array:
        """Logits of q(y|x), (N, Y)."""

    def reconstruct(self, images: Array) -> Array:
        """The model's own picture of images, nothing changed."""

    def swap(self, images: Array, values: Values, residual: Array) -> Array:
        """The characteristics of `images`, whose true labels are `values`, on all else of `residual`."""

    def generate(self, values: Values, rng: np.random.Generator) -> Array:
        """One image per row of values."""

    def intervene(self, images: Array, label: int, value: Values, rng: np.random.Generator | None) -> Array:
        """Images with one label made `value` (N,): by a draw, or by the most ordinary look of the value without rng."""


@dataclass(frozen=True)
class SplitSubject:
    """A model with encoder, decoder and classifier over one latent layout; CCVAE and DIVA have a conditional prior."""

    model: SplitVAE
    labels: LabelSet
    layout: LatentLayout
    image: ImageSpec
    spec: ModelSpec
    device: Device

    @classmethod
    def of(cls, run: TrainedRun, device: Device) -> "SplitSubject":
        """The model of a run, moved to a device."""
        model = run.model.to(device.torch_device).eval()
        assert isinstance(model, SplitVAE)
        return cls(model, run.labels, run.layout, run.image, run.spec, device)

    @property
    def four(self) -> CCVAE:
        """The model as one of four networks.

        Raises:
            Skipped: it has no conditional prior.
        """
        if not isinstance(self.model, CCVAE):
            raise Skipped("the model has no conditional prior")
        return self.model

    def encode(self, images: Array) -> tuple[Array, Array]:
        """q(z|x): z_loc and z_scale, both (N, Z)."""
        parts = [self._run(self.model.encoder, images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        return np.concatenate([loc for loc, _ in parts]), np.concatenate([scale for _, scale in parts])

    def decode(self, z: Array) -> Array:
        """z (N, Z) to images."""
        return np.concatenate([self._run(self.model.decoder, z[i : i + CHUNK])[0] for i in range(0, len(z), CHUNK)])

    def log_likelihood(self, image: Tensor, mean: Tensor) -> Tensor:
        """log p(x|z) of images (N, C, S, S) from the decoder's means, (N,), its constant included."""
        if self.spec.likelihood == "bernoulli":
            return bernoulli_log_likelihood(image, mean)
        return laplace_log_likelihood(image, mean, self.spec.likelihood_scale)

    def classify(self, z_c: Array) -> Array:
        """z_c (N, Zc) to logits (N, Y)."""
        return self._run(self.model.classifier, z_c)[0]

    def prior(self, values: Values) -> tuple[Array, Array]:
        """p(z_c|y): z_c_loc and z_c_scale, both (N, Zc)."""
        loc, scale = self._run(self.four.conditional_prior, one_hot(values, self.labels))
        return loc, scale

    def predict(self, images: Array) -> Array:
        """Logits of q(y|z_c) at the posterior mean; q(y|x) thresholds the same for a binary label."""
        return self.classify(self.encode(images)[0][:, : self.layout.z_c])

    def reconstruct(self, images: Array) -> Array:
        """The decoder at the posterior mean."""
        return self.decode(self.encode(images)[0])

    def swap(self, images: Array, values: Values, residual: Array) -> Array:
        """decode(z_c of `images`, z_s of `residual`), both posterior means; the labels are not used."""
        split = self.layout.z_c
        return self.decode(
            np.concatenate([self.encode(images)[0][:, :split], self.encode(residual)[0][:, split:]], axis=1)
        )

    def generate(self, values: Values, rng: np.random.Generator) -> Array:
        """z_c ~ p(z_c|y), z_s ~ N(0, I), decoded."""
        return self.decode(self.draw(values, rng))

    def draw(self, values: Values, rng: np.random.Generator) -> Array:
        """z ~ p(z|y), (N, Z)."""
        noise = rng.standard_normal((len(values), self.layout.size), dtype=np.float32)
        loc, scale = self.prior(values)
        noise[:, : self.layout.z_c] = loc + scale * noise[:, : self.layout.z_c]
        return noise

    def intervene(self, images: Array, label: int, value: Values, rng: np.random.Generator | None) -> Array:
        """The label's block replaced by a draw or the mean of p(z_i|y_i), every other latent at its posterior mean."""
        return self.decode(self.replaced(self.encode(images)[0], label, value, rng))

    def replaced(self, z: Array, label: int, value: Values, rng: np.random.Generator | None) -> Array:
        """z with one label's block from p(z_i|y_i = value)."""
        values = np.zeros((len(z), len(self.labels)), np.int64)
        values[:, label] = value
        block = self.layout.slices[label]
        loc, scale = (part[:, block] for part in self.prior(values))
        edited = z.copy()
        edited[:, block] = loc if rng is None else loc + scale * rng.standard_normal(loc.shape, dtype=np.float32)
        return edited

    @torch.inference_mode()
    def _run(self, network: torch.nn.Module, given: Array) -> tuple[Array, ...]:
        found = network(torch.from_numpy(np.ascontiguousarray(given)).to(self.device.torch_device))
        several: tuple[Tensor, ...] = found if isinstance(found, tuple) else (found,)
        return tuple(one.float().cpu().numpy() for one in several)


class RejectionSubject(SplitSubject):
    """A model without a conditional prior: z_c ~ N(0, I) given that the classifier is sure, by the model itself."""

    model: VAEClassifier

    def draw(self, values: Values, rng: np.random.Generator) -> Array:
        """z ~ N(0, I) given that every label's classifier is sure of its value, (N, Z)."""
        z = rng.standard_normal((len(values), self.layout.size), dtype=np.float32)
        for label, block in enumerate(self.layout.slices):
            z[:, block] = self.model.drawn(label, values[:, label], rng)
        return z

    def replaced(self, z: Array, label: int, value: Values, rng: np.random.Generator | None) -> Array:
        """z with one label's block from N(0, I), given that the classifier is sure of the value."""
        edited, block = z.copy(), self.layout.slices[label]
        if rng is not None:
            edited[:, block] = self.model.drawn(label, value, rng)
            return edited
        asked = torch.full((len(z), len(self.labels)), MISSING)
        asked[:, label] = torch.from_numpy(value.astype(np.int64))
        edited[:, block] = self.model.typical(asked)[:, block].numpy()
        return edited


def subject_of(run: TrainedRun, device: Device) -> Subject:
    """The model of a run as the protocols see it."""
    if isinstance(run.model, VAEClassifier):
        return RejectionSubject.of(run, device)
    if isinstance(run.model, M2 | MVAE):
        return LabelledSubject(run.model.to(device.torch_device).eval(), run.labels, run.image, device)
    return SplitSubject.of(run, device)
