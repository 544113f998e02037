"""Interventions against their equations and against brute force; noise against what it may depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_deploy.edits.noise import Noise, latent_noise
from ccvae_deploy.interventions import Block, between, closest, draw, intervene, position

RNG = np.random.default_rng(0)
GOLDEN = np.float32(
    [
        [0.3062206506729126, 0.8603076934814453, 0.8106840252876282],
        [1.6207704544067383, -0.14249545335769653, 1.1464871168136597],
    ]
)


@pytest.mark.parametrize(
    ("value", "strength", "expected"),
    [(1, 1, 1), (0, 1, 0), (1, 0, 0), (0, 0, 1), (0.3, 1, 0.3), (1, 1.5, 1.5), (0, 1.5, -0.5)],
)
def test_position_between_the_modes(value: float, strength: float, expected: float) -> None:
    assert position(value, strength) == pytest.approx(expected)


def test_between_interpolates_loc_and_scale_and_extrapolates_loc_alone() -> None:
    absent, present = Block(np.float32([-2]), np.float32([1])), Block(np.float32([4]), np.float32([3]))
    half = between(absent, present, 0.5)
    assert (half.loc, half.scale) == (1, 2)
    for p, loc, scale in ((1, 4, 3), (0, -2, 1), (1.5, 7, 3), (-0.5, -5, 1), (-10, -62, 1)):
        found = between(absent, present, p)
        assert (found.loc, found.scale) == (loc, scale)
    tiny = Block(np.float32([0]), np.float32([1e-9]))
    assert between(tiny, tiny, 0.5).scale == pytest.approx(1e-3)


def test_draw_is_loc_plus_scale_times_noise() -> None:
    block = Block(np.float32([1, 2]), np.float32([3, 4]))
    assert draw(block, np.float32([[0, 0], [1, -1]])).tolist() == [[1, 2], [4, -2]]


def test_only_the_asked_blocks_change() -> None:
    z = RNG.normal(size=(3, 5, 9)).astype(np.float32)
    slices = (slice(0, 1), slice(1, 4), slice(4, 5))
    edited = intervene(z, {1: np.zeros((3, 5, 3), np.float32)}, slices)
    assert (edited[..., 1:4] == 0).all()
    rest = [0, 4, 5, 6, 7, 8]
    assert edited[..., rest].tobytes() == z[..., rest].tobytes()


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("dims", [1, 3])
def test_closest_against_brute_force(value: int, dims: int) -> None:
    """No point that reaches the confidence lies nearer, in units of the prior's scale."""
    weight, scale = RNG.normal(size=dims).astype(np.float32), RNG.uniform(0.5, 2, dims).astype(np.float32)
    z, bias, confidence = RNG.normal(size=(20, dims)).astype(np.float32), 0.3, 0.9

    def probability(points):
        return 1 / (1 + np.exp(-(2 * value - 1) * (points @ weight + bias)))

    moved = closest(z, weight, bias, scale, value, confidence)
    there = probability(z) >= confidence
    assert (moved[there] == z[there]).all()
    assert probability(moved[~there]) == pytest.approx(confidence, abs=1e-5)
    length = np.linalg.norm((moved - z) / scale, axis=1)
    for row in np.flatnonzero(~there):
        directions = RNG.normal(size=(4000, dims))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        nearer = z[row] + directions * scale * (0.98 * length[row])
        assert (probability(nearer) < confidence).all()


@pytest.mark.parametrize("value", [0.3, 0.8])
def test_closest_meets_a_soft_value_by_the_smallest_move(value: float) -> None:
    weight, scale = np.float32([0.5, -1.5]), np.float32([1.0, 0.7])
    z, bias = RNG.normal(size=(20, 2)).astype(np.float32), 0.3
    moved = closest(z, weight, bias, scale, value, 0.9)
    assert 1 / (1 + np.exp(-(moved @ weight + bias))) == pytest.approx(value, abs=1e-5)
    side = np.sign(z @ weight + bias - np.log(value / (1 - value)))
    angles = np.linspace(0, 2 * np.pi, 2000)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for row, length in enumerate(np.linalg.norm((moved - z) / scale, axis=1)):
        nearer = z[row] + circle * scale * (0.98 * length)
        assert (np.sign(nearer @ weight + bias - np.log(value / (1 - value))) == side[row]).all()


def test_noise_is_standard_normal() -> None:
    noise = latent_noise(0, "a.png", 100, 500)
    assert noise.shape == (100, 500)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


@given(st.integers(0, 2**62), st.text(max_size=10), st.integers(1, 5))
def test_noise_of_a_sample_depends_on_nothing_else(seed: int, name: str, samples: int) -> None:
    name = name.encode("utf-8", "replace").decode()
    assert (latent_noise(seed, name, 6, 4)[:samples] == latent_noise(seed, name, samples, 4)).all()
    assert (latent_noise(seed, name, 1, 9)[:, :4] == latent_noise(seed, name, 1, 4)).all()
    assert (latent_noise(seed, name + "x", 1, 4) != latent_noise(seed, name, 1, 4)).any()
    assert (latent_noise(seed + 1, name, 1, 4) != latent_noise(seed, name, 1, 4)).any()
    assert (latent_noise(seed, name, 1, 4, attempt=1) != latent_noise(seed, name, 1, 4)).any()
    assert (latent_noise(seed, name, 1, 4, attempt=1) != latent_noise(seed, name, 2, 4)[1:]).any()
    assert (latent_noise(seed, name, 1, 4, attempt=1) != latent_noise(seed, name + "1", 1, 4)).any()


def test_noise_of_the_first_attempt_never_changes() -> None:
    """Results of earlier versions are made again with these."""
    assert latent_noise(7, "deep/a.png", 2, 3) == pytest.approx(GOLDEN, abs=1e-7)
    assert (latent_noise(7, "deep/a.png", 2, 3, attempt=0) == latent_noise(7, "deep/a.png", 2, 3)).all()


def test_further_tries_are_keyed_by_output_and_label() -> None:
    noise = Noise(0, ["a", "b"], 2, 3)
    assert noise.first.shape == (2, 2, 3)
    assert (noise.first[1] == latent_noise(0, "b", 2, 3)).all()
    streams = {tuple(noise.further(row, k, label).standard_normal(3)) for row, k, label in np.ndindex(2, 2, 3)}
    streams |= {tuple(Noise(0, ["a"], 1, 3, attempt=1).further(0, 0, label).standard_normal(3)) for label in range(3)}
    assert len(streams) == 15
    # nor do they begin as the first draw of all
    assert not np.isclose(noise.further(0, 0, 0).standard_normal(3), noise.first[0, 0]).any()
    alone = Noise(0, ["b"], 2, 3).further(0, 1, 2).standard_normal(3)
    assert (alone == noise.further(1, 1, 2).standard_normal(3)).all()
