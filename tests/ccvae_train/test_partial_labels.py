"""Images that show some labels and not others, under the paper's estimator, against its definition on a grid over z."""

import itertools

import pytest
import torch
from torch.nn.functional import logsigmoid

from ccvae_train.networks import CCVAE
from ccvae_train.objective import Labels, paper_terms
from ccvae_train.objective.terms import log_normal

from .vectors import (
    EQUATION_5,
    LOC,
    PRIOR,
    SCALE,
    VECTORS,
    both,
    log_likelihood,
    noise,
    posterior_of,
    vector_model,
)

CASES = [(1, -1), (0, -1), (-1, 1), (-1, 0)]
COUNT = 4000


def bound_by_grid(model: CCVAE, shown: tuple[int, int]) -> torch.Tensor:
    """Eq. 4 for the labels s that are shown with the sum of eq. 5 over those that are missing (-1), m; plus 9000:

    E_q[ w sum_m q(m|z) log( p(x|z) p(z|y) p(m) / (q(y|z) q(z|x)) ) ] + log q(s|x) + log p(s)

    with y both and w = q(s|z) / q(s|x).
    """
    t = torch.linspace(-9, 9, 201, dtype=torch.float64)
    z = torch.cartesian_prod(*(loc + scale * t for loc, scale in zip(LOC[0], SCALE[0], strict=True)))
    log_q_z = log_normal(z, LOC, SCALE).sum(1)
    logits, mass = model.classifier(z), log_q_z.softmax(0)
    log_q_y = torch.stack([logsigmoid(-logits), logsigmoid(logits)])
    log_p_z = torch.stack([log_normal(z, *model.conditional_prior(torch.full((1, 2), y).double())) for y in (0, 1)])
    log_p_y = torch.stack([1 - PRIOR, PRIOR]).log()
    known, missing = ([i for i in range(2) if (shown[i] < 0) == hidden] for hidden in (False, True))

    def over(labels, table: torch.Tensor, y: tuple[int, ...]) -> torch.Tensor:
        return sum((table[y[i], ..., i] for i in labels), torch.zeros((), dtype=torch.float64))

    log_q_x = (mass * over(known, log_q_y, shown).exp()).sum().log()
    bound = log_q_x + over(known, log_p_y, shown)
    for y in itertools.product((0, 1), repeat=2):
        if all(y[i] == shown[i] for i in known):
            log_q = over(range(2), log_q_y, y)
            ratio = log_likelihood(z) + 9000 + over(range(2), log_p_z, y) + over(missing, log_p_y, y) - log_q - log_q_z
            bound = bound + (mass * (log_q - log_q_x).exp() * ratio).sum()
    return bound


def test_the_grid_gives_the_vectors() -> None:
    model = vector_model()
    for y, (bound, *_) in VECTORS.items():
        assert bound_by_grid(model, y).item() == pytest.approx(bound + 9000, abs=1e-6)
    assert bound_by_grid(model, (-1, -1)).item() == pytest.approx(EQUATION_5 + 9000, abs=1e-6)


def test_the_papers_loss_is_its_definition() -> None:
    """All cases in one batch; the classifier's slope too, of which a missing label's is the score function's."""
    model = vector_model()
    values = torch.tensor(CASES).repeat(COUNT, 1)
    labels = Labels(model.states.of_values(values).double(), values >= 0, both(PRIOR).log())
    terms = paper_terms(model, posterior_of(len(values)), labels, lambda z: log_likelihood(z) + 9000, noise(3))
    expected, head = [bound_by_grid(model, case) for case in CASES], (model.classifier.weight, model.classifier.bias)
    for bound, found in zip(expected, terms.bound.view(COUNT, len(CASES)).unbind(1), strict=True):
        near = 5 * found.std().item() / COUNT**0.5
        assert found.mean().item() == pytest.approx(bound.item(), abs=near)
        assert near < 0.15
        slope, by_grid = (
            torch.cat(torch.autograd.grad(one, head, retain_graph=True)).tolist() for one in (found.mean(), bound)
        )
        assert slope == pytest.approx(by_grid, abs=0.06)
    assert terms.loss(0.0).item() == pytest.approx(-sum(expected).item() / len(CASES), abs=0.05)
