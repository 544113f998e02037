"""The folder of an audit: what is left in it, what goes on, what is refused; what is anyone's stays whole."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy.audit.auditor import Auditor
from ccvae_deploy.audit.model import AuditedModel
from ccvae_deploy.audit.pictures import CELL
from ccvae_deploy.errors import CCVAEError, ImageError, UsageError
from ccvae_deploy.generate import generate_folder
from ccvae_deploy.merge import merge_folders
from ccvae_deploy.pipeline import edit_folder

from .conftest import by_place


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
    assert shown["redrawn"] != shown["control"]
    assert abs(shown["edited"] - shown["redrawn"]) > 0.5
    strip = Image.open(out / shown["file"])
    assert strip.format == "JPEG"
    assert strip.width > 3 * CELL
    with (out / "effects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 * 3 * 2 * 2
    mine = [row for row in rows if (row["label"], row["output"], row["strength"]) == ("Wearing_Hat", "<b>&", "1")]
    on, off = (np.mean([float(row["effect"]) for row in mine if row["to"] == to]) for to in "10")
    assert (on - off) / 2 == pytest.approx(by_place(found)["Wearing_Hat", "<b>&"].effect, abs=1e-6)


def test_an_audit_of_other_images_by_another_model_is_replaced_by_overwrite_alone(
    run, made_classifier, tmp_path: Path
) -> None:
    run()
    page = (tmp_path / "out" / "audit.html").read_bytes()
    (tmp_path / "other.onnx").write_bytes(made_classifier([(0, 4)]).SerializeToString())
    Image.new("RGB", (32, 32)).save(tmp_path / "lone.png")
    other = {"model": tmp_path / "other.onnx", "images": [tmp_path / "lone.png"]}
    with pytest.raises(UsageError, match="has an audit of 40 images with another model or other settings, such as"):
        run(**other)
    assert (tmp_path / "out" / "audit.html").read_bytes() == page
    assert run(**other, overwrite=True).sources == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": "x"}, "--strength 'x': expected a number"),
        ({"mean": ["a"]}, "--mean 'a': expected a number"),
        ({"scale": "1"}, "--scale '1': expected a number"),
        ({"threshold": None}, "--threshold None: expected a number"),
        ({"outputs": [0]}, "--outputs 0: expected text"),
        ({"provider": None}, "--provider None: known: auto"),
    ],
)
def test_options_of_another_kind_are_one_line(run, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(**options)


def test_one_strength_and_one_output_may_stand_alone(run) -> None:
    found = run(strength=1.0, outputs="1")
    assert {one.output for one in found.effects} == {"scores:1"}
    assert all(len(one.doses) == 1 for one in found.effects)


def test_strengths_from_the_redraw_to_the_furthest(run) -> None:
    found = run(strength=(10, 0), labels=["Young"], limit=2)
    assert [dose.strength for dose in found.effects[0].doses] == [1, 10]


def test_a_bad_file_is_recorded_and_the_rest_is_done(run, imgs: Path, failures, tmp_path: Path) -> None:
    (imgs / "bad.png").write_text("no image")
    found = run()
    assert (found.sources, found.failed) == (41, 1)
    assert [row["source"] for row in failures(tmp_path / "out")] == ["bad.png"]
    assert by_place(found)["Wearing_Hat", "scores:0"].images == 40


def test_after_a_run_in_which_no_image_could_be_read_the_folder_is_still_ours(run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    assert run(images=bad).failed == 1
    assert (tmp_path / "out" / "audit.html").exists()
    Image.new("RGB", (32, 32)).save(bad)
    assert run(images=bad).failed == 0


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


def test_interrupted_and_started_again_it_ends_with_the_same_bytes(run, tree, tmp_path: Path, interrupted) -> None:
    run(out=tmp_path / "whole", batch_size=4)
    with interrupted(Auditor, "records", 3):
        run(batch_size=4)
    assert not (tmp_path / "out" / "audit.json").exists()
    again = run(batch_size=4)
    assert again.skipped == 8
    whole, resumed = tree(tmp_path / "whole"), tree(tmp_path / "out")
    told = ("audit.json", "audit.html")
    assert {name: data for name, data in whole.items() if name not in told} == {
        name: data for name, data in resumed.items() if name not in told
    }
    assert json.loads(whole["audit.json"])["effects"] == json.loads(resumed["audit.json"])["effects"]


def test_one_folder_may_stand_alone(run, imgs: Path, monkeypatch) -> None:
    monkeypatch.chdir(imgs.parent)
    assert run(images=imgs.name, limit=2).sources == 2


def test_a_source_that_has_changed_is_done_again(run, imgs: Path) -> None:
    run()
    Image.new("RGB", (32, 32)).save(imgs / "00.png")
    assert run().skipped == 39


def test_a_source_that_cannot_be_read_any_more_does_not_count(run, imgs: Path, tmp_path: Path) -> None:
    run(labels=["Young"])
    (imgs / "00.png").write_text("no image")
    found = run(labels=["Young"])
    assert (found.failed, {one.images for one in found.effects}) == (1, {39})
    assert "\n00.png," not in (tmp_path / "out" / "effects.csv").read_text()


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
    for folders, target in ((out, None), (out, tmp_path / "merged")):
        with pytest.raises(UsageError, match="out holds an audit; give output folders of `edit --shard`"):
            merge_folders(folders, target)
    assert tree(out) == before
    assert not (tmp_path / "merged").exists()


def test_options_are_refused_before_anything_is_written(run, tmp_path: Path) -> None:
    for options, message in (
        ({"samples": 0}, "--samples 0"),
        ({"strength": ("2",)}, "--strength '2': expected a number"),
        ({"seed": 1.5}, r"--seed 1\.5: expected a whole number"),
        ({"limit": 0}, "--limit 0: expected 1 or more images"),
        ({"strength": (11,)}, "--strength 11"),
        ({"labels": ["hut"]}, "unknown label"),
        ({"labels": ["wearing hat", "Wearing_Hat"]}, "expected different labels"),
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


def test_an_image_is_not_replaced_by_a_picture_of_the_report(run, imgs: Path, tmp_path: Path) -> None:
    own = tmp_path / "work/pictures"
    own.parent.mkdir()
    imgs.rename(own)
    (own / "00.jpg").write_bytes((own / "00.png").read_bytes())
    before = (own / "00.jpg").read_bytes()
    with pytest.raises(UsageError, match=r"pictures/00\.jpg is among the images, where the report's pictures go"):
        run(images=[own], out=own.parent, overwrite=True, limit=10)
    assert (own / "00.jpg").read_bytes() == before
    assert not (own.parent / "audit.html").exists()


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_a_name_with_a_carriage_return_keeps_its_row(run, imgs: Path, tmp_path: Path) -> None:
    (imgs / "00.png").rename(imgs / "a\rb.png")
    run(labels=["Wearing_Hat"])
    with (tmp_path / "out/effects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "a\rb.png" in {row["source"] for row in rows}
    assert all(None not in row and None not in row.values() for row in rows)
