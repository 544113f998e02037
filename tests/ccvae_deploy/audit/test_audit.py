"""A whole audit: the label that a made classifier depends on is found, the others are cleared."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy.audit import audit
from ccvae_deploy.audit.auditor import Auditor
from ccvae_deploy.audit.effects import effects
from ccvae_deploy.audit.model import open_model
from ccvae_deploy.audit.record import AuditSettings
from ccvae_deploy.audit.results import audit_table
from ccvae_deploy.audit.table import number
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.errors import UsageError
from ccvae_deploy.folder import scan

from .conftest import HAT, NOTHING, by_place


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
def test_records_are_what_edits_and_the_model_give(run, theirs, composer: Composer, imgs, tmp_path, compose) -> None:
    run(compose=compose, labels=["wearing hat"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "receipts.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [source.relative for source in scan([imgs]).sources]
    row, path = rows[3], imgs / rows[3]["source"]
    model = open_model(theirs, scale=1, provider="cpu")
    own = row["state"]["Wearing_Hat"]

    def asked(value: int) -> list[float]:
        # the noise of the command is keyed by the path from the folder
        picture = Image.open(path)
        request = composer.request({"wearing_hat": value}, samples=2, compose=compose)
        encoded = composer.encode(np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255)
        decoded = composer.changed(request, encoded, [row["source"]])[0]
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


def test_a_class_of_a_categorical_label(categorical_composer: Composer, made_classifier, tmp_path: Path) -> None:
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
        auditor = Auditor(categorical_composer, model, settings, [0], pool)
        batch = [auditor.read(source) for source in scan([tmp_path / "imgs"]).sources]
        records = [record.model_dump() for record in auditor.records(batch)]
    assert all(len(record["edited"]) == 4 for record in records)
    found = {one.label: one for one in effects(categorical_composer.labels, settings, records)}
    assert list(found) == [f"Hair={name}" for name in "abcde"]
    # class a is all red; c and d have little of it
    assert found["Hair=a"].effect > 0.3
    assert found["Hair=a"].verdict == found["Hair=c"].verdict == found["Hair=d"].verdict == "moves"
    assert found["Hair=c"].effect < -0.1
    assert found["Hair=a"].images < 40
    assert found["Hair=a"].turned_off is None
    assert [dose.strength for dose in found["Hair=a"].doses] == [1]


def test_strengths_need_a_prior(run, priorless_bundle, theirs, imgs, tmp_path) -> None:
    with pytest.raises(UsageError, match="--strength needs a conditional prior"):
        audit(priorless_bundle, model=theirs, images=[imgs], out=tmp_path / "o", scale=1, strength=(0.5, 1.0, 2.0))


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

    def printed(found) -> str:
        console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
        console.print(audit_table(found))
        return console.export_text()

    found = run(outputs=["0=" + "a very long name " * 5, "1=[red]x"])
    text = printed(found)
    assert "[red]x" in text
    assert "moves" in text
    assert re.search(r"\+0\.\d{3} \+0\.\d{3}", text)
    assert "pairs of label and output" not in text
    assert "24 of 30 pairs of label and output; all in the report" in printed(replace(found, effects=found.effects * 5))


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.1234, 0.3, "+0.123"),
        (0.0004, 0.001, "+0.0004"),
        (-4e-5, 1e-4, "-4.0e-05"),
        (123.4, 50, "+1.2e+02"),
        (0.5, 0, "+0.500"),
    ],
)
def test_figures_have_the_places_that_their_output_needs(value: float, spread: float, text: str) -> None:
    assert number(value, spread) == text
