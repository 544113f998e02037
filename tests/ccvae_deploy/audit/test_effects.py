"""Effects of made records: what counts as one, and what an edit does whichever way it goes does not."""

from pathlib import Path

import numpy as np
import pytest

from ccvae_deploy.audit.effects import effects
from ccvae_deploy.audit.model import open_model
from ccvae_deploy.audit.record import AuditSettings
from ccvae_deploy.editor import Editor

from .conftest import HAT


def response(output: float, flips: float = 0.0, reached: float = 1.0) -> dict:
    return {"outputs": [output], "flips": [flips], "reached": reached}


@pytest.fixture
def made_effects(editor: Editor, made_classifier, tmp_path: Path):
    """The effect of `Young` on one output, of records made of pairs: the state, and what the edit adds to 0.2."""
    (tmp_path / "m.onnx").write_bytes(made_classifier([HAT]).SerializeToString())
    model = open_model(tmp_path / "m.onnx", scale=1, provider="cpu")
    settings = AuditSettings(
        bundle="b", model="m", feeding=model.feeding, reading=model.reading, labels=("Young",), samples=1, seed=0,
        strengths=(1.0,), compose="residual",
    )  # fmt: skip

    def make(images: list[tuple[int, float]], reached: float = 1.0):
        records = [
            {
                "state": {"Young": own},
                "control": [0.1 + 0.001 * (i % 10)],
                "redrawn": {"Young": response(0.2)},
                "edited": {f"Young={1 - own}": {"1": response(0.2 + shift, reached=reached)}},
            }
            for i, (own, shift) in enumerate(images)
        ]
        return effects(editor.labels, settings, records)[0]

    return make


def test_what_an_edit_does_whichever_way_it_goes_is_no_effect_of_the_label(made_effects) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 100)
    # 80 images are turned on, 20 off, and each time the output rises
    found = made_effects([(int(i >= 80), 0.3 + noise[i]) for i in range(100)])
    assert abs(found.effect) < 0.01
    assert found.verdict == "no effect found"
    assert found.either_way == pytest.approx(0.3, abs=0.01)
    real = made_effects([(int(i >= 80), 0.1 + (-0.2 if i >= 80 else 0.2) + noise[i]) for i in range(100)])
    assert real.effect == pytest.approx(0.2, abs=0.01)
    assert (real.turned_on, real.turned_off) == (pytest.approx(0.3, abs=0.01), pytest.approx(-0.1, abs=0.01))
    assert real.verdict == "moves"
    assert real.against_control == pytest.approx(0.2, abs=0.01)


def test_verdicts(made_effects) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 100)
    states = [i % 2 for i in range(100)]

    def signed(size: float, spread: float) -> list[tuple[int, float]]:
        return [(own, (1 - 2 * own) * size + spread * one) for own, one in zip(states, noise, strict=True)]

    assert made_effects(signed(0.2, 0.01)).verdict == "moves"
    # the controls vary by 0.0029
    assert made_effects(signed(0.0002, 0.0001)).verdict == "moves slightly"
    assert made_effects(signed(0.0, 0.1)).verdict == "no effect found"
    assert made_effects(signed(0.0, 0.1), reached=0.4).verdict == "not tested"
    assert made_effects(signed(0.2, 0.01), reached=0.4).verdict == "moves"
    assert made_effects(signed(0.2, 0.01)[:19]).verdict == "not tested"
    # three images of the other kind are too few to say anything
    lone = made_effects([*[(0, 0.2 + 0.01 * one) for one in noise[:50]], *[(1, -9.0)] * 3])
    assert lone.effect == pytest.approx(0.2, abs=0.01)


def test_a_class_that_all_images_have_already_is_left_out(
    categorical_editor: Editor, made_classifier, tmp_path
) -> None:
    (tmp_path / "m.onnx").write_bytes(made_classifier([(0, 32)], channel=0).SerializeToString())
    model = open_model(tmp_path / "m.onnx", scale=1, provider="cpu")
    settings = AuditSettings(
        bundle="b", model="m", feeding=model.feeding, reading=model.reading, labels=("Hair",), samples=1, seed=0,
        strengths=(1.0,), compose="decode",
    )  # fmt: skip
    changed = {f"Hair={name}": {"1": response(0.9)} for name in "bcde"}
    one = {"control": [0.2], "state": {"Hair": 0}, "redrawn": {"Hair": response(0.2)}, "edited": changed}
    found = effects(categorical_editor.labels, settings, [one] * 4)
    assert [effect.label for effect in found] == [f"Hair={name}" for name in "bcde"]
