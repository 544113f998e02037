"""Sides and classes, asked and reached."""

import numpy as np
import pytest

from ccvae_deploy.edits.outcome import decided, drift, outcome, outcomes, state
from ccvae_deploy.edits.request import make_request
from ccvae_deploy.schema import Label, LabelSet

LABELS = LabelSet(labels=(Label(name="a"), Label(name="hair", kind="categorical", classes=("x", "y", "z"))))
BEFORE = np.float32([0.8, 0.4, 0.3, 0.3])


def found(after: list[float], *asked: str, vary: tuple[str, ...] = ()):
    request = make_request(LABELS, asked, vary=vary)
    return outcomes(LABELS, request.asked, BEFORE, np.float32(after))


def test_decided_is_a_side_or_the_most_probable_class() -> None:
    rows = np.float32([[0.5, 0.4, 0.3, 0.3], [0.51, 0.1, 0.2, 0.7]])
    assert decided(LABELS, rows).tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]


def test_even_odds_are_0_wherever_they_are_looked_at() -> None:
    even = np.float32([0.5, 0.4, 0.3, 0.3])
    assert state(LABELS, 0, even) == 0
    assert outcome(LABELS, 0, 0, even).reached
    assert not outcome(LABELS, 0, 1, even).reached


def test_asked_values() -> None:
    after = [0.3, 0.2, 0.45, 0.35]
    one = found(after, "a=0", "hair=y")
    assert (one[0].reached, round(one[0].probability, 4)) == (True, 0.7)
    assert (one[1].reached, round(one[1].probability, 4)) == (True, 0.45)
    other = found(after, "a=0.7", "hair=z")
    assert (other[0].reached, round(other[0].probability, 4)) == (False, 0.3)
    assert (other[1].reached, round(other[1].probability, 4)) == (False, 0.35)


def test_a_varied_label_reaches_by_staying() -> None:
    stayed = found([0.6, 0.5, 0.2, 0.3], vary=("a", "hair"))
    left = found([0.4, 0.2, 0.5, 0.3], vary=("a", "hair"))
    assert [one.reached for one in stayed.values()] == [True, True]
    assert [one.reached for one in left.values()] == [False, False]
    assert [round(one.probability, 4) for one in left.values()] == [0.4, 0.2]


def test_several_outputs_at_once_are_as_each_by_itself() -> None:
    before, after = np.random.default_rng(0).dirichlet(np.ones(4), (2, 50)).astype(np.float32)
    for request in (make_request(LABELS, ["a=0.7", "hair=z"]), make_request(LABELS, [], vary=("a", "hair"))):
        together = outcomes(LABELS, request.asked, before, after)
        for row in range(50):
            for label, one in outcomes(LABELS, request.asked, before[row], after[row]).items():
                assert together[label].reached[row] == one.reached
                assert together[label].probability[row] == pytest.approx(one.probability)
        moved = drift(LABELS, together, before, after)
        assert all(moved[i] == drift(LABELS, together, before[i], after[i]) for i in range(50))
        assert all(0 < found.reached.sum() < 50 for found in together.values())


def test_a_state_is_reached_by_what_has_it() -> None:
    assert [state(LABELS, i, BEFORE) for i in (0, 1)] == [1, 0]
    assert all(outcome(LABELS, i, state(LABELS, i, BEFORE), BEFORE).reached for i in (0, 1))
    assert not outcome(LABELS, 1, 2, BEFORE).reached


def test_drift_is_the_mean_total_variation_of_what_was_not_asked() -> None:
    after = np.float32([0.2, 0.4, 0.0, 0.6])
    assert round(drift(LABELS, [0], BEFORE, after), 4) == 0.3
    assert round(drift(LABELS, [1], BEFORE, after), 4) == 0.6
    assert round(drift(LABELS, [], BEFORE, after), 4) == 0.45
    assert drift(LABELS, [0, 1], BEFORE, after) == 0
    rng = np.random.default_rng(1)
    many = LabelSet(labels=tuple(Label(name=f"a{i}") for i in range(40)))
    rows = rng.random((2, 7, 40), np.float32)
    together = drift(many, [3], *rows)
    assert [drift(many, [3], before, after) for before, after in zip(*rows, strict=True)] == together.tolist()
