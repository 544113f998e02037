"""MVAE (Wu & Goodman 2018): image and labels as modalities of one z, joined by a product of experts. Pure tensors.

    q(z|X) proportional to N(0, I) prod_m q~(z|m), m over the modalities in X: the image, and each shown label
    ELBO(X) = E_q(z|X)[sum_m lambda_m log p(m|z)] - beta KL(q(z|X) || N(0, I))

An image with labels counts ELBO(x, y) + ELBO(x) + ELBO(y), one without ELBO(x). Each label has an expert of its own,
one normal over all of z per value, so that any of them may be missing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ccvae_deploy.schema import ImageSpec, LabelSet, LatentLayout
from ccvae_train.config import SettledConfig
from ccvae_train.model import Model
from ccvae_train.networks import HIDDEN, SCALE_FLOOR, Decoder, Encoder, initialise
from ccvae_train.objective import Batch, NamedTerms, Posterior
from ccvae_train.objective.terms import kl_to_standard_normal

WARM_UP = 0.2
"""The share of a run over which beta rises from 0 to 1, 20 of the official 100 epochs."""


@dataclass(frozen=True)
class MVAETerms(NamedTerms):
    """The terms of the three bounds; those with labels are 0 where an image shows none.

    Attributes:
        joint_reconstruction, image_reconstruction: E[log p(x|z)] under q(z|x,y) and q(z|x).
        joint_kl, image_kl, label_kl: KL to N(0, I) of q(z|x,y), q(z|x) and q(z|y).
        joint_label, own_label: E[log p(y|z)] under q(z|x,y) and q(z|y), each by its value's weight.
        beta: what multiplies every KL.
    """

    joint_reconstruction: Tensor
    image_reconstruction: Tensor
    joint_kl: Tensor
    image_kl: Tensor
    label_kl: Tensor
    joint_label: Tensor
    own_label: Tensor
    beta: Tensor

    def loss(self, label_weight: float) -> Tensor:
        """The mean of -(ELBO(x,y) + ELBO(x) + ELBO(y)), lambda of the labels being label_weight."""
        kl = self.joint_kl + self.image_kl + self.label_kl
        told = label_weight * (self.joint_label + self.own_label)
        return -(self.joint_reconstruction + self.image_reconstruction + told - self.beta * kl).mean()


class LabelExperts(nn.Module):
    """q~(z|y_i) = N(loc, scale^2) over all of z, one row per value of each label; they begin at random places."""

    def __init__(self, states: int, latents: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(states, latents))
        self.raw = nn.Parameter(torch.ones(states, latents))

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the shown states (N, S), 0 or 1 each: precision, and precision times mean, both (N, Z)."""
        precision = (softplus(self.raw) + SCALE_FLOOR) ** -2
        return shown @ precision, shown @ (precision * self.loc)


class MVAE(Model):
    """Encoder and decoder of the image, experts and decoder of the labels; its code is z."""

    encoder: Encoder
    decoder: Decoder

    def __init__(self, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> None:
        super().__init__(labels, layout)
        self.encoder = Encoder(image, layout.size)
        self.decoder = Decoder(image, layout.size)
        self.experts = LabelExperts(len(self.states.label), layout.size)
        last = nn.Linear(HIDDEN, labels.width)
        self.label_decoder = nn.Sequential(nn.Linear(layout.size, HIDDEN), nn.ReLU(), last)
        initialise(self.label_decoder, last)

    def terms(self, batch: Batch) -> NamedTerms:
        """The three bounds, each from one draw of its own posterior."""
        expert = Posterior(*batch.run(self.encoder, batch.image))
        return batch.averaged(lambda: self._draw(batch, expert))

    def _draw(self, batch: Batch, expert: Posterior) -> MVAETerms:
        labels, states = batch.labels, self.states
        sums = self.experts(labels.state * labels.observed[:, states.label])
        paired = labels.observed.any(1)
        both, image, label = product(expert, sums), product(expert), product(None, sums)
        z, z_x, z_y = (q.loc + q.scale * batch.normal(q.loc) for q in (both, image, label))

        def told(code: Tensor) -> Tensor:
            log_p = states.log_probabilities(self.label_decoder(code))
            return labels.weighted((labels.state * log_p) @ states.membership, states)

        def kl(q: Posterior) -> Tensor:
            return kl_to_standard_normal(q.loc, q.scale).sum(1)

        return MVAETerms(
            joint_reconstruction=batch.log_likelihood(self.decoder, z) * paired,
            image_reconstruction=batch.log_likelihood(self.decoder, z_x),
            joint_kl=kl(both) * paired,
            image_kl=kl(image),
            label_kl=kl(label) * paired,
            joint_label=told(z),
            own_label=told(z_y),
            beta=torch.full_like(z[:, 0], min(1.0, batch.done / WARM_UP)),
        )

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of q(z|x), and the logits of p(y|z) there."""
        code = product(Posterior(*self.encoder(image))).loc
        return code, self.label_decoder(code).float()

    def changed(self, image: Tensor, values: Tensor) -> Tensor:
        """The mean of q(z|x,y), y the asked labels alone."""
        return product(Posterior(*self.encoder(image)), self.experts(self._shown(values))).loc

    def generated(self, values: Tensor, normal: Tensor) -> Tensor:
        """Codes of the values (N, L): z ~ q(z|y) from noise (N, Z)."""
        q = product(None, self.experts(self._shown(values)))
        return q.loc + q.scale * normal

    def _shown(self, values: Tensor) -> Tensor:
        return self.states.of_values(values) * (values >= 0)[:, self.states.label]

    @classmethod
    def choices(cls, config: SettledConfig) -> dict[str, Any]:
        """The weight of labels, the warm-up of beta, and the form of the experts."""
        return {
            "lambda of labels": config.label_weight,
            "beta": f"0 to 1 over the first {WARM_UP:g} of the run",
            "experts": "one per label",
        }


def product(image: Posterior | None, labels: tuple[Tensor, Tensor] | None = None) -> Posterior:
    """N(0, I) times the experts given, normalised: precision T = 1 + sum T_m, mean sum T_m mu_m / T.

    Args:
        labels: the sums of `LabelExperts`.
    """
    precision: Tensor | float = 1.0
    weighted: Tensor | float = 0.0
    if image is not None:
        precision, weighted = precision + image.scale**-2, weighted + image.scale**-2 * image.loc
    if labels is not None:
        precision, weighted = precision + labels[0], weighted + labels[1]
    total = torch.as_tensor(precision)
    return Posterior(torch.as_tensor(weighted) / total, total.rsqrt())
