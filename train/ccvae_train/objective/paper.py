"""The `paper` estimator: eq. 4 with the stop-gradient of eq. 8, and eq. 5, as their published form computes them.

One draw of z per image; the weight w = q(y|z_c) / q(y|x) multiplies the whole log-ratio; gradients of z_c are stopped
inside every q(y|z_c); q(y|x) is a mean over 100 draws whose gradient is kept; missing labels are drawn from q(y|z_c)
with a score-function gradient and no baseline. Its hidden label weight, 1 - E[w f] of about 10,000 on
64x64 RGB images, is what makes labels stick (docs/mathematics.md, 5), so the likelihood's constant must be kept.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ccvae_train.networks import CCVAE
from ccvae_train.noise import Noise

from .terms import Labels, LogLikelihood, Posterior, Terms, log_normal

PREDICTIVE_DRAWS = 100


def paper_terms(
    model: CCVAE, posterior: Posterior, labels: Labels, log_likelihood: LogLikelihood, noise: Noise
) -> Terms:
    """Estimate every term of the bound for a batch; each equals that of `exact_terms` in expectation over noise
    where every label is shown, and eq. 5 where none is.
    """
    split = model.layout.z_c
    z = posterior.loc + posterior.scale * noise.normal(posterior.loc.shape, posterior.loc)
    logits = model.classifier(z[:, :split].detach())
    drawn = noise.uniform(logits.shape) < logits.detach().sigmoid()
    y = torch.where(labels.observed, labels.y, drawn.to(labels.y.dtype))
    log_q_y = logsigmoid((2 * y - 1) * logits)
    shown, missing = (log_q_y * labels.observed).sum(1), (log_q_y * ~labels.observed).sum(1)

    label = _log_predictive(model, posterior, labels, noise)
    weight = (shown - label).exp()
    log_likelihood_z = log_likelihood(z)
    log_ratio = log_normal(z[:, :split], *model.conditional_prior(y)).sum(1)
    log_ratio = log_ratio - log_normal(z, posterior.loc, posterior.scale)[:, :split].sum(1) - log_q_y.sum(1)
    log_prior = torch.where(y > 0.5, labels.prior.log(), (-labels.prior).log1p())
    log_ratio = log_ratio + (log_prior * ~labels.observed).sum(1)
    log_residual = log_normal(z, torch.zeros_like(z), torch.ones_like(z)) - log_normal(
        z, posterior.loc, posterior.scale
    )
    log_residual = log_residual[:, split:].sum(1)

    whole = (weight * (log_likelihood_z + log_ratio + log_residual)).detach()
    score = whole * (missing - missing.detach())
    return Terms(
        reconstruction=weight * log_likelihood_z,
        kl_residual=-weight * log_residual,
        kl_characteristic=-(weight * log_ratio + label + score),
        label_prior=labels.log_prior.sum(1),
        label=label,
    )


def _log_predictive(model: CCVAE, posterior: Posterior, labels: Labels, noise: Noise) -> Tensor:
    """log q(y|x) of the shown labels, jointly, from a mean over draws: (N,)."""
    split = model.layout.z_c
    loc, scale = posterior.loc[:, None, :split], posterior.scale[:, None, :split]
    draws = loc + scale * noise.normal((len(loc), PREDICTIVE_DRAWS, split), loc)
    sign = (2 * labels.y - 1).unsqueeze(1)
    log_q = (logsigmoid(sign * model.classifier(draws)) * labels.observed.unsqueeze(1)).sum(2)
    return log_q.logsumexp(1) - torch.tensor(PREDICTIVE_DRAWS, dtype=loc.dtype, device=loc.device).log()
