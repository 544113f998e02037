"""Numeric vectors of a small model, the agreement of the two estimators, and the gradients of the stop-gradient toy."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.networks import CCVAE
from ccvae_train.objective import (
    Labels,
    Posterior,
    Terms,
    bernoulli_log_likelihood,
    exact_terms,
    laplace_log_likelihood,
    paper_terms,
)
from ccvae_train.objective.terms import log_normal
from ccvae_train.objective.tilted import tilt
from ccvae_train.quadrature import label_integrals, tilted_moments

from .vectors import (
    BIAS,
    EQUATION_5,
    EXACT_MIXTURE,
    LOC,
    PRIOR,
    SCALE,
    VECTORS,
    WEIGHT,
    both,
    labels_of,
    log_likelihood,
    made_model,
    noise,
    posterior_of,
    vector_model,
)


@pytest.fixture
def toy() -> CCVAE:
    return vector_model()


@pytest.mark.parametrize("y", VECTORS)
def test_quadrature_gives_the_vectors(y: tuple[int, int]) -> None:
    _, log_q, minus_kl = VECTORS[y]
    found = label_integrals(LOC, SCALE, WEIGHT, BIAS, torch.eye(2).double(), torch.tensor([y], dtype=torch.float64))
    assert found.log_q.sum().item() == pytest.approx(log_q, abs=1e-9)
    assert (found.log_q - found.expected_log_q).sum().item() == pytest.approx(minus_kl, abs=1e-6)


@pytest.mark.parametrize("y", VECTORS)
def test_equation_4_from_moments(toy: CCVAE, y: tuple[int, int]) -> None:
    """E_r[log p(x|z)] is a polynomial here, so the moments of r and the analytic terms give eq. 4 to the last digit."""
    membership = toy.states.latents.double()
    found = label_integrals(LOC, SCALE, WEIGHT, BIAS, membership, torch.tensor([y], dtype=torch.float64))
    (a, b), (variance, _) = (row[0] for row in tilted_moments(LOC, SCALE, WEIGHT, membership, found))
    reconstruction = -9000 + 0.8 * a - 0.5 * b + 0.3 * a * b - 0.1 * (a.square() + variance)
    terms = exact_terms(toy, posterior_of(1), labels_of(y, 1), log_likelihood, noise())
    bound = reconstruction - terms.kl_residual - terms.kl_characteristic + terms.label_prior
    assert bound.item() == pytest.approx(VECTORS[y][0], abs=2e-6)
    assert terms.label.item() == pytest.approx(VECTORS[y][1], abs=1e-9)


@pytest.mark.parametrize("y", VECTORS)
@pytest.mark.parametrize("estimator", [exact_terms, paper_terms])
def test_both_estimators_agree_with_equation_4_in_expectation(toy: CCVAE, y: tuple[int, int], estimator) -> None:
    """The constant -9000 is taken out of the paper's draw, whose weight would blow its noise up 9000-fold."""
    count = 40_000
    generator = noise(3)
    with torch.no_grad():
        found = estimator(
            toy, posterior_of(count), labels_of(y, count), lambda z: log_likelihood(z) + 9000, generator
        ).bound
    expected = VECTORS[y][0] + 9000
    assert found.mean().item() == pytest.approx(expected, abs=5 * found.std().item() / count**0.5 + 0.02)
    assert found.std().item() / count**0.5 < 0.02


@pytest.mark.parametrize(("jensen", "expected"), [(False, EXACT_MIXTURE), (True, EQUATION_5)])
def test_missing_labels_take_the_mixture_or_equation_5(toy: CCVAE, jensen: bool, expected: float) -> None:
    count = 40_000
    with torch.no_grad():
        terms = exact_terms(
            toy,
            posterior_of(count),
            labels_of((0, 0), count, False),
            log_likelihood,
            noise(1),
            jensen=jensen,
        )
    assert terms.bound.mean().item() == pytest.approx(expected, abs=0.02)
    assert terms.label.abs().max() == 0


def test_the_papers_unsupervised_bound_is_equation_5(toy: CCVAE) -> None:
    count = 60_000
    with torch.no_grad():
        terms = paper_terms(toy, posterior_of(count), labels_of((0, 0), count, False), log_likelihood, noise(1))
    assert terms.bound.mean().item() == pytest.approx(EQUATION_5, abs=0.03)


