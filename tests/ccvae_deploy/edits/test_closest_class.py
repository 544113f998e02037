"""The smallest move to a class against grid and random search, its closed form, and its own conditions."""

import numpy as np
import pytest

from ccvae_deploy.edits.closest_class import closest_class
from ccvae_deploy.errors import LabelError
from ccvae_deploy.interventions import closest

CONFIDENCE = 0.9


def share(z: np.ndarray, weight: np.ndarray, bias: np.ndarray, value: int) -> np.ndarray:
    logits = z.astype(np.float64) @ weight + bias
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds[..., value] / odds.sum(axis=-1)


def problem(seed: int, dims: int, classes: int, rows: int = 12):
    rng = np.random.default_rng(seed)
    weight, bias = (rng.normal(size=shape).astype(np.float32) * 2 for shape in ((dims, classes), classes))
    scale = rng.uniform(0.3, 2, (rows, dims)).astype(np.float32)
    return (rng.normal(size=(rows, dims)) * 2).astype(np.float32), weight, bias, scale


@pytest.mark.parametrize("seed", range(6))
def test_against_a_fine_grid_in_two_dimensions(seed: int) -> None:
    """No point of a disc of 99 % of the move's length, in units of the scale, is sure enough."""
    z, weight, bias, scale = problem(seed, 2, 3 + seed % 3)
    # a class that wins in some direction can be made as sure as one likes
    value = int((np.array([np.cos(seed), np.sin(seed)]) @ weight).argmax())
    moved = closest_class(z, weight, bias, scale, value, CONFIDENCE)
    there = share(z, weight, bias, value) >= CONFIDENCE
    assert not there.all()
    assert moved[there].tobytes() == z[there].tobytes()
    assert share(moved[~there], weight, bias, value) == pytest.approx(CONFIDENCE, abs=1e-5)
    axis = np.linspace(-1, 1, 601)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    disc = grid[np.linalg.norm(grid, axis=1) <= 1]
    for row in np.flatnonzero(~there):
        length = np.linalg.norm((moved[row] - z[row]) / scale[row])
        points = z[row] + 0.99 * length * disc * scale[row]
        assert (share(points, weight, bias, value) < CONFIDENCE).all()


@pytest.mark.parametrize("seed", range(4))
def test_against_random_search_in_four_dimensions(seed: int) -> None:
    z, weight, bias, scale = problem(seed, 4, 6)
    rng = np.random.default_rng(seed)
    value = int((rng.normal(size=4) @ weight).argmax())
    moved = closest_class(z, weight, bias, scale, value, CONFIDENCE)
    assert (share(moved, weight, bias, value) >= CONFIDENCE - 1e-5).all()
    directions = rng.normal(size=(20_000, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for row in range(len(z)):
        length = np.linalg.norm((moved[row] - z[row]) / scale[row])
        # also close to the direction it took, where a better one would be
        taken = (moved[row] - z[row]) / scale[row] / max(length, 1e-9) + 0.1 * directions
        taken /= np.linalg.norm(taken, axis=1, keepdims=True)
        for way in (directions, taken):
            points = z[row] + 0.99 * length * way * scale[row]
            assert length == 0 or (share(points, weight, bias, value) < CONFIDENCE).all()


def test_two_classes_are_the_closed_form_of_a_binary_label() -> None:
    z, weight, bias, scale = problem(0, 3, 2)
    for value in (0, 1):
        expected = closest(z, weight[:, 1] - weight[:, 0], float(bias[1] - bias[0]), scale, value, CONFIDENCE)
        assert closest_class(z, weight, bias, scale, value, CONFIDENCE) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("steep", [0.1, 1, 30])
def test_the_move_is_along_the_gradient_of_what_it_meets(steep: float) -> None:
    """The condition of a minimum: S^-1 (z' - z) is parallel to S times the gradient of the class's log-odds."""
    z, weight, bias, scale = problem(5, 3, 5, rows=40)
    weight *= steep
    value = int((np.ones(3) @ weight).argmax())
    moved = closest_class(z, weight, bias, scale, value, CONFIDENCE)
    logits = moved.astype(np.float64) @ weight + bias
    logits[:, value] = -np.inf
    others = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradient = (weight[:, value] - (others / others.sum(axis=1, keepdims=True)) @ weight.T) * scale
    step = (moved - z) / scale
    far = np.linalg.norm(step, axis=1) > 1e-2
    step, gradient = (rows[far] / np.linalg.norm(rows[far], axis=1, keepdims=True) for rows in (step, gradient))
    assert far.any()
    assert ((step * gradient).sum(axis=1) > 1 - 1e-4).all()


def test_rows_depend_on_no_other() -> None:
    z, weight, bias, scale = problem(3, 3, 5, rows=32)
    value = int((np.ones(3) @ weight).argmax())
    whole = closest_class(z, weight, bias, scale, value, CONFIDENCE)
    for size in (1, 5):
        parts = [
            closest_class(z[i : i + size], weight, bias, scale[i : i + size], value, CONFIDENCE)
            for i in range(0, 32, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_class_between_two_others_may_be_out_of_reach() -> None:
    weight, bias = np.float32([[-1, 0, 1]]), np.float32([0, 1, 0])
    z, scale = np.float32([[3.0], [0.0]]), np.ones((2, 1), np.float32)
    assert share(np.zeros((1, 1)), weight, bias, 1)[0] == pytest.approx(0.576, abs=1e-3)
    with pytest.raises(LabelError, match="as sure of the asked class"):
        closest_class(z, weight, bias, scale, 1, 0.6)
    found = closest_class(z, weight, bias, scale, 1, 0.55)
    assert share(found[:1], weight, bias, 1) == pytest.approx(0.55, abs=1e-5)
    assert found[1] == 0


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12])
def test_a_latent_that_hardly_moves_the_classifier_moves_the_further(size: float) -> None:
    """Where scales shrink and weights with them, the point is the same in units of the scale."""
    z, weight, bias, scale = problem(5, 3, 4)
    value = int((np.ones(3) @ weight).argmax())
    moved = closest_class(0 * z, weight, bias, np.float32(size) * scale, value, CONFIDENCE)
    assert share(moved, weight, bias, value) == pytest.approx(CONFIDENCE, abs=1e-4)


def test_weights_that_are_large_and_scales_that_are_far_apart() -> None:
    """Steps are halved until they fall, however far a nearly flat region throws them."""
    rng = np.random.default_rng(3)
    weight, bias = (rng.normal(size=(5, 10)) * 300).astype(np.float32), rng.normal(size=10).astype(np.float32)
    scale = (10.0 ** rng.uniform(-3, 3, (12, 5))).astype(np.float32)
    z, value = (rng.normal(size=(12, 5)) * 10).astype(np.float32), int(weight.sum(axis=0).argmax())
    moved = closest_class(z, weight, bias, scale, value, CONFIDENCE)
    assert (share(moved, weight, bias, value) >= CONFIDENCE - 1e-3).all()
