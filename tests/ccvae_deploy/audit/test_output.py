"""How a stranger's classifier is read: outputs by index and name, activations, decisions."""

import numpy as np
import pytest

from ccvae_deploy.audit.output import Output, read_reading
from ccvae_deploy.errors import UsageError

RAW = {"scores": np.float32([[2, 0, -1], [0, 1, 3]])}


def test_values_and_decisions(made_classifier) -> None:
    logits = made_classifier([(0, 4)] * 3, end="Identity")
    softmax = read_reading(logits, {"scores": 3}, ["2=dog", "0"], "softmax", 0.5)
    assert softmax.names == ("dog", "scores:0")
    assert softmax.text() == "dog, scores:0: after softmax, the largest is its decision"
    values, decisions = softmax.values(RAW)
    odds = np.exp(RAW["scores"].astype(float))
    np.testing.assert_allclose(values, (odds / odds.sum(axis=1, keepdims=True))[:, [2, 0]], rtol=1e-6)
    assert decisions.tolist() == [[False, True], [True, False]]
    assert softmax.values({"scores": np.float32([[0, 800, 800]])})[0].tolist() == [[0.5, 0]]
    values, decisions = read_reading(logits, {"scores": 3}, [], "sigmoid", 0.6).values(RAW)
    np.testing.assert_allclose(values, 1 / (1 + np.exp(-RAW["scores"])), rtol=1e-6)
    assert decisions.tolist() == [[True, False, False], [False, True, True]]
    given = read_reading(logits, {"scores": 3}, ["1"], "none", 0)
    assert given.text() == "scores:1: as given, above 0 is yes"
    values, decisions = given.values(RAW)
    assert (values[:, 0].tolist(), decisions[:, 0].tolist()) == ([0, 1], [False, True])


def test_a_graph_that_ends_in_an_activation_needs_no_word(made_classifier) -> None:
    ends = {end: read_reading(made_classifier([(0, 4)] * 2, end=end), {"scores": 2}, [], None, 0.5)
            for end in ("Softmax", "Sigmoid")}  # fmt: skip
    assert (ends["Softmax"].activation, ends["Softmax"].argmax) == ("none", True)
    assert (ends["Sigmoid"].activation, ends["Sigmoid"].argmax) == ("none", False)


def test_tensors_by_name(made_classifier) -> None:
    logits, widths = made_classifier([(0, 4)], end="Identity"), {"age:0": 1, "hair": 3}
    found = read_reading(logits, widths, ["age:0=old", "hair:1", "hair:2 = grey"], "none", 0.5)
    assert found.outputs == (
        Output(name="old", tensor="age:0", column=0),
        Output(name="hair:1", tensor="hair", column=1),
        Output(name="grey", tensor="hair", column=2),
    )
    assert read_reading(logits, widths, ["hair"], "none", 0.5).names == ("hair:0", "hair:1", "hair:2")
    assert len(read_reading(logits, {"scores": 64}, [], "none", 0.5).outputs) == 64


def test_no_activation_is_applied_twice(made_classifier) -> None:
    made, widths = made_classifier([(0, 4)] * 2), {"scores": 2, "v4": 2}
    with pytest.raises(UsageError, match="--activation sigmoid: scores ends in Sigmoid already; audit it apart"):
        read_reading(made, widths, ["v4", "scores"], "sigmoid", 0.5)
    assert read_reading(made, widths, ["v4"], "sigmoid", 0.5).activation == "sigmoid"
    assert read_reading(made, widths, ["v4", "scores"], "none", 0.5).activation == "none"


@pytest.mark.parametrize(
    ("end", "widths", "asked", "activation", "message"),
    [
        ("Identity", {"scores": 3}, [], None, "give --activation"),
        ("Identity", {"scores": 3}, [], "relu", "--activation 'relu'"),
        ("Sigmoid", {"scores": 3}, [], "sigmoid", "ends in Sigmoid already"),
        ("Identity", {"scores": 1}, [], "softmax", "always 1"),
        ("Identity", {"scores": 3, "more": 2}, [], "none", "choose with --outputs"),
        ("Identity", {"scores": 1000}, [], "none", "1,000 outputs; choose up to 64"),
        ("Identity", {"scores": 3}, ["3"], "none", "has 3 columns"),
        ("Identity", {"scores": 3}, ["cat"], "none", "TENSOR:INDEX of scores"),
        ("Identity", {"scores": 3, "more": 2}, ["1"], "none", "TENSOR:INDEX"),
        ("Identity", {"scores": 3}, ["1", "1"], "none", "twice"),
        ("Identity", {"scores": 3}, ["scores=all"], "none", "add :INDEX"),
    ],
)
def test_what_is_open_or_wrong_is_refused(made_classifier, end, widths, asked, activation, message) -> None:
    with pytest.raises(UsageError, match=message):
        read_reading(made_classifier([(0, 4)] * 3, end=end), widths, asked, activation, 0.5)
