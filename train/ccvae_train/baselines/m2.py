"""M2 (Kingma et al. 2014), p(x,y,z) = p(x|y,z) p(y) p(z): labels stand beside z, not inside. Pure tensor functions.

    shown:   E_q(z|x,y)[log p(x|y,z)] - KL(q(z|x,y) || N(0, I)) + log p(y) + alpha log q(y|x)
    missing: E_q(y|x) q(z|x,y)[log p(x|y,z) - KL] - KL(q(y|x) || p(y))

and label by label between the two, q(y|x) being a product. The decoder sees all of y, so the sum over the missing ones
does not factorise: a single label is summed over, several are drawn by Gumbel's trick, 0 or 1 going forward and the
relaxed draw's gradient going back (straight-through).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ccvae_deploy.schema import ImageSpec, LabelSet, LatentLayout
from ccvae_train.config import SettledConfig
from ccvae_train.model import Model
from ccvae_train.networks import HIDDEN, SCALE_FLOOR, Decoder, image_features, initialise
from ccvae_train.noise import Noise
from ccvae_train.objective import Batch, Labels, NamedTerms
from ccvae_train.objective.terms import kl_to_standard_normal
from ccvae_train.states import States

TEMPERATURE = 0.5
"""Of the relaxed draw that gradients go through."""


@dataclass(frozen=True)
class M2Terms(NamedTerms):
    """The terms of M2's bound.

    Attributes:
        reconstruction: E[log p(x|y,z)].
        kl_latents: KL(q(z|x,y) || N(0, I)).
        kl_labels: KL(q(y|x) || p(y)) of missing labels.
        label_prior: log p(y) of shown labels.
        label: log q(y|x) of shown labels, each by its value's weight; not part of the bound.
    """

    reconstruction: Tensor
    kl_latents: Tensor
    kl_labels: Tensor
    label_prior: Tensor
    label: Tensor

    @property
    def bound(self) -> Tensor:
        """On log p(x, y) of the shown labels, (N,)."""
        return self.reconstruction - self.kl_latents - self.kl_labels + self.label_prior

    def loss(self, label_weight: float) -> Tensor:
        """The mean of -(bound + label_weight log q(y|x))."""
        return -(self.bound + label_weight * self.label).mean()


class LabelledEncoder(nn.Module):
    """q(y|x) and q(z|x,y) over the same features; y joins them before the last layer."""

    def __init__(self, image: ImageSpec, latents: int, width: int) -> None:
        super().__init__()
        self.features = image_features(image)
        self.label_head = nn.Linear(HIDDEN, width)
        self.head = nn.Linear(HIDDEN + width, 2 * latents)
        initialise(self, self.head)

    def latents(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, HIDDEN) and y (N, Y) to z_loc and z_scale, both (N, Z)."""
        loc, raw = self.head(torch.cat([features, y], dim=1)).chunk(2, dim=1)
        return loc, softplus(raw) + SCALE_FLOOR