def test_labels_missing_one_by_one_add_up(toy: CCVAE) -> None:
    """With label 0 shown and label 1 missing, each contributes the term it has alone (docs/mathematics.md, 2)."""
    count = 4000
    state = labels_of((1, 0), count).state
    shown = torch.tensor([[True, False]]).expand(count, -1)
    with torch.no_grad():
        mixed, full, other, none = (
            exact_terms(toy, posterior_of(count), Labels(state, mask, both(PRIOR).log()), log_likelihood, noise(5))
            for mask in (shown, torch.ones_like(shown), ~shown, torch.zeros_like(shown))
        )
    alone = label_integrals(LOC, SCALE, WEIGHT, BIAS, torch.eye(2).double(), torch.tensor([[1.0, 0.0]]).double())
    assert mixed.label[0].item() == pytest.approx(alone.log_q[0, 0].item())
    assert mixed.label_prior[0].item() == pytest.approx(math.log(0.3))
    # the same draws throughout, so the terms of either label are equal wherever they are the same
    kl_mixed, kl_full, kl_other, kl_none = (one.kl_characteristic for one in (mixed, full, other, none))
    torch.testing.assert_close(kl_mixed + kl_other, kl_full + kl_none)
    assert (kl_full - kl_none).abs().min() > 0.01


def toy_gradient(estimator, constant: float, count: int) -> torch.Tensor:
    """d bound / dm of the toy below, draw by draw, (count, 1)."""
    loc = torch.full((count, 1), 0.3, dtype=torch.float64, requires_grad=True)
    terms = estimator(
        made_model((1,)),
        Posterior(loc, torch.full_like(loc, 0.7)),
        labels_of((1,), count, prior=torch.tensor([0.5], dtype=torch.float64)),
        lambda z: constant + z[:, 0] / 2,
        noise(0),
    )
    return torch.autograd.grad((terms.reconstruction + terms.label).sum(), loc)[0]


@pytest.mark.parametrize(("constant", "stopped"), [(0.0, 0.7944), (-9300.0, 3629.63), (5000.0, -1950.19)])
def test_gradient_of_the_stop_gradient_toy(constant, stopped) -> None:
    """One label, q(z|x) = N(0.3, 0.7^2), classifier sigmoid(z), log-ratio c + z / 2 (docs/mathematics.md, 5):
    d bound / dm with the bound E_r[log-ratio] + log q(y|x), which for the exact estimator may not depend on c.
    Exactly it is 0.8422; the gradient of the pick is left out."""
    gradient = toy_gradient(exact_terms, constant, 60_000)
    assert gradient.mean().item() == pytest.approx(0.8902, abs=0.004)
    assert abs(stopped - gradient.mean().item()) > 0.03


def test_a_constant_of_the_likelihood_moves_no_gradient() -> None:
    """Draw by draw, not only on average."""
    found = [toy_gradient(exact_terms, constant, 500) for constant in (0.0, -9300.0, 5000.0)]
    assert (found[0] - found[1]).abs().max() < 1e-9
    assert (found[0] - found[2]).abs().max() < 1e-9


@pytest.mark.parametrize(("constant", "expected"), [(0.0, 0.7944), (-9300.0, 3629.63), (5000.0, -1950.19)])
def test_the_papers_gradient_hides_a_label_weight(constant: float, expected: float) -> None:
    """The same toy under the paper's stop-gradient, by its own reconstruction term: the extra multiple of
    d log q(y|x)/dm = 0.3902 is 1 - E[w f], about -c (docs/mathematics.md, 5)."""
    gradient = toy_gradient(paper_terms, constant, 20_000)
    assert gradient.mean().item() == pytest.approx(expected, rel=0.02, abs=0.02)


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.1, 1e-9), (1.0, 1e-9), (3.0, 2e-7), (5.0, 1e-6), (12.5, 1e-6)])
def test_quadrature_against_a_fine_grid(deviation: float, tolerance: float) -> None:
    """Also where the classifier is so far wrong that the tilt moves the mass by a whole deviation."""
    means = torch.cat([torch.linspace(-12, 12, 25), torch.tensor([-40.0, -(deviation**2) - 20])]).double().unsqueeze(1)
    ones = torch.ones(1).double()
    found = label_integrals(
        means, torch.full_like(means, deviation), ones, 0 * ones, torch.ones(1, 1).double(), torch.ones_like(means)
    )
    t = torch.linspace(-30, 30, 40_001, dtype=torch.float64)
    log_density = -t.square() / 2 - t.square().div(-2).logsumexp(0)
    joint = logsigmoid(means + deviation * t) + log_density
    expected = joint.logsumexp(1)
    assert (found.log_q[:, 0] - expected).abs().max() < tolerance
    moment = ((joint - expected[:, None]).exp() * t).sum(1)
    assert (found.mean[:, 0] - moment).abs().max() < 30 * tolerance


