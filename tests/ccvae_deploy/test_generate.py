"""`generate`: labels, latents, files, and runs that go on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy import generate as module
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.errors import LabelError, UsageError
from ccvae_deploy.generate import draw_labels, generate, generate_folder
from ccvae_deploy.schema import Label, LabelSet


def receipts_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "receipts.jsonl").read_text("ascii").splitlines()]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_latents_follow_the_conditional_prior_and_the_rest_is_standard_normal(composer: Composer) -> None:
    made = generate(composer, range(600), set={"smiling": 1, "young": 0}, seed=1)
    assert made.images.shape == (600, 3, 32, 32)
    assert (made.y[:, [0, 2]] == [1, 0]).all()
    # the tiny conditional prior: smiling=1 is N(3, 0.9), young=0 is N(-4, 0.4)
    assert made.z[:, 0].mean() == pytest.approx(3, abs=0.15)
    assert made.z[:, 0].std() == pytest.approx(0.9, rel=0.1)
    assert made.z[:, 2].mean() == pytest.approx(-4, abs=0.07)
    assert made.z[:, 3:].mean() == pytest.approx(0, abs=0.08)
    assert made.z[:, 3:].std() == pytest.approx(1, rel=0.05)
    assert made.y[:, 1].mean() == pytest.approx(0.2, abs=0.06)
    np.testing.assert_allclose(made.images, composer.batched(composer.bundle.decode, made.z), atol=1e-6)


def test_an_image_depends_on_its_number_alone(composer: Composer) -> None:
    many = generate(composer, range(20), set=["wearing hat=1"], seed=5)
    alone = generate(Composer(composer.bundle, batch_size=3), [13], set={"Wearing_Hat": 1}, seed=5)
    np.testing.assert_array_equal(alone.z[0], many.z[13])
    np.testing.assert_allclose(alone.images[0], many.images[13], atol=1e-6)
    free = generate(composer, [13], seed=5)
    np.testing.assert_array_equal(free.z[0, [0, 2, 3, 4, 5, 6, 7]], many.z[13, [0, 2, 3, 4, 5, 6, 7]])


def test_numbers_may_be_an_array(composer: Composer) -> None:
    expected = generate(composer, range(3)).z
    for numbers in (np.arange(3), np.arange(3, dtype=np.uint8), iter((0, 1, 2))):
        np.testing.assert_array_equal(generate(composer, numbers).z, expected)
    for numbers in ([0.5], np.arange(3.0), ["1"], 8, None, [], [-1], np.zeros((2, 2), int)):
        with pytest.raises(UsageError, match=r"numbers .*: expected one or more whole numbers of 0 or more, such as"):
            generate(composer, numbers)


def test_a_soft_value_lies_between_the_modes(composer: Composer) -> None:
    made = generate(composer, range(400), set={"smiling": 0.25})
    assert made.z[:, 0].mean() == pytest.approx(-3 + 0.25 * 6, abs=0.12)
    assert made.z[:, 0].std() == pytest.approx(0.4 + 0.25 * 0.5, rel=0.12)


def test_categorical_labels_are_drawn_with_their_shares() -> None:
    labels = LabelSet(labels=(Label(name="hair", kind="categorical", classes=("a", "b", "c")), Label(name="hat")))
    noise = np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32)
    y = draw_labels(labels, (0.5, 0.2, 0.3, 0.1), noise)
    assert np.bincount(y[:, 0].astype(int)) / 4000 == pytest.approx([0.5, 0.2, 0.3], abs=0.03)
    assert y[:, 1].mean() == pytest.approx(0.1, abs=0.02)
    # shares that do not add up to 1, and noise so far out that its distribution function is 1
    assert (draw_labels(labels, (1, 0.4, 0.6, 0.1), noise) == y).all()
    assert draw_labels(labels, (0.5, 0.2, 0.3, 0.1), np.full((1, 2), 9, np.float32)).tolist() == [[2, 0]]


def test_files_receipts_and_sheet(tiny_bundle, tmp_path) -> None:
    out = tmp_path / "g"
    outcome = generate_folder(bundle=tiny_bundle, count=10, set=["smiling=1"], out=out)
    rows = receipts_of(out)
    assert [row["output"] for row in rows] == [f"{n:06d}__smiling=1__00.png" for n in range(10)]
    assert rows[0]["asked"] == {"Smiling": 1.0}
    assert set(rows[0]["drawn"]) == {"Wearing_Hat", "Young"}
    assert outcome.written == 10
    assert outcome.reached["Smiling"] == sum(row["after"]["Smiling"] > 0.5 for row in rows) / 10 >= 0.9
    with Image.open(out / rows[0]["output"]) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (6 + 8 * 134, 26 + 2 * 134)


def test_a_greater_count_adds_and_a_second_run_does_nothing(tiny_bundle, tmp_path) -> None:
    once, grown = tmp_path / "once", tmp_path / "grown"
    generate_folder(bundle=tiny_bundle, count=9, out=once, batch_size=16)
    generate_folder(bundle=tiny_bundle, count=4, out=grown, batch_size=3)
    outcome = generate_folder(bundle=tiny_bundle, count=9, out=grown, batch_size=16)
    assert (outcome.written, outcome.skipped) == (5, 4)
    assert content(grown) == content(once)
    assert generate_folder(bundle=tiny_bundle, count=9, out=grown).written == 0
    asked = {"set": ["smiling=0.5"], "bundle": tiny_bundle}
    few, many = (
        generate_folder(count=3, out=once / "few", **asked),
        generate_folder(count=9, out=tmp_path / "m", **asked),
    )
    assert few.reached != many.reached
    # of the three that are asked, whatever else the folder holds
    assert generate_folder(count=3, out=tmp_path / "m", **asked).reached == few.reached


def test_an_interrupted_run_goes_on_to_the_same_bytes(tiny_bundle, tmp_path, interrupted) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    generate_folder(bundle=tiny_bundle, count=8, out=whole, batch_size=2)
    with interrupted(module, "generate", 3):
        generate_folder(bundle=tiny_bundle, count=8, out=cut, batch_size=2)
    outcome = generate_folder(bundle=tiny_bundle, count=8, out=cut, batch_size=2)
    assert outcome.skipped == 4
    assert content(cut) == content(whole)


def test_others_files_are_not_replaced(tiny_bundle, tmp_path) -> None:
    out = tmp_path / "g"
    generate_folder(bundle=tiny_bundle, count=2, set=["young=1"], out=out)
    before = content(out)
    with pytest.raises(UsageError, match="other settings"):
        generate_folder(bundle=tiny_bundle, count=2, set=["young=1"], seed=1, out=out)
    assert content(out) == before
    generate_folder(bundle=tiny_bundle, count=2, set=["young=0"], out=out)
    assert len(receipts_of(out)) == 4
    stranger = tmp_path / "s"
    stranger.mkdir()
    (stranger / "000001__generated__00.png").write_text("mine")
    with pytest.raises(UsageError, match="000001__generated__00"):
        generate_folder(bundle=tiny_bundle, count=2, out=stranger)
    assert content(stranger) == {"000001__generated__00.png": b"mine"}


def test_an_output_that_was_damaged_since_is_left_out_of_the_sheet(tiny_bundle, tmp_path) -> None:
    generate_folder(bundle=tiny_bundle, count=3, out=tmp_path)
    size = (tmp_path / "000001__generated__00.png").stat().st_size
    for name in ("000000", "000001", "000002"):
        (tmp_path / f"{name}__generated__00.png").write_bytes(bytes(size))
        found = generate_folder(bundle=tiny_bundle, count=3, out=tmp_path)
    assert found.sheet is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 0}, UsageError, "--count 0"),
        ({"count": 2.0}, UsageError, r"--count 2\.0: expected a whole number, 1 to 1000000"),
        ({"seed": -1}, UsageError, "--seed -1"),
        ({"seed": 1.9}, UsageError, r"--seed 1\.9: expected a whole number"),
        ({"batch_size": 0}, UsageError, "--batch-size 0"),
        ({"set": ["smilling=1"]}, LabelError, "did you mean Smiling"),
        ({"set": ["smiling=2"]}, LabelError, "a number from 0 to 1"),
    ],
)
def test_refusals(options, error, message, tiny_bundle, tmp_path) -> None:
    with pytest.raises(error, match=message):
        generate_folder(**{"bundle": tiny_bundle, "count": 1, "out": tmp_path / "g"} | options)
    assert not (tmp_path / "g").exists()


def test_without_a_conditional_prior_labels_are_drawn_where_the_classifier_is_sure(priorless_bundle, tmp_path) -> None:
    plain = Composer.open(priorless_bundle, provider="cpu")
    free, asked = generate(plain, range(300)), generate(plain, range(300), set={"smiling": 1})
    assert np.isnan(free.y).all()
    assert free.z.std() == pytest.approx(1, rel=0.05)
    assert (asked.y[:, 0] == 1).all()
    assert np.isnan(asked.y[:, 1:]).all()
    assert plain.probabilities(asked.z)[:, 0].min() >= 0.9 - 1e-6
    np.testing.assert_array_equal(asked.z[:, 1:], free.z[:, 1:])
    with pytest.raises(UsageError, match="vae-classifier bundle has no two modes to lie between"):
        generate(plain, range(3), set={"smiling": 0.5})
    generate_folder(bundle=priorless_bundle, count=2, set=["smiling=1"], out=tmp_path / "g")
    row = receipts_of(tmp_path / "g")[0]
    assert (row["asked"], row["drawn"], row["agreement"]) == ({"Smiling": 1.0}, {}, None)


def test_the_command(tiny_bundle, tmp_path) -> None:
    result = CliRunner().invoke(
        app,
        ["generate", "--set", "smiling=1", "--count", "3", "--bundle", str(tiny_bundle), "--out", str(tmp_path / "g")],
    )
    assert result.exit_code == 0, result.output
    assert "3 images" in result.stdout
    assert "Smiling: " in result.stdout
