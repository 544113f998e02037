"""What users may ask, and the line they get when they may not."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_deploy.edits.request import asked_of, make_request
from ccvae_deploy.errors import CCVAEError, LabelError, UsageError
from ccvae_deploy.schema import Label, LabelSet

LABELS = LabelSet(
    labels=(
        Label(name="Smiling"),
        Label(name="Wearing_Hat"),
        Label(name="Hair", kind="categorical", classes=("black", "blond", "red")),
        Label(name="answer", classes=("no", "yes")),
    )
)


def test_names_match_without_case_and_separators_and_come_in_label_order() -> None:
    request = make_request(LABELS, ["wearing hat=0", "SMILING=1"])
    assert [asked.label for asked in request.asked] == [0, 1]
    assert request.name == "smiling=1,wearing_hat=0"
    assert request.values(LABELS) == {"Smiling": 1.0, "Wearing_Hat": 0.0}


def test_classes_and_soft_values() -> None:
    request = make_request(LABELS, {"hair": "Blond", "answer": "yes", "smiling": 0.3})
    assert [asked.value for asked in request.asked] == [0.3, 1.0, 1.0]
    assert request.name == "smiling=0.3,hair=blond,answer=1"


def test_what_was_asked_is_known_from_its_values() -> None:
    request = make_request(LABELS, {"hair": "Blond", "answer": "yes", "smiling": 0.3}, vary=["wearing hat"])
    again = asked_of(LABELS, json.loads(json.dumps(request.values(LABELS))))
    assert [(one.label, one.value) for one in again] == [(one.label, one.value) for one in request.asked]
    assert [one.spelled for one in again] == ["Smiling=0.3", "Wearing_Hat=vary", "Hair=blond", "answer=1"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("smiling=1", "smiling=1.0", "smiling= 1", "smiling=+1e0"), "smiling=1"),
        (("smiling=0", "smiling=-0", "smiling=0.000"), "smiling=0"),
        (("smiling=.3", "smiling=0.30", "smiling=3e-1"), "smiling=0.3"),
        (("answer=yes", "answer=YES", "answer=1"), "answer=1"),
        (("hair=blond", "HAIR= Blond"), "hair=blond"),
    ],
)
def test_one_value_has_one_name_and_one_number(given, name) -> None:
    requests = [make_request(LABELS, [one]) for one in given]
    assert {request.name for request in requests} == {name}
    assert len({json.dumps(request.values(LABELS)) for request in requests}) == 1


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_a_truth_value_is_0_or_1(kind) -> None:
    request = make_request(LABELS, {"smiling": kind(1), "answer": kind(0)})
    assert request.name == "smiling=1,answer=0"
    assert request.values(LABELS) == {"Smiling": 1.0, "answer": 0.0}
    with pytest.raises(LabelError, match="Hair=True: known: black, blond, red"):
        make_request(LABELS, {"hair": kind(1)})


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (["smilling=1"], LabelError, "did you mean Smiling"),
        (["smiling=2"], LabelError, "expected 0, 1 or a number from 0 to 1"),
        (["smiling=-0.1"], LabelError, "number from 0 to 1"),
        (["smiling=-1"], LabelError, "number from 0 to 1"),
        (["smiling=1-"], LabelError, "number from 0 to 1"),
        (["smiling=nan"], LabelError, "number from 0 to 1"),
        (["smiling=inf"], LabelError, "number from 0 to 1"),
        (["hair=blonde"], LabelError, "did you mean blond"),
        (["smiling=1", "Smiling=0"], LabelError, "set twice"),
        (["smiling"], UsageError, "expected LABEL=VALUE"),
        (["=1"], UsageError, "expected LABEL=VALUE"),
        (["smiling=1,hair=red"], UsageError, "--set 'smiling=1,hair=red': expected one label; give each a --set of"),
        ([], UsageError, "nothing to change"),
        ("smiling", UsageError, "--set 'smiling': expected LABEL=VALUE"),
        (None, UsageError, "--set None: expected LABEL=VALUE texts, or labels to values"),
        ([3], UsageError, "--set 3: expected LABEL=VALUE"),
        ({1: 1}, LabelError, "label 1: expected a name, such as Smiling"),
        ({"smiling": 1, "hair": None}, LabelError, "hair=None: expected a value; `vary` names"),
    ],
)
def test_labels_and_values_that_are_refused(asked, error, message) -> None:
    with pytest.raises(error, match=message):
        make_request(LABELS, asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"samples": True}, "--samples True: expected a whole number"),
        ({"mode": None}, "--mode None: known: sample, mean"),
        ({"compose": 3}, "--compose 3: known"),
        ({"vary": None}, "--vary None: expected text, or a list of texts"),
        ({"vary": [3]}, "--vary 3: expected text"),
        ({"vary": "smiling,hair"}, "--vary 'smiling,hair': expected one label; give each a --vary of its own"),
        ({"samples": 101}, "--samples 101"),
        ({"samples": "8"}, "--samples '8': expected a whole number, 1 to 100"),
        ({"strength": "2"}, "--strength '2': expected a number"),
        ({"confidence": None}, "--confidence None: expected a number"),
        ({"samples": 2.0}, r"--samples 2\.0: expected a whole number"),
        ({"until_reached": "3"}, "--until-reached '3': expected a whole number, 1 to 100 draws"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 1.5}, r"--seed 1\.5: expected a whole number, 0 to 9223372036854775807"),
        ({"mode": "meen"}, "did you mean mean"),
        ({"compose": "x"}, "--compose"),
        ({"strength": -1.0}, "--strength -1"),
        ({"strength": float("nan")}, "--strength nan"),
        ({"confidence": 1.0}, "--confidence 1"),
        ({"confidence": 0.5}, "--confidence 0.5"),
        ({"mode": "mean", "samples": 8}, "all would be equal"),
    ],
)
def test_options_that_are_refused(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        make_request(LABELS, ["smiling=1"], **options)


def test_one_text_pairs_and_a_mapping_ask_the_same() -> None:
    for asked in ("smiling=1", ["smiling=1"], [("smiling", 1)], {"smiling": 1}):
        assert make_request(LABELS, asked, vary="hair").name == "smiling=1,hair=vary"


def test_whole_numbers_of_numpy_are_numbers_too() -> None:
    request = make_request(LABELS, ["smiling=1"], samples=np.int64(3), seed=np.uint8(7))
    assert (request.samples, request.seed) == (3, 7)


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        (["hair=red"], {"strength": 2.0}, "no opposite"),
        (["smiling=1"], {"mode": "closest", "strength": 2.0}, "how far it goes is --confidence"),
        (["smiling=1"], {"mode": "mean", "until_reached": 3}, "leave --until-reached out"),
        (["smiling=1"], {"until_reached": 0}, "--until-reached 0"),
        (["smiling=1"], {"until_reached": 101}, "--until-reached 101"),
        ([], {"vary": ["smiling"], "mode": "mean"}, "--vary always draws"),
        ([], {"vary": ["smiling"], "strength": 2.0}, "--vary always draws"),
    ],
)
def test_combinations_that_are_refused(asked, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        make_request(LABELS, asked, **options)


def test_closest_takes_classes_and_soft_values() -> None:
    request = make_request(LABELS, ["hair=red", "smiling=0.4"], mode="closest")
    assert [asked.value for asked in request.asked] == [0.4, 2.0]


def test_vary_stands_beside_set() -> None:
    request = make_request(LABELS, ["Hair=red"], vary=["Wearing Hat"], samples=4, mode="mean", until_reached=9)
    assert request.name == "wearing_hat=vary,hair=red"
    assert request.values(LABELS) == {"Wearing_Hat": "vary", "Hair": 2.0}
    assert [asked.value for asked in request.asked] == [None, 2.0]
    assert make_request(LABELS, (), vary="smiling").name == "smiling=vary"
    with pytest.raises(LabelError, match="label Smiling is set and varied; do one of both"):
        make_request(LABELS, ["smiling=1"], vary=["SMILING"])
    with pytest.raises(LabelError, match="label Smiling is varied twice; name it once"):
        make_request(LABELS, (), vary=["smiling", "SMILING"])
    with pytest.raises(LabelError, match="did you mean Smiling"):
        make_request(LABELS, (), vary=["smilling"])


@given(st.lists(st.text(max_size=20), max_size=3))
def test_any_text_ends_in_a_request_or_one_line(asked: list[str]) -> None:
    with contextlib.suppress(CCVAEError):
        assert make_request(LABELS, asked).name
