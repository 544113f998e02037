"""Accuracy, AUROC, average precision and calibration against answers worked out by hand or by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_deploy.schema import Label, LabelSet
from ccvae_train.accuracy import (
    accuracies,
    area_under_roc,
    average_precision,
    calibration_error,
    measure_accuracy,
)

TWO = LabelSet(labels=(Label(name="a"), Label(name="k", kind="categorical", classes=("x", "y", "z"))))


def test_figures_by_hand() -> None:
    values = np.array([[1, 0], [1, 1], [1, 2], [0, 2], [-1, 2]])
    logits = np.array([[1, 9, 0, 0], [2, 0, 9, 0], [-1, 0, 9, 0], [-2, 0, 0, 9], [5, 0, 0, 9]], float)
    found = measure_accuracy(logits, values, np.array([1, 2]), TWO)
    assert found.accuracy == pytest.approx([3 / 4, 4 / 5])
    assert found.balanced == pytest.approx([(2 / 3 + 1) / 2, (1 + 1 + 2 / 3) / 3])
    assert found.floor == pytest.approx([3 / 4, 3 / 5])
    assert found.auroc[0] == found.average_precision[0] == pytest.approx(1)
    # the image of x stands first, that of y shares its place, and of z two stand first and one shares the last place
    assert found.average_precision[1] == pytest.approx((1 + 1 / 2 + (1 + 1 + 3 / 5) / 3) / 3)
    assert found.count.tolist() == [4, 5]
    assert found.means()["accuracy"] == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_classes_are_ranked_one_by_one_against_the_others() -> None:
    """Class x is told perfectly, y is always put last, z always stands between."""
    labels = LabelSet(labels=TWO.labels[1:])
    values = np.array([[0], [1], [2]])
    found = measure_accuracy(np.log([[0.6, 0.2, 0.2], [0.4, 0.1, 0.5], [0.3, 0.3, 0.4]]), values, np.array([0]), labels)
    assert found.auroc == pytest.approx([(1 + 0 + 1 / 2) / 3])


def test_a_label_that_nobody_shows_has_no_figure() -> None:
    found = measure_accuracy(np.zeros((3, 4)), np.array([[-1, 0]] * 3), np.array([0, 0]), TWO)
    assert np.isnan([found.accuracy[0], found.balanced[0], found.auroc[0], found.ece[0], found.floor[0]]).all()
    assert found.accuracy[1] == 1
    # always saying the one value that there is would be right of all
    assert np.isnan([found.auroc[1], found.average_precision[1], found.balanced[1]]).all()
    assert found.means()["accuracy"] == 1


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), max_size=20), st.integers(0, 2))
def test_shares_are_counted_over_what_is_shown(pairs, most: int) -> None:
    """A label beside one that nobody shows."""
    values, said = (np.array([pair[side] for pair in pairs], np.int8) for side in (0, 1))
    found = accuracies(
        np.stack([said, said], axis=1), np.stack([values, np.full_like(values, -1)], axis=1), np.array([most, most])
    )
    shown = [(value, told) for value, told in pairs if value >= 0]
    recalls = [np.mean([told == value for one, told in shown if one == value]) for value in {one for one, _ in shown}]
    expected = (
        np.mean([told == value for value, told in shown]) if shown else np.nan,
        np.mean(recalls) if len(recalls) > 1 else np.nan,
        np.mean([value == most for value, _ in shown]) if shown else np.nan,
    )
    for figures, figure in zip(found, expected, strict=True):
        assert figures == pytest.approx([figure, np.nan], nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_area_is_the_chance_that_a_positive_scores_higher(pairs) -> None:
    score = np.array([s for s, _ in pairs], float)
    positive = np.array([p for _, p in pairs])
    wins = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    expected = np.mean(wins) if wins else float("nan")
    assert area_under_roc(score, positive) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_average_precision_is_that_of_all_that_score_no_less(pairs) -> None:
    score = np.array([s for s, _ in pairs], float)
    positive = np.array([p for _, p in pairs])
    precisions = [positive[score >= one].mean() for one in score[positive]]
    expected = np.mean(precisions) if 0 < len(precisions) < len(pairs) else float("nan")
    assert average_precision(score, positive) == pytest.approx(expected, nan_ok=True)


def test_calibration() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    right = rng.random(50_000) < confidence
    assert calibration_error(confidence, right) < 0.01
    assert calibration_error(np.full(4, 0.9), np.array([True, False, True, False])) == pytest.approx(0.4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    # too sure in one bin does not make up for too modest in another
    mixed = calibration_error(np.array([0.55, 0.55, 0.95, 0.95]), np.array([True, True, False, False]))
    assert mixed == pytest.approx((0.45 + 0.95) / 2)
    # 0.61 and 0.66 share a bin of a fifteenth, 0.66 and 0.67 do not
    one, two = (calibration_error(np.array(pair), np.array([True, False])) for pair in ((0.61, 0.66), (0.66, 0.67)))
    assert (one, two) == pytest.approx(((0.66 - 0.39) / 2, (0.34 + 0.67) / 2))
