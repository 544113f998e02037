"""What both estimators speak: the posterior they are given, the labels, the terms they return, and the likelihood."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from ccvae_train.states import States

if TYPE_CHECKING:
    from ccvae_train.networks import CCVAE

HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2

LogLikelihood = Callable[[Tensor], Tensor]
"""z (N, Z) to log p(x|z) (N,), in nats, normalising constant included."""


@dataclass(frozen=True)
class Posterior:
    """q(z|x) = N(loc, scale^2), both (N, Z), the characteristic latents first."""

    loc: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Labels:
    """The labels of a batch and p(y), by state: false and true of a binary label, each class of a categorical one.

    Attributes:
        state: (N, S), one-hot per label; any state where the label is missing.
        observed: (N, L), True where the label is shown.
        log_prior: (S,), log p(y).
        value_weight: (S,), what log q(y|x) of a shown label counts, by its value; see `value_weights`.
        complete: True only when every label of the batch is shown, which saves the work of the missing ones.
    """

    state: Tensor
    observed: Tensor
    log_prior: Tensor
    value_weight: Tensor | float = 1.0
    complete: bool = False

    def log_prior_of_shown(self, states: States) -> Tensor:
        """log p(y) of the shown labels, (N,)."""
        return ((self.state * self.log_prior) @ states.membership * self.observed).sum(1)

    def weighted(self, log_q: Tensor, states: States) -> Tensor:
        """The sum of log q(y_i|x), (N, L), over shown labels, each by the weight of its value, (N,)."""
        return (log_q * ((self.state * self.value_weight) @ states.membership) * self.observed).sum(1)


@dataclass(frozen=True)
class NamedTerms(ABC):
    """The terms of an objective by name, each (N,), in nats per image."""

    @abstractmethod
    def loss(self, label_weight: float) -> Tensor:
        """What training minimises, a mean over images; `label_weight` multiplies what is said of shown labels."""

    @classmethod
    def average(cls, draws: Sequence[Self]) -> Self:
        """The mean of every term over several draws of z."""
        stacked = zip(*(vars(one).values() for one in draws), strict=True)
        return cls(*(torch.stack(values).mean(0) for values in stacked))


NamedTermsT = TypeVar("NamedTermsT", bound=NamedTerms)


@dataclass(frozen=True)
class Terms(NamedTerms):
    """The terms of the bound, each (N,), in nats per image.

    Attributes:
        reconstruction: E_r[log p(x|z)].
        kl_residual: KL(q(z_s|x) || p(z_s)).
        kl_characteristic: KL(r(z_c) || p(z_c|y)) of shown labels, and KL to the mixture over y of missing ones.
        label_prior: log p(y) of shown labels.
        label: log q(y|x) of shown labels, each by its `value_weight`; not part of the bound, `label_weight` multiplies
            it.
    """

    reconstruction: Tensor
    kl_residual: Tensor
    kl_characteristic: Tensor
    label_prior: Tensor
    label: Tensor

    @property
    def bound(self) -> Tensor:
        """L(x, y) of eq. 4 where labels are shown, the bound on log p(x) where they are not, (N,)."""
        return self.reconstruction - self.kl_residual - self.kl_characteristic + self.label_prior

    def loss(self, label_weight: float) -> Tensor:
        """What training minimises: the mean of -(bound + label_weight log q(y|x)) over images."""
        return -(self.bound + label_weight * self.label).mean()


@dataclass(frozen=True)
class AgreeingTerms(Terms):
    """The terms of the bound, and what is asked of edited images.

    Attributes:
        agreement: see `agreement`, times its weight; not part of the bound.
    """

    agreement: Tensor

    def loss(self, label_weight: float) -> Tensor:
        """The mean of -(bound + label_weight log q(y|x) + agreement) over images."""
        return super().loss(label_weight) - self.agreement.mean()


def value_weights(states: States, prior: Tensor, balance: float) -> Tensor:
    """What each value of a label counts in the label term: p(value)^-balance, (S,), its mean over p(y) being 1.

    At 0 every image counts alike, at 1 every value of a label does, however rare.

    Args:
        prior: (S,), p(y).
    """
    raw = prior.pow(-balance)
    return raw / ((prior * raw) @ states.membership)[states.label]


def log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log N(z; loc, scale^2), elementwise."""
    return -((z - loc) / scale).square() / 2 - scale.log() - HALF_LOG_TWO_PI


def log_conditional(model: "CCVAE", z_c: Tensor) -> Tensor:
    """log p(z_i|y_i) for every state of every label, (…, Zc) to (…, S)."""
    states, prior = model.states, model.conditional_prior
    pairs = log_normal(z_c[..., states.pair_latent], prior.loc, prior.scale)
    return pairs.new_zeros((*pairs.shape[:-1], len(states.label))).index_add(-1, states.pair_state, pairs)


def kl_to_standard_normal(loc: Tensor, scale: Tensor) -> Tensor:
    """KL(N(loc, scale^2) || N(0, 1)), elementwise."""
    return (loc.square() + scale.square() - 1) / 2 - scale.log()


def laplace_log_likelihood(image: Tensor, mean: Tensor, scale: float) -> Tensor:
    """log Laplace(image; mean, scale) summed over channels and pixels, (N,)."""
    pixels = image[0].numel()
    return -(image - mean).abs().flatten(1).sum(1) / scale - pixels * math.log(2 * scale)


def bernoulli_log_likelihood(image: Tensor, mean: Tensor) -> Tensor:
    """log Bernoulli(image; mean) summed over channels and pixels, (N,); levels between 0 and 1 count as probabilities.

    Its gradient reaches a pixel that the decoder has driven to black, which the Laplace's does not: where most pixels
    are black, as in MNIST, the Laplace's best constant image is black altogether, and training ends there.

    What is not a number stays so; torch's function would end the process of a GPU.
    """
    lost = mean.isnan()
    entropy = binary_cross_entropy(mean.masked_fill(lost, 0.5), image, reduction="none")
    return -entropy.masked_fill(lost, torch.nan).flatten(1).sum(1)
