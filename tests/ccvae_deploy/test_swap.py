"""`swap`: which blocks move, which image takes which reference, and runs that go on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy import images
from ccvae_deploy import swap_folder as module
from ccvae_deploy.cli import app
from ccvae_deploy.composer import Composer
from ccvae_deploy.errors import ImageError, LabelError, UsageError
from ccvae_deploy.pictures import compositing
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.storage.store import Store
from ccvae_deploy.swap import Swap, SwapSettings, chosen_labels
from ccvae_deploy.swap_folder import swap_folder
from ccvae_deploy.work.references import read_references


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Three grey references: dark, middling, bright, so that all labels are off, near the border, or on."""
    folder = tmp_path / "refs"
    folder.mkdir()
    for name, level in (("dark.png", 30), ("grey.png", 120), ("light.png", 230)):
        Image.fromarray(np.full((20, 20, 3), level, np.uint8)).save(folder / name)
    return folder


def receipts_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "receipts.jsonl").read_text("ascii").splitlines()]


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_only_the_named_blocks_come_from_the_reference(composer: Composer, references) -> None:
    found = read_references(composer, references, "all", 2)
    labels = chosen_labels(composer, ["young", "smiling"])
    settings = SwapSettings(bundle="", edit="e", pairs="all", references="", compose="decode", format="png")
    swap = Swap(composer, labels, found, settings, "decode")
    assert labels == (0, 2)
    z = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    bright = found.all[2].z_c
    expected = z.copy()
    expected[0, [0, 2]] = bright[[0, 2]]
    np.testing.assert_array_equal(swap.decoded(z, bright[None]), composer.batched(composer.bundle.decode, expected))


def test_every_source_takes_the_only_reference(pictures, references, tiny_bundle, composer: Composer, tmp_path) -> None:
    out = tmp_path / "o"
    outcome = swap_folder(
        [pictures], bundle=tiny_bundle, from_=references / "light.png", labels=["smiling"], out=out, format="png"
    )
    rows = receipts_of(out)
    assert (outcome.written, outcome.failed) == (9, 0)
    assert rows[0]["output"] == "a__smiling=light__00.png"
    assert rows[3]["output"] == "deep/d__smiling=light__00.png"
    assert all(row["asked"] == {"Smiling": 1.0} and row["reference"] == "light.png" for row in rows)
    assert outcome.reached["Smiling"] == sum(row["after"]["Smiling"] > 0.5 for row in rows) / 9 == 1
    assert min(row["before"]["Smiling"] for row in rows) < 0.5 < rows[0]["reference_labels"]["Smiling"]
    drift = np.mean([abs(rows[0]["after"][name] - rows[0]["before"][name]) for name in ("Wearing_Hat", "Young")])
    assert rows[0]["drift"] == pytest.approx(drift, abs=2e-6)
    written = decode((out / rows[0]["output"]).read_bytes())
    source = decode((pictures / "a.png").read_bytes())
    assert rows[0]["pixel_change"] == pytest.approx(compositing.pixel_change(source, written), abs=1e-6)
    after = composer.classify(images.network_input(written, composer.bundle.manifest.image)[None])[0]
    assert rows[0]["after"] == pytest.approx(composer.named(after), abs=2e-6)


def test_a_folder_pairs_in_the_order_of_paths(pictures, references, tiny_bundle, tmp_path) -> None:
    sources = [pictures / name for name in ("a.png", "b.jpg", "c.webp")]
    out = tmp_path / "o"
    swap_folder(sources, bundle=tiny_bundle, from_=references, labels=["young"], out=out)
    pairs = [(row["source"], row["reference"], row["sample"]) for row in receipts_of(out)]
    assert pairs == [("a.png", "dark.png", 0), ("b.jpg", "grey.png", 1), ("c.webp", "light.png", 2)]
    assert sorted(path.suffix for path in out.glob("[abc]*")) == [".jpg", ".png", ".webp"]
    with pytest.raises(UsageError, match="9 images and 3 references do not pair up; add --pairs all"):
        swap_folder([pictures], bundle=tiny_bundle, from_=references, labels=["young"], out=tmp_path / "p")


