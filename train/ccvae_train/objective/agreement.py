"""Agreement: an edited image should be read as what the edit asked for. Pure tensor functions.

The bound asks the decoder for the image of one z only. It never asks what happens when a z_i is replaced by a draw
of p(z_i|y_i), though every edit is such a replacement; and where other latents tell the same pixels, nothing need
happen at all. So for some images of a step

    A(x) = E[ - sum_j KL(t_j || q(y_j|x')) ] - rho |x' - x^|_1,    x^ = decode(z),  x' = decode(z')

where z is the posterior mean, z' is z with the blocks of a random set of labels drawn from p(z_i|y_i'), y_i' mostly
another value, and t_j is what should be read: y_j' of a drawn label, the shown value of any other, q(y_j|x) where none
is shown. q(y|x') is the classifier at the posterior mean of x', as edits are read. Only the decoder learns from it:
encoder, classifier and conditional prior are held, since together they could agree on signs that nobody sees. The
first term is the variational bound on the information between labels and images of InfoGAN (Chen et al. 2016), the
set of labels that stay being the "independency constraint" of Hu et al. (2017).
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from .batch import Batch
from .terms import Posterior

if TYPE_CHECKING:
    from ccvae_train.networks import CCVAE

EVERY = 2
"""Of so many images of a batch one is edited."""
STEPS = 4
"""Of so many steps one has edits: few larger batches cost less than many small ones."""
KEPT = 0.25
"""The share of redrawn labels that keep their value, as `vary` and an edit to what is there already ask."""
MOVE = 0.002
"""rho, nats per unit of a value's change; times the default weight 6 % of what the likelihood charges for one."""
RISE = 0.5
"""The share of a run over which the weight rises: before, there is no picture to edit."""


def agreement(model: "CCVAE", posterior: Posterior, batch: Batch) -> Tensor:
    """A(x) of every `EVERY`-th image of the whole batch in every `STEPS`-th step, 0 elsewhere, scaled so that its mean
    over images and steps is that of all; (N,).
    """
    loc = posterior.loc.detach()
    if batch.step % STEPS:
        return loc.new_zeros(len(loc))
    rows = torch.arange(len(loc), device=loc.device)[-batch.noise.first % EVERY :: EVERY]
    code, target = _edits(model, loc, rows, batch)
    with torch.no_grad():
        unedited = batch.run(model.decoder, loc[rows])
    edited = batch.run(model.decoder, code)
    with batch.device.autocast():
        read, _ = _held(model.encoder, edited)
    log_q = model.states.log_probabilities(_held(model.classifier, read[:, : model.layout.z_c]))
    gap = torch.xlogy(target, target).sum(1) - (target * log_q).sum(1)
    moved = (edited - unedited).abs().flatten(1).sum(1)
    whole = batch.noise.batch or len(loc)
    scale = STEPS * whole / math.ceil(whole / EVERY)
    weight = scale * batch.config.agreement_weight * min(batch.done / RISE, 1.0)
    return loc.new_zeros(len(loc)).index_copy(0, rows, -weight * (gap + MOVE * moved))


@torch.no_grad()
def _edits(model: "CCVAE", loc: Tensor, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """z' (n, Z) of the chosen images, and what should be read from its image, by state, (n, S)."""
    states, split, labels = model.states, model.layout.z_c, batch.labels
    count = len(model.labels)
    uniform = batch.noise.uniform((len(loc), 1 + 2 * count))[rows]
    noise = batch.noise.normal((len(loc), split), loc)[rows]
    log_q = states.log_probabilities(model.classifier(loc[rows, :split]))
    seen = torch.where(labels.observed[rows][:, states.label], labels.state[rows], log_q.exp())

    # a share of labels that is itself random: from a single one to nearly all
    changed = uniform[:, 1 : 1 + count] < uniform[:, :1]
    values, now = states.membership.sum(0), states.largest(seen)
    # of a uniform number the lowest part keeps the value, the rest tells which other one it becomes
    other = (uniform[:, 1 + count :] - KEPT) / (1 - KEPT)
    further = torch.where(other < 0, 0, 1 + (other * (values - 1)).floor())
    asked = states.of_values(torch.where(changed, (now + further) % values, now))
    prior_loc, prior_scale = model.conditional_prior.at(asked)
    block = changed.to(loc.dtype) @ states.latents.T > 0
    z_c = torch.where(block, prior_loc + prior_scale * noise, loc[rows, :split])
    return torch.cat([z_c, loc[rows, split:]], dim=1), torch.where(changed[:, states.label], asked, seen)


def _held(network: Module, given: Tensor) -> Tensor:
    """What a network makes of its input, its own weights without gradient."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    found: Tensor = functional_call(network, weights, (given,))
    return found
