"""Effects of made records: what counts as one, and what an edit does whichever way it goes does not."""

from pathlib import Path

import numpy as np
import pytest

from ccvae_deploy.audit.effects import effects, verdict
from ccvae_deploy.audit.model import open_model
from ccvae_deploy.audit.record import AuditSettings
from ccvae_deploy.composer import Composer

from .conftest import HAT


def response(output: float, flips: float = 0.0, reached: float = 1.0) -> dict:
    return {"outputs": [output], "flips": [flips], "reached": reached}


def hair(made_classifier, tmp_path: Path) -> AuditSettings:
    """An audit of `Hair`, on one output."""
    (tmp_path / "m.onnx").write_bytes(made_classifier([(0, 32)], channel=0).SerializeToString())
    model = open_model(tmp_path / "m.onnx", scale=1, provider="cpu")
    return AuditSettings(
        bundle="b", model="m", feeding=model.feeding, reading=model.reading, labels=("Hair",), samples=1, seed=0,
        strengths=(1.0,), compose="decode",
    )  # fmt: skip


@pytest.fixture
def made_effects(composer: Composer, made_classifier, tmp_path: Path):
    """The effect of `Young` on one output, of records made of pairs: the state, and what the edit adds to 0.2."""
    (tmp_path / "m.onnx").write_bytes(made_classifier([HAT]).SerializeToString())
    model = open_model(tmp_path / "m.onnx", scale=1, provider="cpu")
    settings = AuditSettings(
        bundle="b", model="m", feeding=model.feeding, reading=model.reading, labels=("Young",), samples=1, seed=0,
        strengths=(1.0,), compose="residual",
    )  # fmt: skip

    def make(images: list[tuple[int, float]], reached: float = 1.0, off: float | None = None):
        records = [
            {
                "state": {"Young": own},
                "control": [0.1 + 0.001 * (i % 10)],
                "redrawn": {"Young": response(0.2)},
                "edited": {
                    f"Young={1 - own}": {
                        "1": response(0.2 + shift, reached=off if own and off is not None else reached)
                    }
                },
            }
            for i, (own, shift) in enumerate(images)
        ]
        return effects(composer.labels, settings, records)[0]

    return make


def test_what_an_edit_does_whichever_way_it_goes_is_no_effect_of_the_label(made_effects) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 100)
    # 80 images are turned on, 20 off, and each time the output rises
    found = made_effects([(int(i >= 80), 0.3 + noise[i]) for i in range(100)])
    assert abs(found.effect) < 0.01
    assert found.verdict == "no effect found"
    assert found.either_way == pytest.approx(0.3, abs=0.01)
    assert found.against_control == pytest.approx(0, abs=0.01)
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
    assert made_effects(signed(0.2, 0.01)[:20]).verdict == "moves"
    assert made_effects(signed(0.2, 0.01)[:19]).verdict == "not tested"
    # three images of the other kind are too few to say anything
    lone = made_effects([*[(0, 0.2 + 0.01 * one) for one in noise[:50]], *[(1, -9.0)] * 3])
    assert lone.effect == pytest.approx(0.2, abs=0.01)
    assert (lone.turned_off, lone.either_way) == (pytest.approx(-9.0), None)
    # from 0.1045 to 0.4
    assert lone.against_control == pytest.approx(0.2955, abs=0.01)


@pytest.mark.parametrize(
    ("effect", "images", "reached", "said"),
    [
        (-0.2, 20, 0.0, "moves"),
        (0.19, 20, 0.0, "moves slightly"),
        (0.1, 20, 0.5, "no effect found"),
        (0.1, 20, 0.49, "not tested"),
        (0.2, 19, 1.0, "not tested"),
    ],
)
def test_bounds_of_a_verdict(effect: float, images: int, reached: float, said: str) -> None:
    assert verdict(effect, 0.1, 1.0, images, reached) == said


def test_shares_are_those_of_the_images_that_the_effect_is_told_of(made_effects) -> None:
    found = made_effects([*[(0, 0.2)] * 20, *[(1, -0.2)] * 9], off=0.0)
    assert (found.images, found.reached) == (20, 1.0)
    assert made_effects([*[(0, 0.2)] * 20, *[(1, -0.2)] * 10], off=0.0).reached == pytest.approx(2 / 3)


def test_the_spread_of_a_saturated_output_is_exact(
    categorical_composer: Composer, made_classifier, tmp_path: Path
) -> None:
    """At 1 a float32 has steps of 6e-8, and sums of many images steps far beyond."""
    settings = hair(made_classifier, tmp_path)
    changed = {f"Hair={name}": {"1": response(1.0)} for name in "bcde"}
    values = 1 - 6e-8 * np.random.default_rng(0).integers(0, 4, 3000)
    records = [
        {"control": [value], "state": {"Hair": 0}, "redrawn": {"Hair": response(1.0)}, "edited": changed}
        for value in values
    ]
    assert effects(categorical_composer.labels, settings, records)[0].spread == pytest.approx(values.std(), rel=0.01)


def test_of_one_image_nothing_is_significant(made_effects) -> None:
    found = made_effects([(0, 0.5)])
    assert (found.images, found.p, found.verdict) == (1, 1.0, "not tested")


def test_a_class_with_too_few_images_does_not_widen_the_intervals_of_others(
    categorical_composer: Composer, made_classifier, tmp_path: Path
) -> None:
    settings = hair(made_classifier, tmp_path)
    rng = np.random.default_rng(0)

    def record(own: int) -> dict:
        changed = {f"Hair={name}": {"1": response(rng.normal())} for name in "bcde"[own:]}
        # of the twelve that can be turned to it, one moves far
        changed |= {"Hair=a": {"1": response(rng.exponential() ** 4)}} if own else {}
        return {
            "control": [rng.normal()],
            "state": {"Hair": own},
            "redrawn": {"Hair": response(0.0)},
            "edited": changed,
        }

    records = [record(0) for _ in range(100)] + [record(1) for _ in range(12)]
    found = {one.label: one for one in effects(categorical_composer.labels, settings, records)}
    assert (found["Hair=a"].images, found["Hair=a"].verdict) == (12, "not tested")
    for name in "bcde":
        one = found[f"Hair={name}"]
        # of four tests alone: 2.5 of a normal variable, where one has 1.96
        assert 1.15 < (one.joint_high - one.joint_low) / (one.high - one.low) < 1.4


def test_a_class_that_all_images_have_already_is_left_out(
    categorical_composer: Composer, made_classifier, tmp_path
) -> None:
    settings = hair(made_classifier, tmp_path)
    changed = {f"Hair={name}": {"1": response(0.9)} for name in "bcde"}
    one = {"control": [0.2], "state": {"Hair": 0}, "redrawn": {"Hair": response(0.2)}, "edited": changed}
    found = effects(categorical_composer.labels, settings, [one] * 4)
    assert [effect.label for effect in found] == [f"Hair={name}" for name in "bcde"]
