"""DIVA's terms against its formula, the sum over y taken jointly."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ccvae_train.baselines.diva import DIVA
from ccvae_train.noise import Noise
from ccvae_train.objective import exact_terms

from .toy import MIXED, batch, log_likelihood, make


def drawn(model, given):
    loc, scale = model.encoder(given.image)
    return loc, scale, loc + scale * torch.randn(loc.shape, generator=torch.Generator().manual_seed(1))


def test_shown_labels() -> None:
    model, values = make(DIVA, MIXED), torch.tensor([[0, 2], [1, 1], [1, 0]])
    given = batch(model, values)
    loc, scale, z = drawn(model, given)
    prior = Normal(*model.conditional_prior.at(model.states.of_values(values)))
    split = 3
    kl_c = kl_divergence(Normal(loc[:, :split], scale[:, :split]), prior).sum(1)
    kl_s = kl_divergence(Normal(loc[:, split:], scale[:, split:]), Normal(torch.zeros(1), torch.ones(1))).sum(1)
    log_q = model.states.log_probabilities(model.classifier(z[:, :split]))
    told = (log_q * model.states.of_values(values)).sum(1)
    expected = log_likelihood(given.image, model.decoder(z)) - kl_s - kl_c
    terms = model.terms(given)
    assert terms.bound.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert terms.loss(30.0).item() == pytest.approx(-(expected + 30 * told).mean().item(), rel=1e-5)


def test_missing_labels_against_the_joint_sum_over_y() -> None:
    model = make(DIVA, MIXED)
    given = batch(model, [[-1, -1]] * 4)
    loc, scale, z = drawn(model, given)
    z_c, states = z[:, :3], model.states
    log_q = states.log_probabilities(model.classifier(z_c))
    expected = Normal(loc[:, :3], scale[:, :3]).entropy().sum(1)
    for y in itertools.product(range(2), range(3)):
        state = states.of_values(torch.tensor([y] * 4))
        log_q_y = (log_q * state).sum(1)
        log_p_z = Normal(*model.conditional_prior.at(state)).log_prob(z_c).sum(1)
        log_p_y = (given.labels.log_prior * state).sum(1)
        expected = expected + log_q_y.exp() * (log_p_z + log_p_y - log_q_y)
    terms = model.terms(given)
    assert (-terms.kl_characteristic).tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)
    assert terms.label.tolist() == [0] * 4


def test_each_label_of_an_image_is_shown_or_missing_on_its_own() -> None:
    model = make(DIVA, MIXED)
    whole, none, half = (model.terms(batch(model, [row] * 3)) for row in ([1, 2], [-1, -1], [1, -1]))
    other = model.terms(batch(model, [[-1, 2]] * 3))
    together = whole.kl_characteristic + none.kl_characteristic
    assert (half.kl_characteristic + other.kl_characteristic).tolist() == pytest.approx(together.tolist(), rel=1e-5)
    assert (half.label + other.label).tolist() == pytest.approx(whole.label.tolist(), rel=1e-5)


def test_without_labels_it_is_equation_5_in_the_mean() -> None:
    model = make(DIVA, MIXED)
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(2)).expand(4000, 1, 32, 32)
    given = batch(model, [[-1, -1]] * 4000, image=image)
    found = model.terms(given).kl_characteristic
    noise = Noise(torch.Generator().manual_seed(5))
    q = model.posterior(given)
    jensen = exact_terms(model, q, given.labels, lambda z: z[:, 0] * 0, noise, jensen=True).kl_characteristic
    near = 4 * (found.std() / 4000**0.5 + jensen.std() / 4000**0.5).item()
    assert found.mean().item() == pytest.approx(jensen.mean().item(), abs=near)
