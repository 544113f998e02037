"""The truncated normal against its definition, and draws beyond a boundary against plain rejection sampling."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_deploy.edits.conditioned import (
    draw_beyond,
    inside,
    inverse_log_survival,
    log_survival,
    mean_beyond,
    truncated_mean,
    truncated_normal,
)
from ccvae_deploy.interventions import Block

WEIGHT, BIAS = np.float32([1.2, -0.4, 0.7]), 0.3
LOC, SCALE = np.float32([0.5, 1.0, -1.5]), np.float32([0.6, 1.4, 0.9])


def block(count: int) -> Block:
    return Block(np.tile(LOC, (count, 1)), np.tile(SCALE, (count, 1)))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_survival_at_known_points() -> None:
    normal = NormalDist()
    for t in (-8.0, -3.0, -0.1, 0.0, 0.1, 2.5, 4.9):
        assert math.exp(log_survival(np.array(t))) == pytest.approx(1 - normal.cdf(t), rel=1e-9)
    for t in (6.0, 10.0, 37.0):
        assert float(log_survival(np.array(t))) == pytest.approx(math.log(math.erfc(t / math.sqrt(2)) / 2), rel=1e-12)
    for t in (100.0, 1e4):
        density = -t * t / 2 - math.log(2 * math.pi) / 2
        least, most = density + math.log(t / (1 + t * t)), density - math.log(t)
        assert least <= float(log_survival(np.array(t))) <= most


def test_the_two_formulas_meet() -> None:
    below, above = log_survival(np.array([5.0, np.nextafter(5.0, 6.0)]))
    assert above == pytest.approx(below, abs=1e-12)


@given(st.floats(-8, 1e6))
def test_inverse_undoes_survival(t: float) -> None:
    # near 1 the survival itself no longer tells such points apart
    assert float(inverse_log_survival(log_survival(np.array(t)))) == pytest.approx(t, rel=1e-12, abs=1e-9)


@given(st.floats(-6, 6), st.floats(-1e6, 1e6))
def test_a_truncated_draw_lies_beyond_its_bound(noise: float, bound: float) -> None:
    t = float(truncated_normal(np.array(noise), np.array(bound)))
    assert math.isfinite(t)
    assert t >= bound
    if bound < -12:
        assert t == pytest.approx(noise, abs=1e-8)


def test_truncated_draws_have_the_truncated_distribution() -> None:
    noise = np.random.default_rng(0).standard_normal(40_000)
    for bound in (-1.0, 0.7, 3.0, 9.0):
        t = np.sort(truncated_normal(noise, np.full(noise.shape, bound)))
        below = -np.expm1(log_survival(t) - log_survival(np.array(bound)))
        assert np.abs(below - np.linspace(0, 1, len(t))).max() < 1.63 / math.sqrt(len(t))
        assert t.mean() == pytest.approx(float(truncated_mean(np.array(bound))), abs=0.012)


def test_far_out_the_excess_is_exponential() -> None:
    noise = np.random.default_rng(0).standard_normal(20_000)
    excess = truncated_normal(noise, np.full(noise.shape, 1000.0)) - 1000
    assert excess.mean() == pytest.approx(1e-3, rel=0.03)
    assert np.median(excess) == pytest.approx(math.log(2) * 1e-3, rel=0.03)


@pytest.mark.parametrize("bound", [-40.0, 0.0, 5.0, 7.0, 1e3, 1e6, 1e9, 1e12])
def test_the_mean_of_a_tail_lies_in_it_however_far(bound: float) -> None:
    mean = float(truncated_mean(np.array(bound)))
    assert max(bound, 0) <= mean <= max(bound, 0) + 1 / max(bound, 1)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_draws_beyond_a_boundary_against_rejection(value: int, confidence: float) -> None:
    """Mean and covariance of all three latents are those of the plain draws that happen to lie inside."""
    rng = np.random.default_rng(0)
    plain = LOC + SCALE * rng.standard_normal((400_000, 3))
    sure = (2 * value - 1) * (plain @ WEIGHT + BIAS) >= logit(confidence)
    expected = plain[sure]
    noise = rng.standard_normal((len(expected), 3)).astype(np.float32)
    drawn = draw_beyond(block(len(noise)), WEIGHT, BIAS, value, confidence, noise)
    assert ((2 * value - 1) * (drawn @ WEIGHT + BIAS) >= logit(confidence) - 1e-5).all()
    near = 6 / math.sqrt(len(noise))
    assert np.abs(drawn.mean(axis=0) - expected.mean(axis=0)).max() < near
    assert np.abs(np.cov(drawn.T) - np.cov(expected.T)).max() < 2 * near
    exact = mean_beyond(block(1), WEIGHT, BIAS, value, confidence)[0]
    assert np.abs(drawn.mean(axis=0) - exact).max() < near


def test_only_the_component_along_the_weights_moves() -> None:
    noise = np.random.default_rng(1).standard_normal((500, 3)).astype(np.float32)
    drawn = draw_beyond(block(500), WEIGHT, BIAS, 1, 0.99, noise)
    moved = (drawn - (LOC + SCALE * noise)) / SCALE
    along = SCALE * WEIGHT / np.linalg.norm(SCALE * WEIGHT)
    assert np.abs(moved - (moved @ along)[:, None] * along).max() < 1e-5
    # where the boundary is out of reach, the draw is the plain one
    far = draw_beyond(block(500), WEIGHT, 1000.0, 1, 0.9, noise)
    assert far == pytest.approx(LOC + SCALE * noise, abs=1e-6)


def test_each_row_may_have_its_own_side_and_depends_on_no_other() -> None:
    noise = np.random.default_rng(2).standard_normal((64, 3)).astype(np.float32)
    side = np.arange(64) % 2
    drawn = draw_beyond(block(64), WEIGHT, BIAS, side, 0.5, noise)
    assert ((drawn @ WEIGHT + BIAS > 0) == side).all()
    for size in (1, 3, 16):
        parts = [
            draw_beyond(block(len(noise[i : i + size])), WEIGHT, BIAS, side[i : i + size], 0.5, noise[i : i + size])
            for i in range(0, 64, size)
        ]
        assert np.concatenate(parts).tobytes() == drawn.tobytes()


def test_inside_is_the_softmax() -> None:
    rng = np.random.default_rng(0)
    weight, bias, z = rng.normal(size=(2, 4)), rng.normal(size=4), rng.normal(size=(300, 2)) * 3
    odds = np.exp(z @ weight + bias)
    share = odds / odds.sum(axis=1, keepdims=True)
    for k in range(4):
        assert (inside(z, weight, bias, k, None) == (share.argmax(axis=1) == k)).all()
        assert (inside(z, weight, bias, k, 0.8) == (share[:, k] >= 0.8)).all()
