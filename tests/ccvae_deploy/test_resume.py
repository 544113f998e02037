"""Interrupted, killed, started again; sources and settings that change in between; a disk that refuses."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ccvae_deploy import pipeline
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.work.job import settle


@pytest.mark.parametrize("stage", ["_read", "_write", "_finish", "_through"])
@pytest.mark.parametrize("after", [0, 4])
def test_interrupted_at_any_stage_and_resumed(tmp_path, expected, interrupted, stage, after, run, tree) -> None:
    with interrupted(pipeline, stage, after + 1):
        run(tmp_path / "out", batch_size=2, workers=2)
    run(tmp_path / "out")
    assert tree(tmp_path / "out") == expected


def test_killed_and_started_again(pictures, tiny_bundle, tmp_path, expected, run, tree) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ccvae_deploy import pipeline\n"
        "from ccvae_deploy.records import ledger\n"
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
    assert run(out).skipped == 4
    assert tree(out) == expected


def test_a_second_run_does_nothing_again(tmp_path, expected, run, tree) -> None:
    out = tmp_path / "expected"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*__*")}
    summary = run(out)
    assert (summary.written, summary.skipped, summary.receipts) == (0, 9, 27)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*__*")} == before
    assert tree(out) == expected


def test_more_samples_keep_the_first_ones(tmp_path, expected, run, tree, receipts) -> None:
    out = tmp_path / "expected"
    run(out, samples=5)
    found = tree(out)
    assert all(found[name] == data for name, data in expected.items() if "__smiling=1__" in name)
    assert len(receipts(out)) == 45


def test_deleted_outputs_are_made_again(tmp_path, expected, run, tree) -> None:
    (tmp_path / "expected/a__smiling=1__02.png").unlink()
    assert run(tmp_path / "expected").written == 3
    assert tree(tmp_path / "expected") == expected


def test_other_settings_are_refused_and_other_edits_added(tmp_path, expected, run, tree, receipts) -> None:
    out = tmp_path / "expected"
    with pytest.raises(UsageError, match=r"made with other settings, such as a\.png; add --overwrite"):
        run(out, seed=1)
    assert tree(out) == expected
    run(out, set=["young=0"])
    assert all(tree(out)[name] == data for name, data in expected.items() if "__smiling=1__" in name)
    run(out, seed=1, overwrite=True)
    assert tree(out)["a__smiling=1__00.png"] != expected["a__smiling=1__00.png"]
    assert {row["seed"] for row in receipts(out) if "Smiling" in row["asked"]} == {1}


def test_a_users_own_file_is_never_replaced(tmp_path, run, tree) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a__smiling=1__00.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        run(out)
    assert tree(out) == {"a__smiling=1__00.png": b"mine"}


def test_a_source_that_changed_is_done_again(pictures, tmp_path, expected, run, tree) -> None:
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png")
    out = tmp_path / "expected"
    summary = run(out)
    assert (summary.written, summary.skipped, summary.failed) == (3, 8, 0)
    run(tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    assert tree(out)["a__smiling=1__00.png"] != expected["a__smiling=1__00.png"]


def test_a_changed_source_leaves_no_stale_output(pictures, tmp_path, expected, run, tree, receipts) -> None:
    """Its format, and with it the ending, is another now, and fewer samples are asked."""
    out = tmp_path / "expected"
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    run(out, samples=2)
    assert sorted(name for name in tree(out) if name.startswith("a__")) == [f"a__smiling=1__0{k}.jpg" for k in (0, 1)]
    assert [row["output"] for row in receipts(out)][:3] == [
        "a__smiling=1__00.jpg",
        "a__smiling=1__01.jpg",
        "b__smiling=1__00.jpg",
    ]


def test_a_twin_that_goes_leaves_no_name_to_take(pictures, tmp_path, run, tree) -> None:
    """a.png keeps its ending beside a.bmp; alone, either would be called like what the other has become."""
    out, inputs = tmp_path / "out", tmp_path / "twins"
    inputs.mkdir()
    Image.new("RGB", (40, 40), "red").save(inputs / "a.png")
    Image.new("RGB", (40, 40), "blue").save(inputs / "a.bmp")
    run(out, inputs)
    run(out, inputs / "a.bmp")
    before = tree(out)
    with pytest.raises(UsageError, match=r"explains as theirs, such as a__smiling=1__00\.png"):
        run(out, inputs / "a.png")
    assert tree(out) == before


def test_a_users_file_stays_where_a_sources_new_format_would_go(
    pictures, tmp_path, expected, run, tree, failures
) -> None:
    out = tmp_path / "expected"
    (out / "a__smiling=1__00.jpg").write_bytes(b"mine")
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    summary = run(out)
    assert (summary.written, summary.failed) == (0, 1)
    assert failures(out)[0]["reason"].startswith("its result would replace a__smiling=1__00.jpg")
    assert (out / "a__smiling=1__00.jpg").read_bytes() == b"mine"
    assert tree(out)["a__smiling=1__00.png"] == expected["a__smiling=1__00.png"]
    assert run(out, overwrite=True).written == 3
    assert (out / "a__smiling=1__00.jpg").read_bytes() != b"mine"


def test_killed_then_another_edit_then_the_first_again(pictures, tiny_bundle, tmp_path, expected, run, tree) -> None:
    out = tmp_path / "out"
    job = settle([pictures], bundle=tiny_bundle, set=["smiling=1"], samples=3, out=out, provider="cpu")
    (task,) = (task for task in job.tasks if task.source.relative == "a.png")
    with job.ledger:
        # as a kill leaves it between the first output and its record
        job.ledger.begin("a.png", task.wanted[0].settings, task.wanted[0].outputs(task.stem, "png"))
        (out / "a__smiling=1__00.png").write_bytes(b"half of the first run")
    run(out, pictures / "a.png", set=["young=0"])
    run(out, pictures / "b.jpg", set=["young=1"])
    run(out, set=["smiling=1"])
    found = tree(out)
    assert all(found[name] == data for name, data in expected.items() if "__smiling=1__" in name)
    assert ".unfinished.json" not in found


def test_a_stale_output_that_its_owner_has_changed_stays(pictures, tmp_path, expected, run, tree) -> None:
    out = tmp_path / "expected"
    (out / "a__smiling=1__01.png").write_bytes(b"retouched")
    Image.new("RGB", (40, 40), "red").save(pictures / "a.png", "JPEG")
    run(out)
    assert [name for name in tree(out) if name.startswith("a__") and name.endswith("png")] == ["a__smiling=1__01.png"]
    assert (out / "a__smiling=1__01.png").read_bytes() == b"retouched"


@pytest.mark.parametrize("after", range(5))
def test_killed_while_a_changed_source_is_done_again(
    pictures, tmp_path, expected, monkeypatch, after, run, tree
) -> None:
    """Then the source is as it was: nothing of its other version may pass for done."""
    from ccvae_deploy.storage.store import Store

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
            run(tmp_path / "expected")
    (pictures / "a.png").write_bytes(original)
    run(tmp_path / "expected")
    found = tree(tmp_path / "expected")
    stale = {name for name in found if name.startswith("a__") and name.endswith(".jpg")}
    # they are known for ours as long as they lie there
    assert (".unfinished.json" in found) == bool(stale)
    assert {name: data for name, data in found.items() if name not in stale | {".unfinished.json"}} == expected
    # at most the files that no record came to explain
    assert len(stale) <= max(0, after - 3)


def test_a_source_that_changed_into_no_image_keeps_its_results(
    pictures, tmp_path, expected, run, tree, failures
) -> None:
    (pictures / "a.png").write_bytes(b"no image")
    out = tmp_path / "expected"
    assert run(out).failed == 1
    found = tree(out)
    assert [row["source"] for row in failures(out)] == ["a.png"]
    assert found["receipts.jsonl"] == expected["receipts.jsonl"]
    assert found["a__smiling=1__00.png"] == expected["a__smiling=1__00.png"]


def test_a_source_deleted_or_changed_while_running(pictures, tmp_path, monkeypatch, run, tree, failures) -> None:
    """One goes after the scan, one becomes another picture: the first fails, the second is done as it was read."""
    other = Image.new("RGB", (40, 40), "red")
    through = pipeline._through

    def disturbing(*arguments):
        (pictures / "i.jpeg").unlink(missing_ok=True)
        other.save(pictures / "a.png")
        return through(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_through", disturbing)
        summary = run(tmp_path / "out", batch_size=1, workers=1)
    assert (summary.failed, summary.sources) == (1, 9)
    assert failures(tmp_path / "out")[0] == {
        "source": "i.jpeg",
        "error": "ImageError",
        "reason": "unreadable: no such file or directory",
    }
    again = run(tmp_path / "out")
    assert (again.written, again.failed) == (3, 0)
    run(tmp_path / "fresh")
    mine = {name: data for name, data in tree(tmp_path / "out").items() if name != "receipts.jsonl"}
    assert mine == {name: data for name, data in tree(tmp_path / "fresh").items() if name != "receipts.jsonl"}


@pytest.mark.parametrize("damage", [b"", b"\x89PNG"])
def test_an_output_that_a_power_cut_shortened_is_made_again(tmp_path, expected, damage, run, tree) -> None:
    (tmp_path / "expected/a__smiling=1__02.png").write_bytes(damage)
    assert run(tmp_path / "expected").written == 3
    assert tree(tmp_path / "expected") == expected


def test_a_full_disk_ends_with_1_and_can_be_resumed(tmp_path, expected, monkeypatch, run, tree) -> None:
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
            run(tmp_path / "out", batch_size=2)
    assert caught.value.exit_code == 1
    run(tmp_path / "out")
    assert tree(tmp_path / "out") == expected
