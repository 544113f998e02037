"""Folders: nothing lost, nothing half-written, the same bytes whatever the batches, workers, order, shards or kills."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy import images, pipeline
from ccvae_deploy.bundle import Bundle
from ccvae_deploy.errors import BundleError, EngineError
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.pictures.rendering import look_again
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records.summary import BINS, _median, drift_text, summary_table
from ccvae_deploy.schema import ImageSpec
from ccvae_deploy.storage.source_file import read_file
from ccvae_deploy.work import batch


def test_mirrors_the_tree_and_records_every_output(pictures, tmp_path, run, tree, receipts) -> None:
    out = tmp_path / "out"
    summary = run(out)
    files = set(tree(out))
    assert {
        "a__smiling=1__00.png",
        "b__smiling=1__02.jpg",
        "deep/er/f__smiling=1__01.png",
        "c__smiling=1__00.webp",
    } <= files
    assert len(files) == 27 + 4
    rows = receipts(out)
    assert [row["output"] for row in rows] == sorted(
        files - {"receipts.jsonl", "failures.jsonl", "settings.json", "sheet.png"}
    )
    assert (summary.sources, summary.written, summary.failed, summary.receipts) == (9, 27, 0, 27)
    assert summary.reached["Smiling"] == pytest.approx(np.mean([row["reached"] for row in rows]))
    moves = [abs(row["after"]["Young"] - row["before"]["Young"]) for row in rows]
    assert summary.drift["Young"] == pytest.approx(np.median(moves), abs=1e-4)
    for row in rows:
        with Image.open(out / row["output"]) as result, Image.open(pictures / row["source"]) as source:
            assert result.size == source.size
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 3 * 128
    from rich.console import Console

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(summary_table(summary))
    assert max(map(len, console.export_text().splitlines())) <= 80


@pytest.mark.parametrize("moves", [[0.3], [0.0, 0.9], [0.1, 0.1, 0.4, 0.5], [0.0, 0.2, 1.0]])
def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle(moves) -> None:
    counted = np.bincount(np.rint(np.array(moves) * BINS).astype(int), minlength=BINS + 1)
    assert _median(counted) == pytest.approx(np.median(moves), abs=1e-4)


@pytest.mark.parametrize(
    ("drift", "text"),
    [
        ({"a": 0.0004, "b": 0.01, "c": 0.2}, "median change of other labels: c 0.200, b 0.010, all others 0.000"),
        ({"a": 0.0, "b": 0.0}, "median change of other labels: 0.000 each"),
        ({"a": 0.1}, "median change of other labels: a 0.100"),
        ({}, "no other label"),
    ],
)
def test_the_drift_of_every_label_is_told(drift: dict[str, float], text: str) -> None:
    assert drift_text(Namespace(drift=drift)) == text


def test_receipts_describe_the_written_files(tmp_path, composer, run, receipts) -> None:
    from ccvae_deploy.images import network_input

    run(tmp_path / "out")
    for row in receipts(tmp_path / "out"):
        picture = decode((tmp_path / "out" / row["output"]).read_bytes())
        after = composer.classify(network_input(picture, composer.bundle.manifest.image)[None])[0]
        assert list(row["after"].values()) == pytest.approx(list(map(float, after)), abs=1e-5)


def test_figures_are_those_of_what_is_asked_whatever_else_the_folder_holds(pictures, tmp_path, run) -> None:
    alone = run(tmp_path / "alone", pictures / "a.png", samples=1)
    whole = run(tmp_path / "whole", samples=3, report=True)
    again = run(tmp_path / "whole", pictures / "a.png", samples=1, report=True)
    assert (whole.receipts, again.receipts, again.skipped) == (27, 1, 1)
    for figure in ("asked", "reached", "drift", "pixel_change", "control"):
        assert getattr(again, figure) == getattr(alone, figure)
    assert (tmp_path / "whole" / "report.html").read_text("utf-8").count('class="pair"') <= 2


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3, "workers": 4}, {"batch_size": 64, "workers": 1}]
)
def test_batches_and_workers_change_no_byte(tmp_path, expected, options, run, tree) -> None:
    run(tmp_path / "out", **options)
    assert tree(tmp_path / "out") == expected


def test_shards_together_are_the_whole(tmp_path, expected, run, tree) -> None:
    for index in range(3):
        run(tmp_path / "out", shard=f"{index}/3")
    found = tree(tmp_path / "out")
    images = {name: data for name, data in found.items() if "__smiling=1__" in name}
    assert images == {name: data for name, data in expected.items() if "__smiling=1__" in name}
    lines = [line for i in range(3) for line in found[f"receipts-{i}-of-3.jsonl"].splitlines()]
    assert sorted(lines) == sorted(expected["receipts.jsonl"].splitlines())


def test_one_bad_file_in_a_hundred(tmp_path, run, failures) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(99):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "050-bad.png").write_bytes(b"no image at all")
    summary = run(tmp_path / "out", inputs=folder, samples=1)
    assert (summary.sources, summary.written, summary.failed) == (100, 99, 1)
    assert failures(tmp_path / "out") == [
        {"source": "050-bad.png", "error": "ImageError", "reason": "not an image, or of an unknown kind"}
    ]


def test_what_ends_work_in_its_middle_ends_with_1(pictures, tmp_path, run, tree, expected, monkeypatch) -> None:
    decode, calls = Bundle.decode, iter(range(100))

    def failing(self, z):
        if next(calls) == 3:
            raise BundleError("decoder.onnx cannot run on 4 rows: out of memory")
        return decode(self, z)

    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "decode", failing)
        with pytest.raises(EngineError, match="out of memory") as caught:
            run(tmp_path / "out", batch_size=1)
    assert caught.value.exit_code == 1
    run(tmp_path / "out", batch_size=1)
    assert tree(tmp_path / "out") == expected


def test_a_failed_source_is_not_read_again_for_the_sheet(tmp_path, run, monkeypatch) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "bad.png").write_bytes(b"no image at all")
    asked, read = [], read_file

    def counted(path, *rest):
        asked.append(Path(path).name)
        return read(path, *rest)

    for reader in (batch, pipeline):
        monkeypatch.setattr(reader, "read_file", counted)
    assert run(tmp_path / "out", inputs=folder).sheet
    assert asked.count("bad.png") == 1


def test_every_kind_of_bad_and_odd_file(tmp_path, run, receipts, failures) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    base = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    base.save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("hello")
    Image.new("L", (12_000, 12_000)).save(folder / "bomb.png")
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "absent.png")
    os.mkfifo(folder / "pipe.png")
    base.convert("RGBA").save(folder / "rgba.png")
    base.convert("L").save(folder / "grey.png")
    base.quantize(8).save(folder / "palette.png")
    base.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(folder / "deep.png")
    if os.geteuid() != 0:
        base.save(folder / "secret.png")
        (folder / "secret.png").chmod(0)
    run(tmp_path / "out", inputs=folder, samples=1)
    reasons = {row["source"]: row["reason"] for row in failures(tmp_path / "out")}
    secret = {"secret.png"} if os.geteuid() != 0 else set()
    assert set(reasons) == {"truncated.jpg", "empty.png", "text.png", "bomb.png", "gone.png", "pipe.png"} | secret
    assert "limit" in reasons["bomb.png"]
    assert reasons["empty.png"] == "empty file"
    done = {row["source"] for row in receipts(tmp_path / "out")}
    assert done == {"whole.jpg", "rgba.png", "grey.png", "palette.png", "cmyk.jpg", "deep.png"}


def test_unreadable_file_is_a_failure_with_its_reason(tmp_path, monkeypatch, run, failures) -> None:
    opened = os.open

    def refusing(path, *arguments):
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refusing)
    assert run(tmp_path / "out").failed == 1
    assert failures(tmp_path / "out")[0]["reason"] == "unreadable: permission denied"


def test_a_picture_that_its_format_does_not_take_is_a_failure(tmp_path, run, receipts, failures) -> None:
    (tmp_path / "imgs").mkdir()
    Image.new("L", (17_000, 10)).save(tmp_path / "imgs" / "long.png")
    Image.new("L", (40, 40)).save(tmp_path / "imgs" / "short.png")
    summary = run(tmp_path / "out", inputs=tmp_path / "imgs", samples=2, format="webp")
    assert (summary.written, summary.failed) == (2, 1)
    reason = "17,000 x 10 pixels, the limit of a side in webp is 16,383; take --format png"
    assert failures(tmp_path / "out")[0]["reason"] == reason
    assert {row["source"] for row in receipts(tmp_path / "out")} == {"short.png"}


def test_two_sources_with_one_stem(tmp_path, run, tree) -> None:
    (tmp_path / "imgs").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (40, 40), "teal").save(tmp_path / "imgs" / name)
    run(tmp_path / "out", inputs=tmp_path / "imgs", samples=1)
    assert {"a.png__smiling=1__00.png", "a.jpg__smiling=1__00.jpg"} <= set(tree(tmp_path / "out"))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_formats(tmp_path, format, run, receipts) -> None:
    run(tmp_path / "out", format=format, samples=1)
    for row in receipts(tmp_path / "out"):
        with Image.open(tmp_path / "out" / row["output"]) as image:
            assert image.format == format.upper()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"format": "gif"}, "--format 'gif'"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": "3"}, "--batch-size '3': expected a whole number, 1 to 4096"),
        ({"workers": 0}, "--workers 0"),
        ({"workers": "2"}, "--workers '2': expected a whole number, 1 to 256"),
        ({"shard": "2/2"}, "--shard"),
        ({"provider": "gpu"}, "--provider 'gpu'"),
        ({"set": ["smyling=1"]}, "did you mean Smiling"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, options, message, run) -> None:
    with pytest.raises(Exception, match=message) as caught:
        run(tmp_path / "out", **options)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_default_output_folder(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = edit_folder([pictures], bundle=tiny_bundle, set=["smiling=1"], provider="cpu")
    assert summary.out == Path("imgs-edited")
    shutil.rmtree("imgs-edited")


def test_edits_without_torch(pictures, tiny_bundle, tmp_path, run, receipts) -> None:
    """A finder that refuses torch stands in for a machine that has none."""
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from ccvae_deploy.cli import app\n"
        "app(['edit', sys.argv[1], '--set', 'smiling=1', '--samples', '8', '--bundle', sys.argv[2],"
        " '--out', sys.argv[3]])\n"
    )
    command = [sys.executable, "-c", script, pictures, tiny_bundle, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CPUExecutionProvider" in done.stdout
    assert len(receipts(tmp_path / "out")) == 72


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_written_jpeg_is_seen_as_any_reader_sees_it(mode: str, channels: int) -> None:
    """The short way of looking at our own files gives what the rules for all files give."""
    noise = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    result = images.from_pil(Image.fromarray(noise).convert(mode))
    data, spec = images.encode(result, "jpeg"), ImageSpec(size=32, channels=channels)
    written, seen = look_again(result, data, "jpeg", spec)
    expected = decode(data)
    assert (written.pixels == expected.pixels).all()
    assert (seen == images.network_input(expected, spec)).all()
