"""Labels of both kinds as numbers, columns and probabilities."""

import numpy as np
import pytest

from ccvae_train.label_columns import (
    class_log_probabilities,
    log_probability,
    majority,
    one_hot,
    other_value,
    predicted,
    prior_values,
    uniform_values,
)

from .evaluate.painted import LABELS

LOGITS = np.array([[0.0, 2.0, 1.0, 1.0, 3.0], [-1.0, -800.0, 0.0, 900.0, 0.0]])


def test_probabilities_sum_to_one_and_survive_large_logits() -> None:
    for log_p in class_log_probabilities(LOGITS, LABELS):
        assert np.exp(log_p).sum(axis=1) == pytest.approx(np.ones(2))
        assert np.isfinite(log_p).all()


def test_log_probability_of_values() -> None:
    found = log_probability(LOGITS, np.array([[1, 0, 2], [0, 1, -1]]), LABELS)
    softmax = np.exp(3) / (2 * np.exp(1) + np.exp(3))
    assert found[0] == pytest.approx([np.log(0.5), -np.log1p(np.exp(2)), np.log(softmax)])
    assert found[1, 0] == pytest.approx(-np.log1p(np.exp(-1)))
    assert found[1, 1] == pytest.approx(-800)
    assert np.isnan(found[1, 2])


def test_values_and_columns() -> None:
    values = np.array([[1, 0, 2], [0, 1, -1]])
    assert one_hot(values, LABELS).tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]
    assert predicted(LOGITS, LABELS).tolist() == [[0, 1, 2], [0, 0, 1]]
    assert majority(np.array([[1, -1, 2], [1, 0, 2], [0, -1, 1]]), LABELS).tolist() == [1, 0, 2]


def test_draws_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    uniform = uniform_values(6000, LABELS, rng)
    assert uniform.mean(axis=0) == pytest.approx([0.5, 0.5, 1], abs=0.05)
    drawn = prior_values(6000, LABELS, np.array([0.9, 0.2, 0.1, 0.2, 0.7]), rng)
    assert drawn[:, :2].mean(axis=0) == pytest.approx([0.9, 0.2], abs=0.03)
    assert np.bincount(drawn[:, 2]) / 6000 == pytest.approx([0.1, 0.2, 0.7], abs=0.03)
    for label in range(3):
        other = other_value(uniform, label, LABELS, rng)
        assert (other != uniform[:, label]).all()
        assert set(other) == set(range(len(LABELS.labels[label].classes)))
