"""Labels of classes: their integrals and bounds by hand, beside binary labels, and what each value counts."""

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
