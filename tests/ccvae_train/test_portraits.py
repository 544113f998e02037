"""Made portraits: deterministic, labels as promised, and a flip changes what it should and nothing else."""

import numpy as np
import pytest

from ccvae_train.datasets.portraits import (
    DARK_HAIR,
    FREQUENCIES,
    LABELS,
    PALE_SKIN,
    draw_factors,
    labels_of,
    masks,
    portraits,
    render,
)

from .counterfactuals import with_label, with_style


def test_the_same_for_any_number_of_workers_and_any_start() -> None:
    images, labels = portraits(120, seed=5, workers=1)
    again, others = portraits(120, seed=5, workers=2)
    assert (images == again).all()
    assert (labels == others).all()
    part, _ = portraits(20, seed=5, start=60, workers=1)
    assert (part == images[60:80]).all()
    assert (labels_of(120, seed=5) == labels).all()
    assert (portraits(20, seed=6, workers=1)[0] != images[:20]).any(axis=(1, 2, 3)).all()


def test_fills_the_array_it_is_given() -> None:
    out = np.zeros((70, 32, 32, 3), np.uint8)
    images, labels = portraits(70, size=32, workers=2, title="draw", out=out)
    assert images is out
    assert out.any(axis=(1, 2, 3)).all()
    assert (labels == labels_of(70)).all()


def test_labels_have_their_frequencies_and_are_independent() -> None:
    labels = labels_of(6000)
    assert labels.mean(axis=0) == pytest.approx(list(FREQUENCIES.values()), abs=0.025)
    correlation = np.corrcoef(labels.T) - np.eye(len(LABELS))
    assert np.abs(correlation).max() < 0.05


@pytest.mark.parametrize("label", range(len(LABELS)), ids=[label.name for label in LABELS])
def test_a_flip_or_another_look_changes_pixels_inside_the_mask_only(label: int) -> None:
    rng = np.random.default_rng(label)
    changes = []
    for index in range(25):
        factors = draw_factors(9, index)
        mask = masks(factors)[label]
        absent, present = (render(with_label(factors, label, value)).astype(int) for value in (0, 1))
        change = np.abs(present - absent).max(axis=2)
        assert change[~mask].max(initial=0) == 0
        changes.append(change[mask].mean())
        other = with_label(with_style(factors, label, rng.random((2, 6))), label, index % 2)
        assert (render(other)[~mask] == (absent if index % 2 == 0 else present)[~mask]).all()
    assert np.mean(changes) > 10


def test_masks_are_parts_of_the_picture() -> None:
    areas = np.mean([masks(draw_factors(3, index)).mean(axis=(1, 2)) for index in range(20)], axis=0)
    limits = np.full(len(LABELS), 0.22)
    limits[[PALE_SKIN, DARK_HAIR]] = 0.45
    assert (areas > 0.01).all()
    assert (areas < limits).all(), areas


@pytest.mark.parametrize("size", [32, 128])
def test_any_size_shows_the_same_picture(size: int) -> None:
    factors = draw_factors(0, 1)
    large, small = (render(factors, s).reshape(16, s // 16, 16, s // 16, 3).mean(axis=(1, 3)) for s in (size, 64))
    assert np.abs(large - small).mean() < 6
