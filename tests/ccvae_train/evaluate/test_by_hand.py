"""Protocols on latents against numbers: two labels whose integrals are known, and walks whose every z is known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ccvae_deploy.schema import Label, LabelSet, LatentLayout
from ccvae_train.evaluate import diagnostics, leakage, panels, traversals
from ccvae_train.evaluate.bench import Bench, Settings
from ccvae_train.evaluate.gradients import bound
from ccvae_train.evaluate.leakage import probe

from .by_hand import CPU, Toy, hand_made

TWO = LabelSet(labels=(Label(name="a"), Label(name="b")))
MIXED = LabelSet(labels=(Label(name="a"), Label(name="k", kind="categorical", classes=("x", "y", "z"))))
# by quadrature: log p(x, y) >= eq. 4 - log p(y), and log q(y|x)
EQ4 = {(0, 0): -3.6109012478, (0, 1): -4.2604035914, (1, 0): -2.7098634032, (1, 1): -3.1661265698}
LOG_Q = {(0, 0): -1.4863974025, (0, 1): -2.5584399668, (1, 0): -0.6562385340, (1, 1): -1.7282810982}


def log_prior(y: tuple[int, int]) -> float:
    return sum(math.log(p if value else 1 - p) for p, value in zip(Toy.PRIOR, y, strict=True))


@pytest.mark.parametrize("y", EQ4)
def test_the_hidden_label_weight_is_that_of_quadrature(y, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eq. 4 is E[w f] + log q(y|x) + log p(y)."""
    monkeypatch.setattr(diagnostics, "IMAGES", 500)
    monkeypatch.setattr(diagnostics, "DECODED", diagnostics.WEIGHTS)
    subject = Toy()
    # a quarter off in every pixel
    images = np.tile(Toy.LOC.numpy() + np.float32(0.25), (500, 1))
    values = np.tile(np.array(y), (500, 1))
    figures = diagnostics.run(Bench(subject, None, None, images, values, Toy.PRIOR, Settings())).figures
    assert figures["E[w]"] == pytest.approx(1, abs=0.02)
    assert figures["hidden label weight"] == pytest.approx(1 - (EQ4[y] - LOG_Q[y] - log_prior(y)), abs=0.1)
    assert figures["collapsed latents"] == 0
    assert figures["L1 of reconstructions"] == pytest.approx(0.25)


def test_latents_as_wide_as_their_prior_are_collapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "SCALE", torch.tensor([1.5, 1.1]))
    images, values = np.zeros((20, 2), np.float32), np.tile([1, 1], (20, 1))
    figures = diagnostics.run(Bench(Toy(), None, None, images, values, Toy.PRIOR, Settings())).figures
    assert figures["collapsed latents"] == 0.5
    monkeypatch.setattr(Toy, "SCALE", torch.tensor([1.5, 2.0]))
    figures = diagnostics.run(Bench(Toy(), None, None, images, values, Toy.PRIOR, Settings())).figures
    assert figures["collapsed latents"] == 1


@pytest.mark.parametrize("y", EQ4)
def test_eq_4_is_that_of_quadrature(y) -> None:
    values = torch.tensor(y).repeat(10_000, 1)
    found = bound(Toy(), torch.zeros(10_000, 2), values, stopped=True, generator=CPU.generator(0))
    assert found.item() == pytest.approx(EQ4[y] - log_prior(y), abs=0.08)


def test_the_stop_gradient_is_a_label_weight_of_minus_the_constant() -> None:
    """One label, q(z|x) = N(0.3, 0.7^2), q(y|z) = sigmoid(z): d log q(y|x) / dm is 0.3902, and a likelihood that is one
    constant of c adds -c times that, where without the stop it adds nothing.
    """
    loc = torch.tensor([0.3], requires_grad=True)

    def slope(constant: float, stopped: bool) -> float:
        model = SimpleNamespace(
            encoder=lambda image: (loc.expand(len(image), 1), torch.full((len(image), 1), 0.7)),
            decoder=lambda z: z,
            classifier=lambda z: z,
            conditional_prior=lambda y: (torch.zeros_like(y), torch.ones_like(y)),
        )
        subject = SimpleNamespace(
            four=model,
            labels=LabelSet(labels=(Label(name="a"),)),
            layout=LatentLayout(blocks=(1,), residual=0),
            log_likelihood=lambda image, mean: constant + 0 * mean[:, 0],
        )
        values = torch.ones(10_000, 1, dtype=torch.int64)
        (found,) = torch.autograd.grad(bound(subject, values, values, stopped=stopped, generator=CPU.generator(0)), loc)
        return found.item()

    assert (slope(-9300.0, True) - slope(0.0, True)) / 9300 == pytest.approx(0.3902, abs=0.005)
    assert (slope(-9300.0, False) - slope(0.0, False)) / 9300 == pytest.approx(0, abs=0.005)


