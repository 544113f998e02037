"""Folders: nothing lost, nothing half-written, the same bytes whatever the batches, workers, order, shards or kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy import pipeline
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.summary import Summary, summary_table


def run(pictures: Path, bundle: Path, out: Path, **options) -> Summary:
    return edit_folder(
        [pictures], bundle=bundle, out=out, **{"set": ["smiling=1"], "samples": 3, "provider": "cpu", **options}
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def receipts(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "receipts.jsonl").read_text().splitlines()]


def failures(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


@pytest.fixture
def expected(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> dict[str, bytes]:
    """The output folder of an undisturbed run."""
    run(pictures, tiny_bundle, tmp_path / "expected")
    return tree(tmp_path / "expected")


def test_mirrors_the_tree_and_records_every_output(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(pictures, tiny_bundle, out)
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
    for row in rows:
        with Image.open(out / row["output"]) as result, Image.open(pictures / row["source"]) as source:
            assert result.size == source.size
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 3 * 128
    from rich.console import Console

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(summary_table(summary))
    assert max(map(len, console.export_text().splitlines())) <= 80


def test_receipts_describe_the_written_files(pictures: Path, tiny_bundle: Path, tmp_path: Path, editor) -> None:
    from ccvae_deploy.images import decode, network_input

    run(pictures, tiny_bundle, tmp_path / "out")
    for row in receipts(tmp_path / "out"):
        picture = decode((tmp_path / "out" / row["output"]).read_bytes())
        after = editor.classify(network_input(picture, editor.bundle.manifest.image)[None])[0]
        assert list(row["after"].values()) == pytest.approx(list(map(float, after)), abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3, "workers": 4}, {"batch_size": 64, "workers": 1}]
)
def test_batches_and_workers_change_no_byte(pictures, tiny_bundle, tmp_path, expected, options) -> None:
    run(pictures, tiny_bundle, tmp_path / "out", **options)
    assert tree(tmp_path / "out") == expected


def test_shards_together_are_the_whole(pictures, tiny_bundle, tmp_path, expected) -> None:
    for index in range(3):
        run(pictures, tiny_bundle, tmp_path / "out", shard=f"{index}/3")
    found = tree(tmp_path / "out")
    images = {name: data for name, data in found.items() if "__smiling=1__" in name}
    assert images == {name: data for name, data in expected.items() if "__smiling=1__" in name}
    lines = [line for i in range(3) for line in found[f"receipts-{i}-of-3.jsonl"].splitlines()]
    assert sorted(lines) == sorted(expected["receipts.jsonl"].splitlines())


@pytest.mark.parametrize("stage", ["_read", "_write", "_finish", "_start"])
@pytest.mark.parametrize("after", [0, 4])
def test_interrupted_at_any_stage_and_resumed(
    pictures, tiny_bundle, tmp_path, expected, monkeypatch, stage, after
) -> None:
    calls = []
    original = getattr(pipeline, stage)

    def interrupting(*arguments):
        calls.append(stage)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(pictures, tiny_bundle, tmp_path / "out", batch_size=2, workers=2)
    run(pictures, tiny_bundle, tmp_path / "out")
    assert tree(tmp_path / "out") == expected


def test_killed_and_started_again(pictures, tiny_bundle, tmp_path, expected) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ccvae_deploy import ledger, pipeline\n"
        "record = ledger.Ledger.record\ncount = 0\n"
        "def deadly(self, *arguments):\n"
        "    global count\n    count += 1\n"
        "    if count == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    record(self, *arguments)\n"
        "ledger.Ledger.record = deadly\n"
        "pipeline.edit_folder([Path(sys.argv[1])], bundle=Path(sys.argv[2]), out=Path(sys.argv[3]), set=['smiling=1'],"
        " samples=3, provider='cpu', batch_size=2)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", script, pictures, tiny_bundle, out], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert (out / ".journal.jsonl").exists()
    assert run(pictures, tiny_bundle, out).skipped == 4
    assert tree(out) == expected


def test_a_second_run_does_nothing_again(pictures, tiny_bundle, tmp_path, expected) -> None:
    out = tmp_path / "expected"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*__*")}
    summary = run(pictures, tiny_bundle, out)
    assert (summary.written, summary.skipped, summary.receipts) == (0, 9, 27)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*__*")} == before
    assert tree(out) == expected


def test_more_samples_keep_the_first_ones(pictures, tiny_bundle, tmp_path, expected) -> None:
    out = tmp_path / "expected"
    run(pictures, tiny_bundle, out, samples=5)
    found = tree(out)
    assert all(found[name] == data for name, data in expected.items() if "__smiling=1__" in name)
    assert len(receipts(out)) == 45


def test_deleted_outputs_are_made_again(pictures, tiny_bundle, tmp_path, expected) -> None:
    (tmp_path / "expected/a__smiling=1__02.png").unlink()
    assert run(pictures, tiny_bundle, tmp_path / "expected").written == 3
    assert tree(tmp_path / "expected") == expected


def test_other_settings_are_refused_and_other_edits_added(pictures, tiny_bundle, tmp_path, expected) -> None:
    out = tmp_path / "expected"
    with pytest.raises(UsageError, match=r"made with other settings, such as a\.png; add --overwrite"):
        run(pictures, tiny_bundle, out, seed=1)
    assert tree(out) == expected
    run(pictures, tiny_bundle, out, set=["young=0"])
    assert all(tree(out)[name] == data for name, data in expected.items() if "__smiling=1__" in name)
    run(pictures, tiny_bundle, out, seed=1, overwrite=True)
    assert tree(out)["a__smiling=1__00.png"] != expected["a__smiling=1__00.png"]
    assert {row["seed"] for row in receipts(out) if "smiling" in row["asked"]} == {1}


def test_a_users_own_file_is_never_replaced(pictures, tiny_bundle, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a__smiling=1__00.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        run(pictures, tiny_bundle, out)
    assert tree(out) == {"a__smiling=1__00.png": b"mine"}


def test_a_source_that_changed_is_done_again(pictures, tiny_bundle, tmp_path, expected) -> None:
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png")
    out = tmp_path / "expected"
    summary = run(pictures, tiny_bundle, out)
    assert (summary.written, summary.skipped, summary.failed) == (3, 8, 0)
    run(pictures, tiny_bundle, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    assert tree(out)["a__smiling=1__00.png"] != expected["a__smiling=1__00.png"]


def test_a_changed_source_leaves_no_stale_output(pictures, tiny_bundle, tmp_path, expected) -> None:
    """Its format, and with it the ending, is another now, and fewer samples are asked."""
    out = tmp_path / "expected"
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    run(pictures, tiny_bundle, out, samples=2)
    assert sorted(name for name in tree(out) if name.startswith("a__")) == [f"a__smiling=1__0{k}.jpg" for k in (0, 1)]
    assert [row["output"] for row in receipts(out)][:3] == [
        "a__smiling=1__00.jpg",
        "a__smiling=1__01.jpg",
        "b__smiling=1__00.jpg",
    ]


def test_a_stale_output_that_its_owner_has_changed_stays(pictures, tiny_bundle, tmp_path, expected) -> None:
    out = tmp_path / "expected"
    (out / "a__smiling=1__01.png").write_bytes(b"retouched")
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    run(pictures, tiny_bundle, out)
    assert [name for name in tree(out) if name.startswith("a__") and name.endswith("png")] == ["a__smiling=1__01.png"]
    assert (out / "a__smiling=1__01.png").read_bytes() == b"retouched"


@pytest.mark.parametrize("after", range(5))
def test_killed_while_a_changed_source_is_done_again(
    pictures, tiny_bundle, tmp_path, expected, monkeypatch, after
) -> None:
    """Then the source is as it was: nothing of its other version may pass for done."""
    from ccvae_deploy.store import Store

    original, (write, remove) = (pictures / "a.png").read_bytes(), (Store.write, Store.remove)
    calls = []

    def interrupting(method):
        def call(self, *arguments):
            calls.append(method)
            if len(calls) == after + 1:
                raise KeyboardInterrupt
            return method(self, *arguments)

        return call

    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", interrupting(write))
        patch.setattr(Store, "remove", interrupting(remove))
        with pytest.raises(KeyboardInterrupt):
            run(pictures, tiny_bundle, tmp_path / "expected")
    (pictures / "a.png").write_bytes(original)
    run(pictures, tiny_bundle, tmp_path / "expected")
    found = tree(tmp_path / "expected")
    stale = {name for name in found if name.startswith("a__") and name.endswith(".jpg")}
    assert {name: data for name, data in found.items() if name not in stale} == expected
    # at most the files that no record came to explain
    assert len(stale) <= max(0, after - 3)


def test_a_source_that_changed_into_no_image_keeps_its_results(pictures, tiny_bundle, tmp_path, expected) -> None:
    (pictures / "a.png").write_bytes(b"no image")
    out = tmp_path / "expected"
    assert run(pictures, tiny_bundle, out).failed == 1
    found = tree(out)
    assert [row["source"] for row in failures(out)] == ["a.png"]
    assert found["receipts.jsonl"] == expected["receipts.jsonl"]
    assert found["a__smiling=1__00.png"] == expected["a__smiling=1__00.png"]


def test_a_source_deleted_or_changed_while_running(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    """One goes after the scan, one becomes another picture: the first fails, the second is done as it was read."""
    other = Image.new("RGB", (40, 40), "red")
    start = pipeline._start

    def disturbing(*arguments):
        (pictures / "i.jpeg").unlink(missing_ok=True)
        other.save(pictures / "a.png")
        return start(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_start", disturbing)
        summary = run(pictures, tiny_bundle, tmp_path / "out", batch_size=1, workers=1)
    assert (summary.failed, summary.sources) == (1, 9)
    assert failures(tmp_path / "out")[0] == {
        "source": "i.jpeg",
        "error": "ImageError",
        "reason": "unreadable: no such file or directory",
    }
    again = run(pictures, tiny_bundle, tmp_path / "out")
    assert (again.written, again.failed) == (3, 0)
    run(pictures, tiny_bundle, tmp_path / "fresh")
    mine = {name: data for name, data in tree(tmp_path / "out").items() if name != "receipts.jsonl"}
    assert mine == {name: data for name, data in tree(tmp_path / "fresh").items() if name != "receipts.jsonl"}


@pytest.mark.parametrize("damage", [b"", b"\x89PNG"])
def test_an_output_that_a_power_cut_shortened_is_made_again(pictures, tiny_bundle, tmp_path, expected, damage) -> None:
    (tmp_path / "expected/a__smiling=1__02.png").write_bytes(damage)
    assert run(pictures, tiny_bundle, tmp_path / "expected").written == 3
    assert tree(tmp_path / "expected") == expected


def test_one_bad_file_in_a_hundred(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(99):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "050-bad.png").write_bytes(b"no image at all")
    summary = run(folder, tiny_bundle, tmp_path / "out", samples=1)
    assert (summary.sources, summary.written, summary.failed) == (100, 99, 1)
    assert failures(tmp_path / "out") == [
        {"source": "050-bad.png", "error": "ImageError", "reason": "not an image, or of an unknown kind"}
    ]


def test_every_kind_of_bad_and_odd_file(tmp_path: Path, tiny_bundle: Path) -> None:
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
    run(folder, tiny_bundle, tmp_path / "out", samples=1)
    reasons = {row["source"]: row["reason"] for row in failures(tmp_path / "out")}
    secret = {"secret.png"} if os.geteuid() != 0 else set()
    assert set(reasons) == {"truncated.jpg", "empty.png", "text.png", "bomb.png", "gone.png", "pipe.png"} | secret
    assert "limit" in reasons["bomb.png"]
    assert reasons["empty.png"] == "empty file"
    done = {row["source"] for row in receipts(tmp_path / "out")}
    assert done == {"whole.jpg", "rgba.png", "grey.png", "palette.png", "cmyk.jpg", "deep.png"}


def test_unreadable_file_is_a_failure_with_its_reason(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    import ccvae_deploy.images as images

    opened = os.open

    def refusing(path, *arguments):
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(images.os, "open", refusing)
    assert run(pictures, tiny_bundle, tmp_path / "out").failed == 1
    assert failures(tmp_path / "out")[0]["reason"] == "unreadable: permission denied"


def test_a_picture_that_its_format_does_not_take_is_a_failure(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "imgs").mkdir()
    Image.new("L", (17_000, 10)).save(tmp_path / "imgs" / "long.png")
    Image.new("L", (40, 40)).save(tmp_path / "imgs" / "short.png")
    summary = run(tmp_path / "imgs", tiny_bundle, tmp_path / "out", samples=2, format="webp")
    assert (summary.written, summary.failed) == (2, 1)
    assert "17000x10 cannot be written as webp" in failures(tmp_path / "out")[0]["reason"]
    assert {row["source"] for row in receipts(tmp_path / "out")} == {"short.png"}


def test_a_full_disk_ends_with_1_and_can_be_resumed(pictures, tiny_bundle, tmp_path, expected, monkeypatch) -> None:
    write_bytes, count = Path.write_bytes, []

    def full(self, data):
        count.append(self)
        if len(count) > 7:
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            WriteError, match="No space left on device; make room and start the command again"
        ) as caught:
            run(pictures, tiny_bundle, tmp_path / "out", batch_size=2)
    assert caught.value.exit_code == 1
    run(pictures, tiny_bundle, tmp_path / "out")
    assert tree(tmp_path / "out") == expected


def test_two_sources_with_one_stem(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "imgs").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (40, 40), "teal").save(tmp_path / "imgs" / name)
    run(tmp_path / "imgs", tiny_bundle, tmp_path / "out", samples=1)
    assert {"a.png__smiling=1__00.png", "a.jpg__smiling=1__00.jpg"} <= set(tree(tmp_path / "out"))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_formats(pictures, tiny_bundle, tmp_path, format) -> None:
    run(pictures, tiny_bundle, tmp_path / "out", format=format, samples=1)
    for row in receipts(tmp_path / "out"):
        with Image.open(tmp_path / "out" / row["output"]) as image:
            assert image.format == format.upper()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"format": "gif"}, "--format 'gif'"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"workers": 0}, "--workers 0"),
        ({"shard": "2/2"}, "--shard"),
        ({"provider": "gpu"}, "--provider 'gpu'"),
        ({"set": ["smyling=1"]}, "did you mean Smiling"),
    ],
)
def test_refused_before_anything_is_written(pictures, tiny_bundle, tmp_path, options, message) -> None:
    with pytest.raises(Exception, match=message) as caught:
        run(pictures, tiny_bundle, tmp_path / "out", **options)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_default_output_folder(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = edit_folder([pictures], bundle=tiny_bundle, set=["smiling=1"], provider="cpu")
    assert summary.out == Path("imgs-edited")
    shutil.rmtree("imgs-edited")


def test_edits_without_torch(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A finder that refuses torch stands in for a machine that has none."""
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'matplotlib'): raise ImportError(name)\n"
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
