"""The `paper` estimator: eq. 4 with the stop-gradient of eq. 8, and eq. 5, as their published form computes them.

One draw of z per image; the weight w = q(y|z_c) / q(y|x) multiplies the whole log-ratio; gradients of z_c are stopped
inside every q(y|z_c); q(y|x) is a mean over 100 draws whose gradient is kept; missing labels are drawn from q(y|z_c)
with a score-function gradient and no baseline. Its hidden label weight, 1 - E[w f] of about 10,000 on
64x64 RGB images, is what makes labels stick (docs/mathematics.md, 5), so the likelihood's constant must be kept.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccvae_train.noise import Noise

from .terms import Labels, LogLikelihood, Posterior, Terms, log_conditional, log_normal

if TYPE_CHECKING:
    from ccvae_train.networks import CCVAE

PREDICTIVE_DRAWS = 100


def paper_terms(
    model: "CCVAE", posterior: Posterior, labels: Labels, log_likelihood: LogLikelihood, noise: Noise
) -> Terms:
    """Estimate every term of the bound for a batch; each equals that of `exact_terms` in expectation over noise
    where every label is shown, and eq. 5 where none is.
    """
    split, states = model.layout.z_c, model.states
    z = posterior.loc + posterior.scale * noise.normal(posterior.loc.shape, posterior.loc)
    log_q = states.log_probabilities(model.classifier(z[:, :split].detach()))
    observed = labels.observed[:, states.label]
    state = torch.where(observed, labels.state, _missing(model, log_q, noise))
    log_q_y = (state * log_q) @ states.membership
    shown = (log_q_y * labels.observed).sum(1)

    label = _log_predictive(model, posterior, labels, noise)
    weight = (shown - label).exp()
    log_likelihood_z = log_likelihood(z)
    log_joint = log_conditional(model, z[:, :split]) + labels.log_prior * ~observed
    log_ratio = (state * log_joint).sum(1) - log_q_y.sum(1)
    log_ratio = log_ratio - log_normal(z, posterior.loc, posterior.scale)[:, :split].sum(1)
    log_residual = log_normal(z, torch.zeros_like(z), torch.ones_like(z)) - log_normal(
        z, posterior.loc, posterior.scale
    )
    log_residual = log_residual[:, split:].sum(1)

    whole = (weight * (log_likelihood_z + log_ratio + log_residual)).detach()
    drawn = log_q_y.new_zeros(len(z))
    if states.binary is not None:
        drawn = (log_q_y * ~labels.observed)[:, states.binary.label].sum(1)
    score = whole * (drawn - drawn.detach())
    return Terms(
        reconstruction=weight * log_likelihood_z,
        kl_residual=-weight * log_residual,
        kl_characteristic=-(weight * log_ratio + label + score),
        label_prior=labels.log_prior_of_shown(states),
        label=label,
    )


def _missing(model: "CCVAE", log_q: Tensor, noise: Noise) -> Tensor:
    """What stands for the states of missing labels, (N, S): a draw for a binary label, q(y|z_c) itself for classes.

    Summing over classes is what the paper's authors advise; the sum needs no score function.
    """
    q, binary = log_q.exp(), model.states.binary
    if binary is None:
        return q
    true = q[:, binary.true].detach()
    drawn = (noise.uniform(true.shape) < true).to(q.dtype)
    return q.index_copy(1, binary.true, drawn).index_copy(1, binary.true - 1, 1 - drawn)


def _log_predictive(model: "CCVAE", posterior: Posterior, labels: Labels, noise: Noise) -> Tensor:
    """log q(y|x) of the shown labels, jointly, from a mean over draws: (N,)."""
    split, states = model.layout.z_c, model.states
    loc, scale = posterior.loc[:, None, :split], posterior.scale[:, None, :split]
    draws = loc + scale * noise.normal((len(loc), PREDICTIVE_DRAWS, split), loc)
    shown = labels.state * labels.observed[:, states.label]
    log_q = (states.log_probabilities(model.classifier(draws)) * shown.unsqueeze(1)).sum(2)
    return log_q.logsumexp(1) - math.log(PREDICTIVE_DRAWS)