def test_leakage_reads_the_latents_that_it_names() -> None:
    """The labels stand in their own latents, and nothing of them in z_s."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (400, 2))
    means = rng.standard_normal((400, 4))
    means[:, :2] += 20 * values
    bench = hand_made(TWO, LatentLayout(blocks=(1, 1), residual=2), means, values)
    figures = leakage.run(bench).figures
    assert figures["labels from their own z_i"] == 1
    assert figures["labels from z_s"] == pytest.approx(0.5, abs=0.1)


def test_rare_values_count_as_much_in_the_probe() -> None:
    """Two normals 1.5 apart, one of them of a twentieth: the balanced cut is half-way, the likeliest far off."""
    rng = np.random.default_rng(0)
    values = (rng.random(4000) < 0.05).astype(int)
    latents = (rng.standard_normal(4000) + 1.5 * values)[:, None].astype(np.float32)
    assert probe(latents, values, 2) == pytest.approx((1 + math.erf(0.75 / math.sqrt(2))) / 2, abs=0.04)


def means_of(count: int, width: int, spread: float = 100.0) -> np.ndarray:
    return np.random.default_rng(1).normal(0, spread, (count, width))


def test_every_strip_walks_its_own_block_and_the_grid_both() -> None:
    """p(z_i|y_i) has means 10 i and 10 i + 1 and scale 1/4, so that an axis goes from 10 i - 1/2 to 10 i + 3/2."""
    bench = hand_made(TWO, LatentLayout(blocks=(1, 2), residual=2), means_of(40, 5), np.zeros((40, 2), int))
    traversals.run(bench)
    first, second, grid = bench.subject.decoded
    kept, line = bench.subject.means[0], np.linspace(-0.5, 1.5, traversals.STEPS)
    assert first[:, 0] == pytest.approx(line)
    assert (first[:, 1:] == kept[1:]).all()
    assert second[:, 1:3] == pytest.approx(np.stack([10 + line] * 2, axis=1))
    assert (second[:, [0, 3, 4]] == kept[[0, 3, 4]]).all()
    square = grid.reshape(traversals.STEPS, traversals.STEPS, 5)
    assert square[..., 0] == pytest.approx(np.stack([line] * traversals.STEPS, axis=1))
    assert square[..., 1] == pytest.approx(np.stack([10 + line] * traversals.STEPS, axis=0))
    assert (square[..., 3:] == kept[3:]).all()


def test_corners_of_classes_stay_among_real_latents() -> None:
    means = means_of(40, 5, spread=0.1)
    means[:, 2] += 100
    bench = hand_made(MIXED, LatentLayout(blocks=(1, 2), residual=2), means, np.zeros((40, 2), int))
    traversals.run(bench)
    walked, strip = bench.subject.decoded
    low, high = np.percentile(bench.subject.means, [1, 99], axis=0)
    assert (walked[:, 1:3] >= low[1:3] - 1e-4).all()
    assert (walked[:, 1:3] <= high[1:3] + 1e-4).all()
    assert len(strip) == traversals.STEPS


def test_several_draws_of_one_row_share_their_z_s() -> None:
    bench = hand_made(TWO, LatentLayout(blocks=(1, 1), residual=3), means_of(20, 5), np.zeros((20, 2), int))
    panels.run_diversity(bench)
    assert len(bench.subject.decoded) == panels.ROWS
    for z in bench.subject.decoded:
        assert (z[:, 2:] == z[0, 2:]).all()
        assert (np.ptp(z[:, :2], axis=0) > 0).all()
    assert np.ptp([z[0, 2] for z in bench.subject.decoded]) > 0
