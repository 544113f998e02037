"""Labels of classes: their integrals and bounds by hand, beside binary labels, and what each value counts."""

import itertools
import math

import pytest
import torch

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.networks import CCVAE
from ccvae_train.noise import Noise
from ccvae_train.objective import (
    Labels,
    Posterior,
    exact_terms,
    paper_terms,
    value_weights,
)
from ccvae_train.objective.terms import log_normal
from ccvae_train.objective.tilted import tilt


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


HAIR = ("black", "blond", "brown")


def class_model(dims: int, residual: int = 0) -> CCVAE:
    """A categorical label of three classes whose classifier and conditional prior are not those of a new model."""
    torch.manual_seed(dims)
    label = Label(name="hair", kind="categorical", classes=HAIR, dims=dims)
    model = CCVAE(LabelSet(labels=(label,)), LatentLayout(blocks=(dims,), residual=residual), ImageSpec(size=32))
    with torch.no_grad():
        for parameter in (*model.classifier.parameters(), *model.conditional_prior.parameters()):
            parameter.copy_(torch.randn_like(parameter))
        model.conditional_prior.raw.add_(1.5)
    return model.double()


def classes_of(value: int, count: int, observed: bool = True) -> Labels:
    state = torch.eye(3, dtype=torch.float64)[value].expand(count, -1)
    shown = torch.full((count, 1), observed)
    return Labels(state, shown, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log(), complete=observed)