def test_three_classes_on_one_latent_against_a_fine_grid() -> None:
    """Slopes far apart, so that classes take turns within a fraction of the posterior's deviation."""
    labels = LabelSet(labels=(Label(name="hat", kind="categorical", classes=("none", "cap", "helmet"), dims=1),))
    model = CCVAE(labels, LatentLayout(blocks=(1,), residual=1), ImageSpec(size=32)).double()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([-6.0, 0.0, 6.0]))
    loc = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    t = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    log_density = -t.square() / 2 - t.square().div(-2).logsumexp(0)
    logits = model.classifier((loc + 1.5 * t)[..., None])
    for state in torch.eye(3, dtype=torch.float64):
        expected = ((logits.log_softmax(-1) * state).sum(-1) + log_density).logsumexp(1)
        found = tilt(model, Posterior(loc, torch.full_like(loc, 1.5)), state.expand(9, 3), noise()).log_q[:, 0]
        assert (found - expected).abs().max() < 1e-7


def test_several_latents_per_label() -> None:
    """KL(r||p) of a block of three latents against importance sampling of the definition."""
    torch.manual_seed(0)
    model = made_model((3,), residual=2)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([0.9, -0.4, 0.3]))
    loc, scale = torch.randn(1, 5).double(), torch.rand(1, 5).double() + 0.3
    y = torch.ones(1, 1).double()
    terms = exact_terms(
        model,
        Posterior(loc, scale),
        labels_of((1,), 1, prior=torch.tensor([0.4], dtype=torch.float64)),
        lambda z: 0 * z[:, 0],
        noise(0),
    )
    z = loc[:, :3] + scale[:, :3] * torch.randn(400_000, 3).double()
    log_q_y = logsigmoid(model.classifier(z)).sum(1)
    log_w = log_q_y - (log_q_y.logsumexp(0) - math.log(len(z)))
    log_ratio = (
        log_normal(z, loc[:, :3], scale[:, :3]).sum(1) + log_w - log_normal(z, *model.conditional_prior(y)).sum(1)
    )
    assert terms.kl_characteristic.item() == pytest.approx((log_w.exp() * log_ratio).mean().item(), abs=0.02)


def test_a_bernoulli_likelihood_reaches_pixels_that_are_black() -> None:
    """At a logit of -12 the Laplace's gradient is lost in the sigmoid's slope; the Bernoulli's is image - mean."""
    image = torch.tensor([[[[1.0, 0.25]]]])
    logit = torch.tensor([[[[-12.0, 0.5]]]], requires_grad=True)
    found = bernoulli_log_likelihood(image, logit.sigmoid())
    x = logit.detach()
    by_hand = (image * logsigmoid(x) + (1 - image) * logsigmoid(-x)).sum()
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), logit)
    assert gradient.flatten().tolist() == pytest.approx((image - x.sigmoid()).flatten().tolist(), rel=1e-3)
    assert bernoulli_log_likelihood(image, torch.tensor([[[[0.5, torch.nan]]]])).isnan().all()
    (lost,) = torch.autograd.grad(laplace_log_likelihood(image, logit.sigmoid(), 0.15).sum(), logit)
    assert lost[..., 0].abs().max() < 1e-4


def test_several_draws_average_every_term() -> None:
    one = Terms(*(torch.full((2,), float(i)) for i in range(5)))
    two = Terms(*(torch.full((2,), float(i + 4)) for i in range(5)))
    assert [value.tolist() for value in vars(Terms.average([one, two])).values()] == [[i + 2.0] * 2 for i in range(5)]
