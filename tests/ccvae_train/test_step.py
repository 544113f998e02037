"""What the settings of the bound make of the loss of a training step: the same images, weights and noise otherwise."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from ccvae_train import training
from ccvae_train.config import make_config
from ccvae_train.datasets.source import settled
from ccvae_train.device import choose_device
from ccvae_train.loop import Fit, batch_of, learning_rate, one_step
from ccvae_train.objective import value_weights
from ccvae_train.objective.exact import DRAWS
from ccvae_train.ranks import Ranks

from .made_bars import SMALL

pytestmark = pytest.mark.usefixtures("made_bars")
ROWS = np.arange(64)


def fit_of(**settings: object) -> Fit:
    """A run before its first step; labels of a quarter of the images are shown."""
    config = settled(make_config(SMALL | {"supervision": 0.25, "agreement_weight": 0.0, "image_size": 32} | settings))
    return training.prepare(config, choose_device("cpu", "fp32"), Ranks())


def loss_of(fit: Fit) -> float:
    one_step(fit, ROWS)
    return fit.sums["loss"].item()


@torch.no_grad()
def gap_of(fit: Fit) -> torch.Tensor:
    """E_q(z|x) KL(q(y|z_c) || p(y|z_c)) over the missing labels of every image, at the draws of the step, (N,)."""
    batch = batch_of(fit, ROWS)
    q, split = fit.model.posterior(batch), fit.layout.z_c
    z = q.loc[:, None, :split] + q.scale[:, None, :split] * torch.randn(
        (len(ROWS), DRAWS, split), generator=fit.device.generator(fit.config.seed, 0)
    )
    no, yes = (Normal(*fit.model.conditional_prior(torch.full((1, split), value))).log_prob(z) for value in (0.0, 1.0))
    odds = yes - no + torch.from_numpy(fit.prior).float().logit()
    divergence = kl_divergence(Bernoulli(logits=fit.model.classifier(z)), Bernoulli(logits=odds))
    return (divergence.mean(1) * ~batch.labels.observed).sum(1)


def test_the_bound_of_eq_5_lies_below_the_mixture_by_what_the_classifier_misses() -> None:
    exact, jensen = fit_of(), fit_of(unlabelled="jensen")
    shown = torch.from_numpy((exact.shown[ROWS] >= 0).all(1))
    assert 0 < shown.sum() < len(shown)
    gap = gap_of(exact)
    with torch.no_grad():
        mixture, below = exact.objective(ROWS), jensen.objective(ROWS)
    assert (mixture.bound - below.bound).tolist() == pytest.approx(gap.tolist(), abs=2e-3)
    assert gap[~shown].min() > 0.1
    assert torch.equal(below.bound[shown], mixture.bound[shown])
    for name in ("reconstruction", "kl_residual", "label_prior", "label"):
        assert torch.equal(getattr(below, name), getattr(mixture, name)), name
    assert loss_of(jensen) - loss_of(exact) == pytest.approx(gap.mean().item(), abs=2e-3)


@pytest.mark.parametrize("estimator", ["exact", "paper"])
def test_two_draws_are_the_mean_of_one_and_the_next(estimator: str) -> None:
    once, twice = fit_of(estimator=estimator), fit_of(estimator=estimator, draws=2)
    batch = batch_of(once, ROWS)
    with torch.no_grad():
        first, second = once.model.terms(batch), once.model.terms(batch)
        found = twice.objective(ROWS)
    for name, value in vars(found).items():
        mean = (getattr(first, name) + getattr(second, name)) / 2
        assert value.tolist() == pytest.approx(mean.tolist(), rel=1e-5, abs=1e-3), name
    assert ((first.reconstruction - second.reconstruction).abs() > 0.1).all()
    weight = once.config.label_weight
    one, two = first.loss(weight).item(), second.loss(weight).item()
    assert loss_of(once) == pytest.approx(one, rel=1e-6)
    assert loss_of(twice) == pytest.approx((one + two) / 2, rel=1e-6)
    assert abs(one - two) > 1e-4 * abs(one)


def test_rare_values_weigh_as_the_class_balance_says() -> None:
    fit = fit_of(class_balance=1.0, supervision=1.0)
    with torch.no_grad():
        even, uneven = fit_of(class_balance=0.0, supervision=1.0).objective(ROWS).label, fit.objective(ROWS).label
    state, weight = batch_of(fit, ROWS).labels.state, value_weights(fit.model.states, fit.log_prior.exp(), 1.0)
    assert weight.max() > 1.02 > 0.98 > weight.min()
    # every label's own log q is weighted by that of its value; here of two labels, so the mean lies between
    per_image = (state * weight) @ fit.model.states.membership
    assert (uneven / even >= per_image.min(1).values - 1e-5).all()
    assert (uneven / even <= per_image.max(1).values + 1e-5).all()


def test_labelled_images_come_more_often_at_first() -> None:
    fit = fit_of(labelled_passes=8.0, epochs=4)
    labelled = (fit.shown >= 0).any(1)
    shares = [labelled[fit.order(epoch)].mean() for epoch in range(4)]
    assert shares[0] > 1.5 * labelled.mean()
    assert shares == sorted(shares, reverse=True)


def test_images_are_moved_and_mirrored_where_that_is_asked() -> None:
    plain, moved, mirrored = (batch_of(fit_of(**options), ROWS).image for options in ({}, {"shift": 2}, {"flip": True}))
    # an image that is mirrored is its mirror image, and about half are
    same = (mirrored == plain).flatten(1).all(1)
    assert torch.equal(mirrored[~same], plain[~same].flip(3))
    assert 0.25 < same.float().mean() < 0.9
    places = [plain.roll((down, right), (2, 3))[..., 2:-2, 2:-2] for down in range(-2, 3) for right in range(-2, 3)]
    found = torch.stack([(place == moved[..., 2:-2, 2:-2]).flatten(1).all(1) for place in places])
    assert found.any(0).all()
    assert not (moved == plain).flatten(1).all(1).all()


def test_a_step_has_the_learning_rate_of_its_place_in_the_run() -> None:
    fit = fit_of(epochs=4)
    for step in (0, fit.steps // 2, fit.steps - 1):
        fit.step = step
        one_step(fit, ROWS)
        assert {group["lr"] for group in fit.optimiser.param_groups} == {
            learning_rate(step, fit.steps, fit.config.learning_rate)
        }


def test_the_matrices_of_encoder_and_decoder_decay_and_nothing_else() -> None:
    fit = fit_of(weight_decay=0.25)
    decaying = {id(p) for group in fit.optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    large = (*fit.model.encoder.parameters(), *fit.model.decoder.parameters())
    assert decaying == {id(parameter) for parameter in large if parameter.dim() > 1}
    assert {group["weight_decay"] for group in fit.optimiser.param_groups} == {0.25, 0.0}
