"""Eq. 2: the VAE's bound and alpha E[log q(y|z_c)], and z_c by rejection."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from ccvae_deploy.edits.request import CONFIDENCE
from ccvae_train.baselines.vae_classifier import VAEClassifier

from .toy import BINARY, MIXED, batch, log_likelihood, make

VALUES = [[0, 2], [1, -1], [-1, -1], [1, 0]]


def test_loss_is_the_bound_and_alpha_log_q() -> None:
    model = make(VAEClassifier, MIXED)
    given = batch(model, VALUES)
    loc, scale = model.encoder(given.image)
    z = loc + scale * torch.randn(loc.shape, generator=torch.Generator().manual_seed(1))
    standard = Normal(torch.zeros_like(loc), torch.ones_like(loc))
    bound = log_likelihood(given.image, model.decoder(z)) - kl_divergence(Normal(loc, scale), standard).sum(1)
    logits = model.classifier(z[:, :3])
    told = torch.zeros(4)
    for row, (a, k) in enumerate(VALUES):
        if a >= 0:
            told[row] += torch.distributions.Bernoulli(logits=logits[row, 0]).log_prob(torch.tensor(float(a)))
        if k >= 0:
            told[row] += Categorical(logits=logits[row, 1:]).log_prob(torch.tensor(k))
    terms = model.terms(given)
    assert terms.bound.tolist() == pytest.approx(bound.tolist(), rel=1e-5)
    assert terms.label.tolist() == pytest.approx(told.tolist(), rel=1e-5)
    assert terms.loss(7.0).item() == pytest.approx(-(bound + 7 * told).mean().item(), rel=1e-5)


def test_more_draws_are_averaged_and_every_parameter_is_in_the_loss() -> None:
    model = make(VAEClassifier, MIXED)
    given = batch(model, [[-1, -1]] * 4, config=batch(model, VALUES).config.model_copy(update={"draws": 3}))
    model.terms(given).loss(1.0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.classifier.weight.grad.abs().max() == 0


@pytest.mark.parametrize("labels", [BINARY, MIXED], ids=["binary", "mixed"])
def test_draws_are_accepted_by_the_classifier_and_the_ordinary_look_is_their_mean(labels) -> None:
    model = make(VAEClassifier, labels)
    with torch.no_grad():
        model.classifier.weight.mul_(4)
    rng, values = np.random.default_rng(0), np.repeat([0, 1], 3000)
    for label, block in enumerate(model.layout.slices):
        drawn = model.drawn(label, values, rng)
        z_c = torch.zeros(len(drawn), model.layout.z_c)
        z_c[:, block] = torch.from_numpy(drawn)
        log_q = model.states.log_probabilities(model.classifier(z_c))
        state = int(model.states.first[label]) + torch.from_numpy(values)
        sure = log_q.gather(1, state[:, None]).exp()
        assert sure.min() > CONFIDENCE - 1e-4
        asked = torch.full((2, 2), -1)
        asked[:, label] = torch.tensor([0, 1])
        typical = model.typical(asked)
        for value in (0, 1):
            assert typical[value, block].tolist() == pytest.approx(drawn[values == value].mean(axis=0), abs=0.1)
        others = [i for i in range(model.layout.z_c) if not block.start <= i < block.stop]
        assert (typical[:, others] == 0).all()


def test_a_change_leaves_all_other_latents() -> None:
    model = make(VAEClassifier, BINARY)
    image = batch(model, [[0, 0]] * 3).image
    z, logits = model.read(image)
    changed = model.changed(image, torch.tensor([[-1, 1]] * 3))
    assert (changed[:, [0, 3, 4]] == z[:, [0, 3, 4]]).all()
    assert (changed[:, 1:3] != z[:, 1:3]).all()
    after = model.classifier(changed[:, :3])
    assert (after[:, 1].sigmoid() > CONFIDENCE).all()
    assert (after[:, 0] == logits[:, 0]).all()