def drawn_block(dims: int, count: int = 400_000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    loc, scale = torch.randn(1, dims).double(), torch.rand(1, dims).double() + 0.3
    return loc, scale, loc + scale * torch.randn(count, dims).double()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_classes_against_importance_sampling_of_the_definition(dims: int, value: int) -> None:
    """log q(y|x) and KL(r||p(z|y)) of a categorical label; m_c = 1, between 1 and K, and K, with an empty z_s."""
    model, (loc, scale, z) = class_model(dims), drawn_block(dims)
    log_q_y = model.classifier(z).log_softmax(1)[:, value]
    log_q = log_q_y.logsumexp(0) - math.log(len(z))
    prior = model.conditional_prior(torch.eye(3, dtype=torch.float64)[value : value + 1])
    log_ratio = log_normal(z, loc, scale).sum(1) + log_q_y - log_q - log_normal(z, *prior).sum(1)
    kl = ((log_q_y - log_q).exp() * log_ratio).mean()
    count = 400
    with torch.no_grad():
        terms = exact_terms(
            model,
            Posterior(loc.expand(count, -1), scale.expand(count, -1)),
            classes_of(value, count),
            lambda z: 0 * z[:, 0],
            noise(0),
        )
    # one latent is integrated by quadrature; several by 64 draws, whose normalised weights leave a bias of about 1/64
    assert terms.label.mean().item() == pytest.approx(log_q.item(), abs=0.01 if dims == 1 else 0.03)
    assert terms.kl_characteristic.mean().item() == pytest.approx(kl.item(), abs=0.02 if dims == 1 else 0.08)
    assert terms.label_prior[0].item() == pytest.approx(math.log((0.2, 0.5, 0.3)[value]))


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize(("estimator", "jensen"), [(exact_terms, False), (exact_terms, True), (paper_terms, True)])
def test_missing_classes_are_summed_over(dims: int, estimator, jensen: bool) -> None:
    """Against eq. 5 and the exact mixture, summed by hand; the paper's estimator needs no draw of y either."""
    model, (loc, scale, z) = class_model(dims), drawn_block(dims)
    log_q_y, log_p_y = model.classifier(z).log_softmax(1), classes_of(0, 1).log_prior
    log_p_z = torch.stack(
        [log_normal(z, *model.conditional_prior(torch.eye(3).double()[k : k + 1])).sum(1) for k in range(3)], 1
    )
    joint = log_p_z + log_p_y
    inner = (log_q_y.exp() * (joint - log_q_y)).sum(1) if jensen else joint.logsumexp(1)
    expected = (inner - log_normal(z, loc, scale).sum(1)).mean()
    count = 20_000
    options = {"jensen": jensen} if estimator is exact_terms else {}
    with torch.no_grad():
        terms = estimator(
            model,
            Posterior(loc.expand(count, -1), scale.expand(count, -1)),
            classes_of(0, count, observed=False),
            lambda z: 0 * z[:, 0],
            noise(0),
            **options,
        )
    spread = 5 * terms.bound.std().item() / count**0.5
    assert terms.bound.mean().item() == pytest.approx(expected.item(), abs=spread + 0.01)
    assert spread < 0.1
    assert terms.label.abs().max() == 0


def test_labels_of_both_kinds_take_the_terms_they_have_alone() -> None:
    labels = LabelSet(
        labels=(
            Label(name="smiling"),
            Label(name="hair", kind="categorical", classes=HAIR, dims=1),
            Label(name="young", dims=2),
        )
    )
    model = CCVAE(labels, LatentLayout(blocks=(1, 1, 2), residual=1), ImageSpec(size=32)).double()
    torch.manual_seed(1)
    posterior = Posterior(torch.randn(1, 5).double(), torch.rand(1, 5).double() + 0.3)
    state = model.states.of_values(torch.tensor([[1, 2, 0]])).double()
    log_prior = torch.tensor([0.5, 0.5, 0.2, 0.5, 0.3, 0.6, 0.4], dtype=torch.float64).log()

    def label_term(shown: list[bool]) -> float:
        observed = torch.tensor([shown])
        batch = Labels(state, observed, log_prior, complete=all(shown))
        found = exact_terms(model, posterior, batch, lambda z: 0 * z[:, 0], noise(0))
        return found.label.item()

    parts = [label_term([i == j for j in range(3)]) for i in range(3)]
    assert label_term([True] * 3) == pytest.approx(sum(parts))
    q = model.classifier.matrix
    mean = posterior.loc[:, 1:2] @ q[1:2, 1:4] + model.classifier.bias[1:4]
    assert parts[1] == pytest.approx(mean.log_softmax(1)[0, 2].item(), abs=1.0)
    assert all(part < 0 for part in parts)


def test_rare_values_count_more_and_the_mean_weight_is_one() -> None:
    states = class_model(1).states
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert value_weights(states, prior, 0.0).tolist() == pytest.approx([1, 1, 1])
    assert value_weights(states, prior, 1.0).tolist() == pytest.approx([1 / 0.6, 1 / 1.5, 1 / 0.9])
    half = value_weights(states, prior, 0.5)
    assert (half * prior).sum().item() == pytest.approx(1)
    assert (half[0] / half[1]).item() == pytest.approx((0.5 / 0.2) ** 0.5)
    labels = Labels(torch.eye(3).double(), torch.tensor([[True], [True], [False]]), prior.log(), half)
    assert labels.weighted(torch.tensor([[-2.0], [-3.0], [-4.0]]).double(), states).tolist() == pytest.approx(
        [-2 * half[0].item(), -3 * half[1].item(), 0]
    )


def by_grid(model: CCVAE, posterior: Posterior, state: torch.Tensor, label: int) -> tuple[float, float, float]:
    """log q(y_i|x), KL(r_i||p(z_i|y_i)) and KL(q(z_i|x)||sum_y p(y) p(z_i|y)) of a label of one latent, y even."""
    t = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_weight = -t.square() / 2 - t.square().div(-2).logsumexp(0)
    loc, scale = posterior.loc[0, label], posterior.scale[0, label]
    z = torch.zeros(len(t), 3, dtype=torch.float64)
    z[:, label] = loc + scale * t
    mine = model.states.label == label
    log_q_y = (model.states.log_probabilities(model.classifier(z)) * state)[:, mine].sum(1)
    log_density = log_normal(z[:, label], loc, scale)

    def log_prior(y: torch.Tensor) -> torch.Tensor:
        prior_loc, prior_scale = model.conditional_prior.at(y)
        return log_normal(z[:, label], prior_loc[0, label], prior_scale[0, label])

    joint = log_q_y + log_weight
    log_q = joint.logsumexp(0)
    kl = ((joint - log_q).exp() * (log_density + log_q_y - log_q - log_prior(state))).sum()
    each = []
    for value in torch.eye(int(mine.sum()), dtype=torch.float64):
        y = state.clone()
        y[0, mine] = value
        each.append(log_prior(y) - math.log(len(value)))
    missing = (log_weight.exp() * (log_density - torch.stack(each).logsumexp(0))).sum()
    return log_q.item(), kl.item(), missing.item()


def test_terms_stand_with_their_own_labels_whatever_kinds_come_first() -> None:
    """A binary label between two of classes: what is integrated together is put back in the labels' order."""
    labels = LabelSet(
        labels=(
            Label(name="hair", kind="categorical", classes=HAIR, dims=1),
            Label(name="young"),
            Label(name="hat", kind="categorical", classes=("none", "cap", "helmet", "hood"), dims=1),
        )
    )
    torch.manual_seed(3)
    model = CCVAE(labels, LatentLayout(blocks=(1, 1, 1), residual=1), ImageSpec(size=32)).double()
    with torch.no_grad():
        for parameter in (*model.classifier.parameters(), *model.conditional_prior.parameters()):
            parameter.copy_(torch.randn_like(parameter))
        model.conditional_prior.raw.add_(1.0)
    one = Posterior(torch.randn(1, 4).double(), torch.rand(1, 4).double() + 0.3)
    state = model.states.of_values(torch.tensor([[2, 1, 3]])).double()
    found = tilt(model, Posterior(one.loc[:, :3], one.scale[:, :3]), state, noise())
    expected = [by_grid(model, one, state, label) for label in range(3)]
    assert found.log_q[0].tolist() == pytest.approx([log_q for log_q, _, _ in expected], abs=1e-6)
    assert found.kl[0].tolist() == pytest.approx([kl for _, kl, _ in expected], abs=1e-5)

    count = 4000
    many = Posterior(one.loc.expand(count, -1), one.scale.expand(count, -1))
    even = torch.cat([torch.full((n,), 1 / n) for n in (3, 2, 4)]).double().log()

    def divergence(shown: list[bool]) -> float:
        batch = Labels(state.expand(count, -1), torch.tensor([shown]).expand(count, -1), even, complete=all(shown))
        return exact_terms(model, many, batch, lambda z: 0 * z[:, 0], noise(0)).kl_characteristic.mean().item()

    for shown in itertools.product([True, False], repeat=3):
        total = sum(kl if is_shown else missing for is_shown, (_, kl, missing) in zip(shown, expected, strict=True))
        assert divergence(list(shown)) == pytest.approx(total, abs=0.02), shown