class M2(Model):
    """Encoder and decoder of M2; its code is (z, y), with as many latents as the others have in all."""

    encoder: LabelledEncoder
    decoder: Decoder

    def __init__(self, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> None:
        super().__init__(labels, layout)
        self.encoder = LabelledEncoder(image, layout.size, labels.width)
        self.decoder = Decoder(image, layout.size + labels.width)

    def terms(self, batch: Batch) -> NamedTerms:
        """Every term; missing labels as the module says."""
        features = batch.run(self.encoder.features, batch.image).float()
        return batch.averaged(lambda: self._draw(batch, features))

    def _draw(self, batch: Batch, features: Tensor) -> M2Terms:
        labels, states = batch.labels, self.states
        log_q = states.log_probabilities(self.encoder.label_head(features))
        rows, state, weight = completions(labels, log_q, states, batch.noise)
        y = columns_of(state, states)
        loc, scale = self.encoder.latents(features[rows], y)
        # images without their label get the same noise for each of its values
        noise = batch.noise.normal((len(features), self.layout.size), features)[rows]
        reconstruction = batch.log_likelihood(self.decoder, torch.cat([loc + scale * noise, y], dim=1), rows)

        def over_images(value: Tensor) -> Tensor:
            return value.new_zeros(len(features)).index_add(0, rows, weight * value)

        kl_labels = (log_q.exp() * (log_q - labels.log_prior)) @ states.membership
        return M2Terms(
            reconstruction=over_images(reconstruction),
            kl_latents=over_images(kl_to_standard_normal(loc, scale).sum(1)),
            kl_labels=(kl_labels * ~labels.observed).sum(1),
            label_prior=labels.log_prior_of_shown(states),
            label=labels.weighted((labels.state * log_q) @ states.membership, states),
        )

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """z at the posterior mean beside the likelier labels, and the logits of q(y|x)."""
        features, logits = self._seen(image)
        return self._code(features, self.states.likeliest(logits)), logits

    def changed(self, image: Tensor, values: Tensor) -> Tensor:
        """z of the image as it is, beside y with the asked labels changed."""
        features, logits = self._seen(image)
        seen = self.states.likeliest(logits)
        code = self._code(features, seen)
        y = columns_of(self.states.of_values(torch.where(values < 0, seen, values)), self.states)
        return torch.cat([code[:, : self.layout.size], y], dim=1)

    def generated(self, values: Tensor, normal: Tensor) -> Tensor:
        """Codes of the values (N, L): z ~ N(0, I) from noise (N, Z), beside y."""
        return torch.cat([normal, columns_of(self.states.of_values(values), self.states)], dim=1)

    def _seen(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder.features(image).float()
        return features, self.encoder.label_head(features).float()

    def _code(self, features: Tensor, values: Tensor) -> Tensor:
        y = columns_of(self.states.of_values(values), self.states)
        return torch.cat([self.encoder.latents(features, y)[0].float(), y], dim=1)

    @classmethod
    def choices(cls, config: SettledConfig) -> dict[str, Any]:
        """alpha, and what is done about missing labels."""
        return {
            "alpha": config.label_weight,
            "missing labels": "summed over where there is one label, else straight-through Gumbel draws",
            "temperature": TEMPERATURE,
            "latents beside y": config.latents,
        }


def completions(labels: Labels, log_q: Tensor, states: States, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """What stands for the labels of a batch: image (M,), states (M, S) and weight (M,) of each case.

    Of a single label that is missing every value is a case, weighted by q(y|x); else every image is one case, with
    missing labels drawn from q(y|x).
    """
    count = torch.arange(len(log_q), device=log_q.device)
    if labels.observed.shape[1] > 1:
        # drawn even where all are shown, so that a share of a batch takes as much noise as the whole
        drawn = straight_through(log_q, states, noise)
        return count, torch.where(labels.observed[:, states.label], labels.state, drawn), torch.ones_like(log_q[:, 0])
    shown = labels.observed[:, 0]
    missing = count[~shown].repeat_interleave(log_q.shape[1])
    every = torch.eye(log_q.shape[1], device=log_q.device).repeat(int((~shown).sum()), 1)
    weight = torch.cat([torch.ones_like(log_q[shown, 0]), log_q[~shown].exp().flatten()])
    return torch.cat([count[shown], missing]), torch.cat([labels.state[shown], every]), weight


def straight_through(log_q: Tensor, states: States, noise: Noise) -> Tensor:
    """A draw of q(y|x) as states (N, S), one-hot, with the gradient of its relaxation at `TEMPERATURE`."""
    gumbel = -noise.uniform(tuple(log_q.shape)).clamp(1e-7, 1 - 1e-7).log().neg().log()
    perturbed = log_q + gumbel
    scaled = perturbed / TEMPERATURE
    relaxed = (scaled - states.logsumexp(scaled)[:, states.label]).exp()
    hard = states.of_values(states.largest(perturbed))
    return hard + relaxed - relaxed.detach()


def columns_of(state: Tensor, states: States) -> Tensor:
    """States (N, S) as columns of y (N, Y)."""
    return state @ states.from_columns.clamp_min(0).T
