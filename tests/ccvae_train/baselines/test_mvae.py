"""MVAE: the product of experts against a numeric one, its three bounds, and what a missing label changes."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ccvae_train.baselines.mvae import MVAE, product
from ccvae_train.objective import Posterior

from .toy import MIXED, batch, log_likelihood, make


def test_the_product_of_experts_is_the_normalised_product_of_densities() -> None:
    t = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    experts = [(0.0, 1.0), (1.5, 0.6), (-2.0, 2.0), (0.7, 1.3)]
    density = torch.stack([Normal(m, s).log_prob(t) for m, s in experts]).sum(0).exp()
    density = density / density.sum()
    mean = (density * t).sum()
    scale = (density * (t - mean) ** 2).sum().sqrt()
    precision = [torch.tensor([[s**-2]]) for _, s in experts]
    labels = sum(precision[2:]), sum(p * m for p, (m, _) in zip(precision[2:], experts[2:], strict=True))
    found = product(Posterior(torch.tensor([[1.5]]), torch.tensor([[0.6]])), labels)
    assert found.loc.item() == pytest.approx(mean.item(), abs=1e-5)
    assert found.scale.item() == pytest.approx(scale.item(), abs=1e-5)


def test_three_bounds_of_an_image_with_labels_and_one_without() -> None:
    model, values = make(MVAE, MIXED), torch.tensor([[1, 2], [-1, -1], [0, 0]])
    given = batch(model, values, done=0.1)
    loc, scale = model.encoder(given.image)
    sums = model.experts(model.states.of_values(values) * (values[:, :1] >= 0))
    expert, standard = Posterior(loc, scale), Normal(torch.zeros(1), torch.ones(1))
    generator = torch.Generator().manual_seed(1)
    bounds, told = [], []
    for q, seen in ((product(expert, sums), True), (product(expert), True), (product(None, sums), False)):
        z = q.loc + q.scale * torch.randn(q.loc.shape, generator=generator)
        bound = -0.5 * kl_divergence(Normal(q.loc, q.scale), standard).sum(1)
        bounds.append(bound + log_likelihood(given.image, model.decoder(z)) if seen else bound)
        log_p = model.states.log_probabilities(model.label_decoder(z))
        told.append((log_p * model.states.of_values(values)).sum(1))
    expected = torch.stack([bounds[0] + bounds[1] + bounds[2] + 4 * (told[0] + told[2])])[0]
    expected[1] = bounds[1][1]
    terms = model.terms(given)
    assert terms.beta.tolist() == pytest.approx([0.5] * 3)
    assert terms.loss(4.0).item() == pytest.approx(-expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize(("done", "beta"), [(0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)])
def test_beta_rises_over_the_first_fifth(done: float, beta: float) -> None:
    model = make(MVAE, MIXED)
    assert model.terms(batch(model, [[0, 0]], done=done)).beta.item() == pytest.approx(beta)


def test_the_expert_of_a_missing_label_has_no_say() -> None:
    model = make(MVAE, MIXED)
    before = model.terms(batch(model, [[1, -1]] * 3))
    before.loss(1.0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.experts.loc.grad[[0, 2, 3, 4]].abs().max() == 0
    assert model.experts.loc.grad[1].abs().min() > 0
    with torch.no_grad():
        model.experts.loc[2:] += 5
    after = model.terms(batch(model, [[1, -1]] * 3))
    assert before.loss(2.0).item() == after.loss(2.0).item()


def test_codes_follow_the_experts_of_what_is_asked() -> None:
    model = make(MVAE, MIXED)
    with torch.no_grad():
        model.experts.loc[1] = 50.0
    image = batch(model, [[0, 0]] * 3).image
    code, _ = model.read(image)
    assert (model.changed(image, torch.tensor([[-1, -1]] * 3)) == code).all()
    assert (model.changed(image, torch.tensor([[1, -1]] * 3)) > code).all()
    noise = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    made = model.generated(torch.tensor([[1, -1]] * 2000), noise)
    precision = 1 + (torch.nn.functional.softplus(model.experts.raw[1]) + 1e-3) ** -2
    assert made.mean(0).tolist() == pytest.approx((50 * (precision - 1) / precision).tolist(), abs=0.1)
    assert made.std(0).tolist() == pytest.approx(precision.rsqrt().tolist(), rel=0.1)
