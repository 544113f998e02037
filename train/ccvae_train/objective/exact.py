"""The `exact` estimator: quadrature where an integral is one-dimensional, draws only for the reconstruction.

With r(z_c|x,y) = q(z_c|x) q(y|z_c) / q(y|x), eq. 4 is (docs/mathematics.md, 2)

    L(x,y) = E_{r(z_c) q(z_s|x)}[log p(x|z)] - sum_i KL(r_i || p(z_i|y_i)) - KL(q(z_s|x) || p(z_s)) + log p(y).

log q(y|x) and KL(r_i || p(z_i|y_i)) come from quadrature. For the reconstruction, z_i is drawn from r_i: several
draws of q(z_i|x), one of them picked by its classifier weight, at no cost for the decoder. A label that is missing
takes the exact mixture: - KL(q(z_i|x) || sum_y p(y_i) p(z_i|y_i)), no score function and no imputed label.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccvae_train.noise import Noise

from .terms import (
    HALF_LOG_TWO_PI,
    Labels,
    LogLikelihood,
    Posterior,
    Terms,
    kl_to_standard_normal,
    log_conditional,
)
from .tilted import tilt

if TYPE_CHECKING:
    from ccvae_train.networks import CCVAE

DRAWS = 16


def exact_terms(
    model: "CCVAE",
    posterior: Posterior,
    labels: Labels,
    log_likelihood: LogLikelihood,
    noise: Noise,
    *,
    jensen: bool = False,
) -> Terms:
    """Estimate every term of the bound for a batch.

    Args:
        jensen: bound the mixture of a missing label once more, as eq. 5 does (its sum over y in full, not by a draw).
    """
    split, states = model.layout.z_c, model.states
    loc, scale = posterior.loc[:, :split], posterior.scale[:, :split]
    found = tilt(model, Posterior(loc, scale), labels.state, noise)
    kl = found.kl

    draws = loc.unsqueeze(1) + scale.unsqueeze(1) * noise.normal((len(loc), DRAWS, split), loc)
    log_q = states.log_probabilities(model.classifier(draws))
    log_weight = (log_q * labels.state.unsqueeze(1)) @ states.membership * labels.observed.unsqueeze(1)
    pick = _pick(log_weight.detach(), noise)
    z_c = draws.gather(1, (pick.to(draws.dtype) @ states.latents.T).long().unsqueeze(1)).squeeze(1)
    if not labels.complete:
        kl = torch.where(labels.observed, kl, _kl_to_mixture(model, scale, draws, log_q, labels, jensen))

    residual_loc, residual_scale = posterior.loc[:, split:], posterior.scale[:, split:]
    z_s = residual_loc + residual_scale * noise.normal(residual_loc.shape, loc)
    reconstruction = log_likelihood(torch.cat([z_c, z_s], dim=1))
    return Terms(
        reconstruction=reconstruction,
        kl_residual=kl_to_standard_normal(residual_loc, residual_scale).sum(1),
        kl_characteristic=kl.sum(1),
        label_prior=labels.log_prior_of_shown(states),
        label=labels.weighted(found.log_q, states),
    )


def _kl_to_mixture(model: "CCVAE", scale: Tensor, draws: Tensor, log_q: Tensor, labels: Labels, jensen: bool) -> Tensor:
    """KL(q(z_i|x) || sum_y p(y_i) p(z_i|y_i)), (N, L): entropy in closed form, the mixture over the draws."""
    states = model.states
    log_joint = log_conditional(model, draws) + labels.log_prior
    inner = (log_q.exp() * (log_joint - log_q)) @ states.membership if jensen else states.logsumexp(log_joint)
    negative_entropy = (-scale.log() - HALF_LOG_TWO_PI - 0.5) @ states.latents
    return negative_entropy - inner.mean(1)


def _pick(log_weight: Tensor, noise: Noise) -> Tensor:
    """Per image and label the index of one draw, taken with probability softmax(log_weight) (Gumbel's trick)."""
    uniform = noise.uniform(log_weight.shape)
    return (log_weight - (-uniform.clamp_min(1e-12).log()).log()).argmax(1)
