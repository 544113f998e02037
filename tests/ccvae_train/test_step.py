"""What the settings of the bound make of the loss of a training step: the same images, weights and noise otherwise."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from ccvae_train import training
from ccvae_train.config import make_config
from ccvae_train.datasets.source import settled
from ccvae_train.device import choose_device
from ccvae_train.loop import Fit, batch_of, one_step
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
