"""The tilted posterior r(z_i|x,y_i) = q(z_i|x) q(y_i|z_i) / q(y_i|x) of every label. Pure tensor functions.

A binary label, or a categorical one of a single latent, needs one-dimensional integrals only, which the trapezoid rule
gives to six digits (docs/mathematics.md, 3). The classes of a label of several latents are integrated over draws of
q(z_i|x), weighted and normalised.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccvae_train.noise import Noise
from ccvae_train.quadrature import label_integrals, standard_normal_grid, tilted_moments
from ccvae_train.states import Binaries, LabelBlock

from .terms import HALF_LOG_TWO_PI, Posterior, log_normal

if TYPE_CHECKING:
    from ccvae_train.networks import CCVAE

CLASS_DRAWS = 64


@dataclass(frozen=True)
class Tilt:
    """Per image and label, both (N, L).

    Attributes:
        log_q: log q(y_i|x).
        kl: KL(r_i || p(z_i|y_i)).
    """

    log_q: Tensor
    kl: Tensor


def tilt(model: "CCVAE", posterior: Posterior, state: Tensor, noise: Noise) -> Tilt:
    """Integrate every label.

    Args:
        posterior: q(z_c|x), both (N, Zc).
        state: (N, S), one-hot per label; labels that are missing may have any.
    """
    states = model.states
    parts = [_binary(model, states.binary, posterior, state)] if states.binary is not None else []
    parts += [_classes(model, block, posterior, state, noise) for block in states.classes]
    if len(parts) == 1:
        return parts[0]
    positions = [states.binary.label] if states.binary is not None else []
    positions += [torch.tensor([block.label], device=state.device) for block in states.classes]
    order = torch.cat(positions).argsort()
    log_q, kl = (torch.cat([getattr(part, name) for part in parts], 1)[:, order] for name in ("log_q", "kl"))
    return Tilt(log_q, kl)


def _binary(model: "CCVAE", binary: Binaries, posterior: Posterior, state: Tensor) -> Tilt:
    loc, scale = posterior.loc[:, binary.latent], posterior.scale[:, binary.latent]
    weight = model.classifier.matrix[binary.latent][:, binary.column].sum(1)
    bias = model.classifier.bias[binary.column]
    found = label_integrals(loc, scale, weight, bias, binary.membership, state[:, binary.true])
    mean, variance = tilted_moments(loc, scale, weight, binary.membership, found)
    prior_loc, prior_scale = (value[:, binary.latent] for value in model.conditional_prior.at(state))
    log_ratio = _expected_log_normal(mean, variance, loc, scale)
    log_ratio = log_ratio - _expected_log_normal(mean, variance, prior_loc, prior_scale)
    return Tilt(found.log_q, log_ratio @ binary.membership + found.expected_log_q - found.log_q)


def _classes(model: "CCVAE", block: LabelBlock, posterior: Posterior, state: Tensor, noise: Noise) -> Tilt:
    loc, scale = posterior.loc[:, None, block.latents], posterior.scale[:, None, block.latents]
    head = model.classifier
    weight = head.matrix[block.latents, block.columns]
    if loc.shape[-1] == 1:
        nodes, log_weight = standard_normal_grid(scale * (weight.max() - weight.min()))
        standard = nodes[:, None]
    else:
        standard = noise.normal((len(loc), CLASS_DRAWS, loc.shape[-1]), loc)
        log_weight = torch.full((CLASS_DRAWS,), 1 / CLASS_DRAWS, dtype=loc.dtype, device=loc.device).log()
    z = loc + scale * standard
    logits = z @ weight + head.bias[block.columns]
    log_q_y = (logits.log_softmax(-1) * state[:, None, block.states]).sum(-1)
    joint = log_q_y + log_weight
    log_q = joint.logsumexp(1, keepdim=True)
    prior_loc, prior_scale = (value[:, None, block.latents] for value in model.conditional_prior.at(state))
    log_ratio = (log_normal(z, loc, scale) - log_normal(z, prior_loc, prior_scale)).sum(-1)
    kl = ((joint - log_q).exp() * (log_ratio + log_q_y)).sum(1, keepdim=True) - log_q
    return Tilt(log_q, kl)


def _expected_log_normal(mean: Tensor, variance: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """E[log N(z; loc, scale^2)] for any z of this mean and variance, elementwise."""
    return -((mean - loc).square() + variance) / (2 * scale.square()) - scale.log() - HALF_LOG_TWO_PI