def test_all_with_all(pictures, references, tiny_bundle, tmp_path) -> None:
    outs = [tmp_path / "small", tmp_path / "large"]
    for out, batch_size in zip(outs, (2, 64), strict=True):
        outcome = swap_folder(
            [pictures],
            bundle=tiny_bundle,
            from_=references,
            labels=["smiling", "young"],
            pairs="all",
            out=out,
            batch_size=batch_size,
        )
        assert outcome.written == 27
    rows = receipts_of(outs[0])
    assert [row["reference"] for row in rows[:3]] == ["dark.png", "grey.png", "light.png"]
    hits = [[(row["after"][name] > 0.5) == value for name, value in row["asked"].items()] for row in rows]
    assert [row["reached"] for row in rows] == [all(both) for both in hits]
    assert any(any(both) != all(both) for both in hits)
    assert content(outs[0]) == content(outs[1])
    again = swap_folder(
        [pictures], bundle=tiny_bundle, from_=references, labels=["smiling", "young"], pairs="all", out=outs[0]
    )
    assert (again.written, again.skipped) == (0, 27)


def test_an_interrupted_run_goes_on_to_the_same_bytes(pictures, references, tiny_bundle, tmp_path, interrupted) -> None:
    given = {"bundle": tiny_bundle, "from_": references / "light.png", "labels": ["smiling"], "batch_size": 2}
    swap_folder([pictures], out=tmp_path / "whole", **given)
    with interrupted(module, "_do", 3):
        swap_folder([pictures], out=tmp_path / "cut", **given)
    outcome = swap_folder([pictures], out=tmp_path / "cut", **given)
    assert (outcome.written, outcome.skipped) == (5, 4)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_sheet_says_of_how_many_it_shows_the_first(references, pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    titles: list[str] = []
    draw = module.film_grid
    monkeypatch.setattr(module, "film_grid", lambda rows, title: titles.append(title) or draw(rows, title))

    def swap(name: str, from_: Path) -> str:
        swap_folder([pictures], bundle=tiny_bundle, from_=from_, labels=["smiling"], pairs="all", out=tmp_path / name)
        return titles.pop()

    assert swap("few", references) == "smiling: references above"
    for number in range(9):
        shutil.copy(references / "grey.png", references / f"{number}.png")
        shutil.copy(pictures / "a.png", pictures / f"more-{number}.png")
    assert swap("many", references) == "smiling: references above, the first 8 of 12; the first 12 of 18 images"
    assert swap("one", references / "grey.png") == "smiling: references above; the first 12 of 18 images"


def test_other_references_of_one_name_are_other_settings(pictures, references, tiny_bundle, tmp_path) -> None:
    given = {"bundle": tiny_bundle, "from_": references / "light.png", "labels": ["smiling"], "out": tmp_path / "o"}
    swap_folder([pictures], **given)
    before = content(tmp_path / "o")
    shutil.copy(references / "grey.png", references / "light.png")
    with pytest.raises(UsageError, match=r"made with other settings or by others, such as a__smiling=\w+__00\.png"):
        swap_folder([pictures], **given)
    assert content(tmp_path / "o") == before
    assert swap_folder([pictures], **given, overwrite=True).written == 9
    assert content(tmp_path / "o") != before


def test_bad_sources_and_bad_references_are_recorded(pictures, references, tiny_bundle, tmp_path) -> None:
    (pictures / "bad.png").write_text("no image")
    (pictures / "notes.txt").write_text("mine")
    (references / "broken.png").write_text("no image")
    out = tmp_path / "o"
    given = ["swap", pictures, "--from", references, "--pairs", "all", "--labels", "smiling", "--bundle", tiny_bundle]
    result = CliRunner().invoke(app, [*map(str, given), "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert "2 failed (failures.jsonl), 1 other file passed over" in " ".join(result.stdout.split())
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text("ascii").splitlines()]
    assert [failure["source"] for failure in failures] == [str(references / "broken.png"), "bad.png"]
    # the broken one comes first in the order of paths; numbers stay those of the folder
    assert {row["sample"] for row in receipts_of(out)} == {1, 2, 3}
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (6 + 4 * 134, 26 + 10 * 134)
    with pytest.raises(ImageError, match="no reference can be read"):
        swap_folder([pictures], bundle=tiny_bundle, from_=references / "broken.png", labels=["smiling"], out=out)


def test_a_twin_that_goes_leaves_no_name_to_take(references, tiny_bundle, tmp_path) -> None:
    """a.png keeps its ending beside a.bmp; alone, it would be called like what a.bmp has become alone."""
    twins, out = tmp_path / "twins", tmp_path / "out"
    twins.mkdir()
    for name in ("a.png", "a.bmp"):
        Image.new("RGB", (40, 40), "red").save(twins / name)
    given = {"from_": references / "light.png", "labels": ["smiling"], "bundle": tiny_bundle, "out": out}
    swap_folder([twins], **given)
    swap_folder([twins / "a.bmp"], **given)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert swap_folder([twins / "a.bmp"], **given).skipped == 1
    with pytest.raises(UsageError, match=r"such as a__smiling=.*png; add --overwrite"):
        swap_folder([twins / "a.png"], **given)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_source_whose_results_cannot_be_written_is_recorded_and_leaves_nothing(
    pictures, references, tiny_bundle, tmp_path, monkeypatch
) -> None:
    out, original = tmp_path / "o", Store.write

    def write(store: Store, relative: str, data: bytes) -> None:
        if relative.startswith("a__") and "light" in relative:
            raise ImageError("its results cannot be named: file name too long")
        original(store, relative, data)

    monkeypatch.setattr(Store, "write", write)
    found = swap_folder([pictures], bundle=tiny_bundle, from_=references, pairs="all", labels=["smiling"], out=out)
    assert (found.written, found.failed) == (8 * 3, 1)
    assert "file name too long" in (out / "failures.jsonl").read_text()
    assert not list(out.glob("a__*"))
    assert {row["source"] for row in receipts_of(out)} == {row["source"] for row in receipts_of(out)} - {"a.png"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["smilin"]}, LabelError, "did you mean Smiling"),
        ({"labels": []}, UsageError, "one or more different labels"),
        ({"labels": ["smiling", "SMILING"]}, UsageError, "one or more different labels"),
        ({"pairs": "some"}, UsageError, "--pairs 'some'"),
        ({"compose": "paint"}, UsageError, "--compose 'paint'"),
        ({"format": "bmp"}, UsageError, "--format 'bmp'"),
        ({"batch_size": 0}, UsageError, "--batch-size 0"),
        ({"from_": Path("absent")}, UsageError, "absent does not exist"),
    ],
)
def test_refusals(options, error, message, pictures, references, tiny_bundle, tmp_path) -> None:
    given = {"bundle": tiny_bundle, "from_": references / "grey.png", "labels": ["smiling"], "out": tmp_path / "o"}
    with pytest.raises(error, match=message):
        swap_folder([pictures], **given | options)
    assert not (tmp_path / "o").exists()


def test_results_do_not_land_in_the_references(pictures, references, tiny_bundle) -> None:
    with pytest.raises(UsageError, match="inside the input folder"):
        swap_folder(
            [pictures], bundle=tiny_bundle, from_=references, pairs="all", labels=["smiling"], out=references / "o"
        )


def test_categorical_labels_swap_to_the_references_class(categorical_composer: Composer, tmp_path) -> None:
    for name, levels in (("a.png", (230, 128, 128)), ("c.png", (44, 188, 128))):
        Image.fromarray(np.full((32, 32, 3), levels, np.uint8)).save(tmp_path / name)
    found = read_references(categorical_composer, tmp_path, "all", 1)
    assert [int(one.probabilities[:5].argmax()) for one in found.all] == [0, 2]
