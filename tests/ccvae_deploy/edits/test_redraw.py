"""Drawing again until the written output is as asked: which draw stays, and what it may depend on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy.editor import Editor
from ccvae_deploy.errors import ImageError, UsageError
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.receipts import Settings
from ccvae_deploy.work import batch


def run(pictures: Path, bundle: Path, out: Path, **options) -> list[dict]:
    options = {"set": ["smiling=0.5"], "samples": 4, "until_reached": 5, "provider": "cpu", "sheet": False, **options}
    edit_folder([pictures], bundle=bundle, out=out, **options)
    return [json.loads(line) for line in (out / "receipts.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(2).integers(90, 165, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((50, 70), Image.Resampling.BICUBIC)


def test_about_half_are_redrawn_and_nearly_all_reach(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """smiling=0.5 lies between the modes, so each draw reaches about every second time."""
    once = run(pictures, tiny_bundle, tmp_path / "once", until_reached=1)
    often = run(pictures, tiny_bundle, tmp_path / "often")
    assert {row["attempt"] for row in once} == {0}
    assert 0.25 < np.mean([row["reached"] for row in once]) < 0.75
    assert np.mean([row["reached"] for row in often]) > 0.85
    assert {row["attempt"] for row in often} > {0, 1, 2}
    for first, last in zip(once, often, strict=True):
        same = (tmp_path / "once" / first["output"]).read_bytes() == (tmp_path / "often" / last["output"]).read_bytes()
        assert same == (last["attempt"] == 0)
        if first["reached"]:
            assert last["attempt"] == 0
        elif last["reached"]:
            assert last["attempt"] > 0


def test_the_kept_draw_depends_on_no_batch_shard_or_interruption(
    pictures: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    run(pictures, tiny_bundle, tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    run(pictures, tiny_bundle, tmp_path / "small", batch_size=1, workers=1)
    assert tree(tmp_path / "small") == expected
    # a part of the sources first, then all
    for name in ("a.png", "deep/e.jpg"):
        (pictures / name).rename(pictures.parent / Path(name).name)
    run(pictures, tiny_bundle, tmp_path / "parts")
    for name in ("a.png", "deep/e.jpg"):
        (pictures.parent / Path(name).name).rename(pictures / name)
    run(pictures, tiny_bundle, tmp_path / "parts")
    assert tree(tmp_path / "parts") == expected


def test_the_editor_keeps_the_same_draws(pictures: Path, tiny_bundle: Path, tmp_path: Path, editor: Editor) -> None:
    rows = [row for row in run(pictures, tiny_bundle, tmp_path / "o") if row["source"] == "a.png"]
    edit = editor.edit(pictures / "a.png", smiling=0.5, samples=4, until_reached=5)
    for row, image, receipt in zip(rows, edit.images, edit.receipts, strict=True):
        assert image.tobytes() == Image.open(tmp_path / "o" / row["output"]).tobytes()
        assert (receipt.attempt, receipt.after) == (row["attempt"], row["after"])


def test_where_none_reaches_the_nearest_stays(editor: Editor, picture: Image.Image) -> None:
    """Strength 0 aims at the opposite, so no draw smiles; the one that smiles most is kept."""
    options = {"smiling": 1, "strength": 0.0, "seed": 3}
    found = [editor.edit(picture, until_reached=n, **options).receipts[0] for n in range(1, 9)]
    assert not any(receipt.reached for receipt in found)
    smiles = [receipt.after["Smiling"] for receipt in found]
    assert smiles == sorted(smiles)
    assert len(set(smiles)) > 1
    z, before = editor.composer.encode(np.zeros((1, 3, 32, 32), np.float32)).z, np.zeros((1, 3), np.float32)
    request = editor.composer.request({"smiling": 1}, strength=0.0, seed=3)
    drawn = [float(editor.composer.edited_latents(request, z, before, [""], attempt)[0, 0, 0]) for attempt in range(8)]
    assert found[-1].attempt == int(np.argmax(drawn))


def test_of_equals_the_earlier_stays(editor: Editor, picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor.composer, "classify", lambda seen: np.full((len(seen), 3), 0.2, np.float32))
    assert editor.edit(picture, smiling=1, until_reached=4).receipts[0].attempt == 0


def test_several_labels_must_all_be_reached(editor: Editor, picture: Image.Image) -> None:
    options = {"smiling": 0.5, "young": 0.5, "samples": 20}
    once, often = (editor.edit(picture, until_reached=n, **options).receipts for n in (1, 20))
    assert np.mean([receipt.reached for receipt in once]) < 0.6
    assert all(receipt.reached for receipt in often)
    assert all(min(receipt.after["Smiling"], receipt.after["Young"]) > 0.5 for receipt in often)


def test_varied_labels_are_redrawn_until_they_stay(editor: Editor, picture: Image.Image) -> None:
    receipts = editor.edit(picture, vary=["smiling", "wearing hat"], samples=8, until_reached=10).receipts
    for receipt in receipts:
        assert receipt.asked == {"Smiling": "vary", "Wearing_Hat": "vary"}
        stayed = all((receipt.after[name] > 0.5) == (receipt.before[name] > 0.5) for name in ("Smiling", "Wearing_Hat"))
        assert receipt.reached == stayed
    assert np.mean([receipt.reached for receipt in receipts]) > 0.8
    assert len({receipt.after["Smiling"] for receipt in receipts}) == 8


def test_other_draws_are_other_settings(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    run(pictures, tiny_bundle, tmp_path / "o")
    with pytest.raises(UsageError, match="other settings"):
        run(pictures, tiny_bundle, tmp_path / "o", until_reached=6)


def test_settings_without_redraws_keep_the_id_they_had() -> None:
    settings = Settings(
        **{"bundle": "b", "edit": "smiling=1", "asked": {"smiling": 1.0}, "seed": 0, "mode": "sample"},
        **{"strength": 1.0, "confidence": 0.9, "compose": "residual", "format": "same"},
    )
    assert settings.id == "9c4380ba4544e7b3"
    assert settings.model_copy(update={"until_reached": 2}).id != settings.id


def test_a_redraw_that_cannot_be_written_fails_its_source_alone(
    pictures: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = batch.write_out, {}

    def failing(picture, *arguments):
        calls[picture.size] = calls.get(picture.size, 0) + 1
        if picture.size[0] == 40 and calls[picture.size] > 4:
            raise ImageError("no memory")
        return original(picture, *arguments)

    monkeypatch.setattr(batch, "write_out", failing)
    rows = run(pictures, tiny_bundle, tmp_path / "out")
    assert calls[40, 50] > 4
    failures = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert [(row["source"], row["reason"]) for row in failures] == [("a.png", "no memory")]
    sources = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*")}
    assert {row["source"] for row in rows} == sources - {"a.png"}
