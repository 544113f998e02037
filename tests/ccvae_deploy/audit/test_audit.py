"""A whole audit: the label that a made classifier depends on is found, the others are cleared; folders stay whole."""

import csv
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy.audit import audit
from ccvae_deploy.audit.auditor import Auditor
from ccvae_deploy.audit.effects import effects
from ccvae_deploy.audit.model import AuditedModel, open_model
from ccvae_deploy.audit.record import AuditSettings
from ccvae_deploy.audit.results import audit_table
from ccvae_deploy.cli import app
from ccvae_deploy.editor import Editor
from ccvae_deploy.errors import CCVAEError, ImageError, UsageError
from ccvae_deploy.folder import scan
from ccvae_deploy.generate import generate_folder
from ccvae_deploy.pipeline import edit_folder

HAT = (4, 8)
"""The rows in which the made bundle sees and draws `Wearing_Hat`."""
NOTHING = (20, 24)
"""Rows of residual latents."""


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    """40 images at the bundle's size, so that no resize spreads an edit beyond its rows; half of them wear a hat."""
    folder, rng = tmp_path / "imgs", np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for i in range(40):
        rows = rng.integers(60, 200, (8, 1, 3))
        rows[HAT[0] // 4] = 180 if i % 4 < 2 else 80
        Image.fromarray(rows.repeat(4, axis=0).repeat(32, axis=1).astype(np.uint8)).save(
            folder / ("deep" if i % 2 else "") / f"{i:02d}.png"
        )
    return folder


@pytest.fixture
def theirs(made_classifier, tmp_path: Path) -> Path:
    """Two outputs: the brightness of the hat's rows, and of rows that no label touches."""
    path = tmp_path / "theirs.onnx"
    path.write_bytes(made_classifier([HAT, NOTHING]).SerializeToString())
    return path


@pytest.fixture
def run(tiny_bundle: Path, theirs: Path, imgs: Path, tmp_path: Path):
    """`audit` of `theirs` with two samples, unless other options are given."""

    def go(**options):
        base = {"model": theirs, "images": [imgs], "out": tmp_path / "out", "samples": 2, "scale": 1, "provider": "cpu"}
        return audit(tiny_bundle, **base | options)

    return go


def by_place(found) -> dict:
    return {(one.label, one.output): one for one in found.effects}


def test_the_label_it_depends_on_is_found_and_the_others_are_cleared(run) -> None:
    found = run()
    verdicts = {place: one.verdict for place, one in by_place(found).items()}
    assert verdicts.pop(("Wearing_Hat", "scores:0")) == "moves"
    assert len(verdicts) == 5
    assert set(verdicts.values()) == {"no effect found"}
    hat = by_place(found)["Wearing_Hat", "scores:0"]
    assert hat.joint_low > 0.5
    assert hat.p < 0.001
    assert (hat.images, hat.reached, hat.kept) == (40, 1, 1)
    assert hat.flips > 0.9
    assert hat.turned_on > 0.5
    assert hat.turned_off < -0.5
    assert hat.low <= hat.effect <= hat.high
    # half way between both modes lies half way, or nearly so
    assert [dose.strength for dose in hat.doses] == [0.5, 1]
    assert 0.2 * hat.effect < hat.doses[0].effect < 0.8 * hat.effect
    smiling = by_place(found)["Smiling", "scores:0"]
    assert (smiling.effect, smiling.joint_low, smiling.joint_high, smiling.flips) == (0, 0, 0, 0)


@pytest.mark.parametrize("compose", ["residual", "decode"])
def test_records_are_what_edits_and_the_model_give(run, theirs, editor: Editor, imgs, tmp_path, compose) -> None:
    run(compose=compose, labels=["wearing hat"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "receipts.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [source.relative for source in scan([imgs]).sources]
    row, path = rows[3], imgs / rows[3]["source"]
    model = open_model(theirs, scale=1, provider="cpu")
    own = row["state"]["Wearing_Hat"]

    def asked(value: int) -> list[float]:
        # the noise of the command is keyed by the path from the folder
        picture = Image.open(path)
        request = editor.request({"wearing_hat": value}, samples=2, compose=compose)
        encoded = editor.encode(np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255)
        decoded = editor.changed(request, encoded, [row["source"]])[0]
        change = (
            decoded - encoded.decoded
            if compose == "residual"
            else decoded - np.asarray(picture).transpose(2, 0, 1) / 255
        )
        pixels = np.clip(np.rint(np.asarray(picture) + 255 * change.transpose(0, 2, 3, 1)), 0, 255).astype(np.uint8)
        return model.run(pixels)[0].mean(axis=0).tolist()

    assert row["redrawn"]["Wearing_Hat"]["outputs"] == pytest.approx(asked(own), rel=1e-4)
    assert row["edited"][f"Wearing_Hat={1 - own}"]["1"]["outputs"] == pytest.approx(asked(1 - own), rel=1e-4)
    if compose == "residual":
        assert row["control"] == pytest.approx(model.run(np.asarray(Image.open(path))[None])[0][0].tolist(), rel=1e-6)


def test_a_softmax_decides_by_its_largest(run, made_classifier, tmp_path: Path) -> None:
    path = tmp_path / "softmax.onnx"
    path.write_bytes(made_classifier([HAT, NOTHING], end="Softmax").SerializeToString())
    found = by_place(run(model=path, outputs=["0=hat", "1=none"]))
    assert found["Wearing_Hat", "hat"].effect == pytest.approx(-found["Wearing_Hat", "none"].effect, abs=1e-6)
    assert found["Wearing_Hat", "hat"].flips == found["Wearing_Hat", "none"].flips > 0.5
    assert found["Young", "hat"].verdict == "no effect found"


def test_a_class_of_a_categorical_label(categorical_editor: Editor, made_classifier, tmp_path: Path) -> None:
    """The made decoder shows Hair's two latents as red and green and Hat's as blue, everywhere."""
    rng = np.random.default_rng(0)
    turns = 2 * np.pi * rng.integers(0, 5, 40) / 5
    z = np.stack([4 * np.cos(turns), 4 * np.sin(turns), rng.choice([-2, 2], 40)], axis=1)
    (tmp_path / "imgs").mkdir()
    for i, one in enumerate(z):
        colour = np.rint((one + 5) * 25.5).astype(np.uint8)
        Image.fromarray(np.tile(colour, (32, 32, 1))).save(tmp_path / "imgs" / f"{i:02d}.png")
    (tmp_path / "m.onnx").write_bytes(made_classifier([(0, 32)], channel=0).SerializeToString())
    model = open_model(tmp_path / "m.onnx", scale=1, provider="cpu")
    settings = AuditSettings(
        bundle="b", model="m", feeding=model.feeding, reading=model.reading, labels=("Hair",), samples=3, seed=0,
        strengths=(0.5, 1.0), compose="decode",
    )  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        auditor = Auditor(categorical_editor, model, settings, [0], pool)
        batch = [auditor.read(source) for source in scan([tmp_path / "imgs"]).sources]
        records = [record.model_dump() for record in auditor.records(batch)]
    assert all(len(record["edited"]) == 4 for record in records)
    found = {one.label: one for one in effects(categorical_editor.labels, settings, records)}
    assert list(found) == [f"Hair={name}" for name in "abcde"]
    # class a is all red; c and d have little of it
    assert found["Hair=a"].effect > 0.3
    assert found["Hair=a"].verdict == found["Hair=c"].verdict == found["Hair=d"].verdict == "moves"
    assert found["Hair=c"].effect < -0.1
    assert found["Hair=a"].images < 40
    assert found["Hair=a"].turned_off is None
    assert [dose.strength for dose in found["Hair=a"].doses] == [1]


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


def test_strengths_need_a_prior(run, priorless_bundle, theirs, imgs, tmp_path) -> None:
    with pytest.raises(UsageError, match="--strength needs a conditional prior"):
        audit(priorless_bundle, model=theirs, images=[imgs], out=tmp_path / "o", scale=1, strength=(0.5, 1.0, 2.0))


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


def test_what_is_left_in_the_folder(run, tmp_path: Path) -> None:
    found = run(outputs=["0=<b>&", "1"])
    out = tmp_path / "out"
    assert {"audit.html", "audit.json", "effects.csv", "receipts.jsonl", "failures.jsonl", "settings.json"} < {
        path.name for path in out.iterdir()
    }
    page = (out / "audit.html").read_text("utf-8")
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert not re.search(r"<script|https?://(?!www.w3)|src=\"(?!data:)", page)
    told = json.loads((out / "audit.json").read_text("ascii"))
    assert len(told["effects"]) == 6
    shown = told["pictures"][0]
    assert shown["edit"].startswith("Wearing_Hat=")
    assert shown["flips"] == 1
    assert Image.open(out / shown["file"]).format == "JPEG"
    with (out / "effects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 * 3 * 2 * 2
    mine = [row for row in rows if (row["label"], row["output"], row["strength"]) == ("Wearing_Hat", "<b>&", "1")]
    on, off = (np.mean([float(row["effect"]) for row in mine if row["to"] == to]) for to in "10")
    assert (on - off) / 2 == pytest.approx(by_place(found)["Wearing_Hat", "<b>&"].effect, abs=1e-6)


def test_a_bad_file_is_recorded_and_the_rest_is_done(run, imgs: Path, failures, tmp_path: Path) -> None:
    (imgs / "bad.png").write_text("no image")
    found = run()
    assert (found.sources, found.failed) == (41, 1)
    assert [row["source"] for row in failures(tmp_path / "out")] == ["bad.png"]
    assert by_place(found)["Wearing_Hat", "scores:0"].images == 40


def test_an_image_that_the_model_cannot_take_is_recorded(run, imgs, failures, tmp_path, monkeypatch) -> None:
    whole = AuditedModel.run

    def no_black(self, pixels):
        if (pixels == 0).all(axis=(1, 2, 3)).any():
            raise ImageError("--model gives scores that is not finite")
        return whole(self, pixels)

    monkeypatch.setattr(AuditedModel, "run", no_black)
    Image.new("RGB", (64, 64)).save(imgs / "black.png")
    found = run()
    assert (found.sources, found.failed) == (41, 1)
    assert [row["source"] for row in failures(tmp_path / "out")] == ["black.png"]


def test_interrupted_and_started_again_it_ends_with_the_same_bytes(run, tree, tmp_path: Path, monkeypatch) -> None:
    run(out=tmp_path / "whole", batch_size=4)
    records, calls = Auditor.records, []

    def stops(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return records(self, batch)

    monkeypatch.setattr(Auditor, "records", stops)
    with pytest.raises(KeyboardInterrupt):
        run(batch_size=4)
    assert not (tmp_path / "out" / "audit.json").exists()
    monkeypatch.setattr(Auditor, "records", records)
    again = run(batch_size=4)
    assert again.skipped == 8
    whole, resumed = tree(tmp_path / "whole"), tree(tmp_path / "out")
    told = ("audit.json", "audit.html")
    assert {name: data for name, data in whole.items() if name not in told} == {
        name: data for name, data in resumed.items() if name not in told
    }
    assert json.loads(whole["audit.json"])["effects"] == json.loads(resumed["audit.json"])["effects"]


def test_a_source_that_has_changed_is_done_again(run, imgs: Path) -> None:
    run()
    Image.new("RGB", (32, 32)).save(imgs / "00.png")
    assert run().skipped == 39


def test_other_settings_and_foreign_files_are_refused(run, tree, imgs: Path, tmp_path: Path, tiny_bundle) -> None:
    out = tmp_path / "out"
    run()
    before = tree(out)
    for options in ({"samples": 3}, {"labels": ["young"]}, {"scale": 255}, {"seed": 1}, {"outputs": ["0"]}):
        with pytest.raises(UsageError, match=r"other settings, such as 00\.png; add --overwrite"):
            run(**options)
    assert tree(out) == before
    assert run(samples=1, overwrite=True, labels=["young"]).effects[0].label == "Young"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "audit.json").write_text("mine")
    with pytest.raises(UsageError, match="is not ours"):
        run(out=mine)
    assert (mine / "audit.json").read_text() == "mine"
    with pytest.raises(UsageError, match="inside the input folder"):
        run(out=imgs / "out")


def test_an_audit_has_its_folder_for_itself(run, tree, imgs: Path, tmp_path: Path, tiny_bundle) -> None:
    out = tmp_path / "out"
    run()
    before = tree(out)
    with pytest.raises(UsageError, match="holds an audit; give another --out"):
        edit_folder([imgs], bundle=tiny_bundle, set=["smiling=1"], out=out, overwrite=True)
    with pytest.raises(UsageError, match="holds an audit; give another --out"):
        generate_folder(bundle=tiny_bundle, count=1, out=out)
    assert tree(out) == before


def test_options_are_refused_before_anything_is_written(run, tmp_path: Path) -> None:
    for options, message in (
        ({"samples": 0}, "--samples 0"),
        ({"strength": (11,)}, "--strength 11"),
        ({"labels": ["hut"]}, "unknown label"),
        ({"compose": "blend"}, "--compose"),
        ({"scale": None}, "give --scale"),
        ({"batch_size": 0}, "--batch-size"),
        ({"model": tmp_path / "none.onnx"}, "cannot be read"),
    ):
        with pytest.raises(CCVAEError, match=message):
            run(**options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError):
        run(treshold=0.3)


def test_few_images_are_not_tested(run, imgs: Path) -> None:
    found = run(images=[imgs / "00.png", imgs / "02.png"])
    assert {one.verdict for one in found.effects} == {"not tested"}


def test_a_bundle_without_a_conditional_prior(run, priorless_bundle: Path, theirs, imgs, tmp_path: Path) -> None:
    options = {"model": theirs, "images": [imgs], "out": tmp_path / "p", "samples": 2, "scale": 1, "provider": "cpu"}
    found = by_place(audit(priorless_bundle, **options))
    assert found["Wearing_Hat", "scores:0"].verdict == "moves"
    assert found["Smiling", "scores:0"].verdict == "no effect found"
    assert [dose.strength for dose in found["Wearing_Hat", "scores:0"].doses] == [1]


def test_command_line(tiny_bundle: Path, theirs: Path, imgs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (imgs / "bad.png").write_text("no image")
    given = ["audit", tiny_bundle, "--model", theirs, "--images", imgs, "--samples", 1, "--strength", "1"]
    result = CliRunner().invoke(app, [*map(str, given), "--scale", "1", "--outputs", "0=hat", "--mean", "0,0,0"])
    assert result.exit_code == 1, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert re.search(r"Wearing_Hat +hat +\+0\.\d+ .* moves", result.stdout)
    assert "audit-theirs/audit.html" in result.stdout
    refused = CliRunner().invoke(app, [*map(str, given), "--mean", "a"])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1


def test_the_table_keeps_to_80_columns_with_long_names(run) -> None:
    from rich.console import Console

    found = run(outputs=["0=" + "a very long name " * 5, "1=[red]x"])
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(audit_table(found))
    text = console.export_text()
    assert "[red]x" in text
    assert "moves" in text
    assert re.search(r"\+0\.\d{3} \+0\.\d{3}", text)
