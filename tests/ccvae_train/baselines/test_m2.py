"""M2's bounds against sums over y by hand, and the gradient of its draws."""

import itertools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ccvae_train.baselines.m2 import M2, TEMPERATURE, columns_of, straight_through
from ccvae_train.noise import Noise

from .toy import BINARY, MIXED, SINGLE, batch, log_likelihood, make


def test_the_labelled_bound() -> None:
    model, values = make(M2, MIXED), torch.tensor([[0, 2], [1, 1], [1, 0]])
    given = batch(model, values)
    features = model.encoder.features(given.image)
    y = torch.tensor([[0.0, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]])
    loc, scale = model.encoder.latents(features, y)
    noise = Noise(torch.Generator().manual_seed(1))
    noise.uniform((3, 5))  # the draw of labels, of which none is missing
    z = loc + scale * noise.normal(loc.shape, loc)
    logits = model.encoder.label_head(features)
    expected = log_likelihood(given.image, model.decoder(torch.cat([z, y], 1)))
    expected = expected - kl_divergence(Normal(loc, scale), Normal(torch.zeros(1), torch.ones(1))).sum(1)
    a, k = torch.tensor([0.7, 0.3, 0.3]).log(), torch.tensor([1 / 6, 1 / 3, 1 / 2]).log()
    told = torch.distributions.Bernoulli(logits=logits[:, 0]).log_prob(y[:, 0]) + (
        logits[:, 1:].log_softmax(1) * y[:, 1:]
    ).sum(1)
    terms = model.terms(given)
    assert terms.bound.tolist() == pytest.approx((expected + a + k).tolist(), rel=1e-5)
    assert terms.loss(11.0).item() == pytest.approx(-(expected + a + k + 11 * told).mean().item(), rel=1e-5)


def test_one_missing_label_is_summed_over() -> None:
    """L_u = sum_y q(y|x) L_s(x,y) + H(q(y|x)), image by image, beside images that show theirs."""
    model = make(M2, SINGLE)
    by_value = torch.stack([model.terms(batch(model, [[k]] * 4)).bound for k in range(3)], dim=1)
    q = model.read(batch(model, [[0]] * 4).image)[1].softmax(1)
    expected = (q * by_value).sum(1) - (q * q.log()).sum(1)
    terms = model.terms(batch(model, [[-1], [2], [-1], [0]]))
    expected[1], expected[3] = by_value[1, 2], by_value[3, 0]
    assert terms.bound.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert terms.label[[0, 2]].tolist() == [0, 0]


def test_several_missing_labels_are_right_in_the_mean() -> None:
    model, count = make(M2, BINARY), 4000
    with torch.no_grad():
        model.encoder.head.bias[model.layout.size :] = -12.0  # z without noise, so that y alone is random
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(2)).expand(count, 1, 32, 32)
    found = model.terms(batch(model, [[-1, -1]] * count, image=image)).bound
    logits = model.read(image[:1])[1]
    expected = 0.0
    for y in itertools.product((0, 1), repeat=2):
        log_q = torch.distributions.Bernoulli(logits=logits[0]).log_prob(torch.tensor([float(v) for v in y])).sum()
        expected += (log_q.exp() * (model.terms(batch(model, [list(y)], image=image[:1])).bound[0] - log_q)).item()
    near = 4 * found.std().item() / count**0.5 + 0.5
    assert near < 0.02 * abs(expected)
    assert found.mean().item() == pytest.approx(expected, abs=near)


def test_draws_are_whole_values_of_the_right_frequency_with_a_relaxed_gradient() -> None:
    model = make(M2, MIXED)
    logits = torch.tensor([0.8, 0.1, -0.6, 1.0]).expand(20_000, 4).clone().requires_grad_()
    log_q = model.states.log_probabilities(logits)
    state = straight_through(log_q, model.states, Noise(torch.Generator().manual_seed(0)))
    assert torch.isclose(state, state.round(), atol=1e-5).all()
    assert columns_of(state, model.states)[:, 1:].sum(1).tolist() == pytest.approx([1.0] * 20_000, abs=1e-4)
    assert state.mean(0).tolist() == pytest.approx(log_q[0].exp().tolist(), abs=0.015)
    weight = torch.tensor([0.0, 1, 2, -1, 3])
    (found,) = torch.autograd.grad((state * weight).sum(), logits)
    again = logits.detach().clone().requires_grad_()
    uniform = Noise(torch.Generator().manual_seed(0)).uniform((20_000, 5)).clamp(1e-7, 1 - 1e-7)
    perturbed = (model.states.log_probabilities(again) - (-uniform.log()).log()) / TEMPERATURE
    relaxed = torch.cat([perturbed[:, :2].softmax(1), perturbed[:, 2:].softmax(1)], dim=1)
    (expected,) = torch.autograd.grad((relaxed * weight).sum(), again)
    assert torch.isclose(found, expected, rtol=1e-3, atol=1e-4).all()


@pytest.mark.parametrize("values", [[[-1, -1]] * 4, [[0, 2]] * 4, [[0, -1]] * 4], ids=["none", "all", "some"])
def test_every_parameter_is_in_every_loss(values) -> None:
    model = make(M2, MIXED)
    model.terms(batch(model, values)).loss(1.0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_change_is_one_of_y_alone() -> None:
    model = make(M2, MIXED)
    image = batch(model, [[0, 0]] * 3).image
    code, logits = model.read(image)
    changed = model.changed(image, torch.tensor([[-1, 1]] * 3))
    assert (changed[:, :6] == code[:, :6]).all()
    assert changed[:, 6:].tolist() == [[0, 1, 0]] * 3
    assert (code[:, 5] == (logits[:, 0] > 0)).all()
