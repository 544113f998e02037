"""Folders as the world makes them: odd names, loops, too many files, disks that are full or read-only, two runs."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.folder import scan
from ccvae_deploy.merge import merge_folders
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records.ledger import Ledger
from ccvae_deploy.work.job import settle

ODD = [
    " blanks  inside .png",
    'quote\'s "both".png',
    "line\nbreak\r.png",
    "-dash.png",
    "100% $HOME `x` ;&|.png",
    "ümläut 日本 \u202e.png",
    b"caf\xe9\xff.png".decode("utf-8", "surrogateescape"),
    "x" * 251 + ".png",
    "é" * 125 + "y.png",
    "__smiling=1__00.png",
    "back\\slash.png",
    "d\neep/ \x01/a.png",
]


def command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from ccvae_deploy.cli import app; app()", *map(os.fspath, arguments)]
    return subprocess.run(line, capture_output=True, text=True, errors="surrogateescape", **options)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name, and whose files' names, are odd."""
    folder = tmp_path / b"odd \xff\n'imgs'".decode("utf-8", "surrogateescape")
    for number, name in enumerate(ODD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number * 20, 90, 60)).save(folder / name)
    return folder


def test_odd_names_are_kept_recorded_resumed_and_merged(odd, tmp_path, run, tree, receipts) -> None:
    out = tmp_path / (odd.name + "-out")
    summary = run(out, inputs=odd, samples=2)
    assert (summary.sources, summary.written, summary.failed) == (len(ODD), 2 * len(ODD), 0)
    found = receipts(out)
    assert {row["source"] for row in found} == set(ODD)
    assert [os.fsencode(row["source"]) for row in found] == sorted(os.fsencode(row["source"]) for row in found)
    assert {row["output"] for row in found} == {name for name in tree(out) if "__smiling=1__0" in name}
    assert max(len(os.fsencode(part)) for row in found for part in row["output"].split("/")) <= 255
    assert run(out, inputs=odd, samples=2).skipped == len(ODD)
    for index in range(2):
        run(tmp_path / "merged", inputs=odd, samples=2, shard=f"{index}/2", sheet=False)
    merge_folders([tmp_path / "merged"])
    assert (tmp_path / "merged/receipts.jsonl").read_bytes() == (out / "receipts.jsonl").read_bytes()
    assert run(tmp_path / "merged", inputs=odd, samples=2).skipped == len(ODD)


def test_odd_names_on_the_command_line(odd, tiny_bundle, tmp_path) -> None:
    """Whatever a name holds, the screen gets whole lines, and an error is one line."""
    line = ["edit", odd, "--set", "smiling=1", "--bundle", tiny_bundle, "--provider", "cpu", "--no-sheet"]
    dry = command(*line, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "\\udcff" in dry.stdout
    done = command(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = command(*line, "--seed", "1", cwd=tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


def test_loops_of_links_end(pictures, tmp_path, run, failures) -> None:
    (pictures / "up").symlink_to(pictures, target_is_directory=True)
    (pictures / "deep/loop").symlink_to("..", target_is_directory=True)
    (pictures / "self.png").symlink_to("self.png")
    (pictures / "one.png").symlink_to("two.png")
    (pictures / "two.png").symlink_to("one.png")
    summary = run(tmp_path / "out")
    assert (summary.sources, summary.failed) == (12, 3)
    assert {row["reason"] for row in failures(tmp_path / "out")} == {"unreadable: too many levels of symbolic links"}
    with pytest.raises(UsageError, match=r"self\.png does not exist"):
        scan([pictures / "self.png"])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="loop is a link that leads nowhere"):
        run(tmp_path / "loop")
    (tmp_path / "other/deep").parent.mkdir()
    (tmp_path / "other/deep").symlink_to("deep")
    with pytest.raises(UsageError, match="deep lies where a folder of results goes; move it"):
        run(tmp_path / "other")


def test_a_full_disk_at_any_moment(pictures, tiny_bundle, tmp_path, run, tree) -> None:
    """A limit on the size of a file is what a process can be given without a disk of its own."""
    run(tmp_path / "expected", format="png")
    largest = max(path.stat().st_size for path in (tmp_path / "expected").rglob("*__*"))
    line = ["edit", pictures, "--set", "smiling=1", "--samples", "3", "--format", "png", "--provider", "cpu"]
    out = tmp_path / "out"
    limits = (largest // 2, largest - 1, 6000)
    for limit in limits:
        full = command(
            *line, "--bundle", tiny_bundle, "--out", out,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        assert full.returncode == 1, full.stderr
        assert "File too large; make room and start" in full.stderr
        assert len(full.stderr.splitlines()) == 1
        assert not list(out.glob(".ccvae-tmp*"))
        assert all(path.stat().st_size == (tmp_path / "expected" / path.relative_to(out)).stat().st_size
                   for path in out.rglob("*__*"))  # fmt: skip
    run(out, format="png")
    assert tree(out) == tree(tmp_path / "expected")


def test_an_output_that_cannot_be_written_is_refused_before_work(pictures, tmp_path, run, monkeypatch) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    access = os.access
    # for the superuser permissions are no obstacle, so a read-only disk is played
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode & ~os.W_OK) and not mode & os.W_OK)
    with pytest.raises(UsageError, match=r"cannot be written; give another --out"):
        run(tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_a_disk_that_becomes_read_only_is_an_error_of_one_line(pictures, tmp_path, run, tree, monkeypatch) -> None:
    write, count = Path.write_bytes, []

    def turning(self, data):
        count.append(self)
        if len(count) > 5:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return write(self, data)

    def refusing(self, **options):
        if len(count) > 5:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return unlink(self, **options)

    unlink = Path.unlink
    line = r"^cannot write \S+/out/\S+: Read-only file system; see that it may be written and start the command again$"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", turning)
        patch.setattr(Path, "unlink", refusing)
        with pytest.raises(WriteError, match=line):
            run(tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*__smiling=1__*"))) == 5
    run(tmp_path / "out")
    run(tmp_path / "expected")
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")


def test_a_second_run_is_refused_until_the_first_is_killed(pictures, tiny_bundle, tmp_path, run) -> None:
    out = tmp_path / "out"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ccvae_deploy import pipeline\n"
        "pipeline._finish = lambda *_: (print('working', flush=True), time.sleep(60))\n"
        "pipeline.edit_folder([Path(sys.argv[1])], bundle=Path(sys.argv[2]), out=Path(sys.argv[3]), set=['smiling=1'],"
        " samples=3, provider='cpu')\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script, pictures, tiny_bundle, out], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"working\n"
    try:
        for options in ({}, {"shard": "0/2"}):
            with pytest.raises(UsageError, match=r"another run writes to .*out; wait for it, or give another --out"):
                run(out, **options)
        with pytest.raises(UsageError, match="another run writes"):
            dry_run([pictures], bundle=tiny_bundle, set=["smiling=1"], out=out, samples=3, provider="cpu")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert run(out).written == 27


def test_locks_are_not_inherited(tmp_path) -> None:
    settings = settle_nothing(tmp_path)
    with settings as ledger:
        handles = [ledger._journal.fileno(), ledger._lock._handle]
        assert not any(map(os.get_inheritable, handles))
        program = "import time; print(flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", program], close_fds=False, stdout=subprocess.PIPE)
        # until it has become another program, the child has all that this one has
        child.stdout.readline()
    try:
        with settle_nothing(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()


def settle_nothing(folder: Path) -> Ledger:
    """A ledger of no edit."""
    return Ledger(folder / "out", [])


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """50,000 names of one small picture in one folder."""
    folder = tmp_path_factory.mktemp("many")
    Image.new("RGB", (8, 8), "teal").save(folder / "00000.png")
    for i in range(1, 50_000):
        os.link(folder / "00000.png", folder / f"{i:05d}.png")
    return folder


def resident() -> float:
    """MiB of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def test_fifty_thousand_files_in_one_folder(many, tiny_bundle, tmp_path, run) -> None:
    """Scan, plan, ledger and resume take seconds of processor time and little memory."""
    # one real record, written for every source: the graphs are not what is asked here
    (tmp_path / "one").mkdir()
    os.link(many / "00000.png", tmp_path / "one/00000.png")
    out = tmp_path / "out"
    run(out, inputs=tmp_path / "one", samples=1, sheet=False)
    line, made = (out / "receipts.jsonl").read_text(), out / "00000__smiling=1__00.png"
    with (out / "receipts.jsonl").open("w") as file:
        for i in range(50_000):
            file.write(line.replace("00000.png", f"{i:05d}.png").replace("00000__", f"{i:05d}__"))
            if i:
                os.link(made, out / f"{i:05d}__smiling=1__00.png")
    options = {"bundle": tiny_bundle, "set": ["smiling=1"], "out": out, "samples": 1, "provider": "cpu"}
    memory, began = resident(), time.process_time()
    job = settle([many], **options)
    with job.ledger:
        job.ledger.finish()
    assert len(job.tasks) == len(job.ledger.groups) == 50_000
    assert resident() - memory < 150
    assert time.process_time() - began < 15
    states = (job.done(task, task.wanted[0], job.ledger.group(task.source.relative, "smiling=1")) for task in job.tasks)
    assert all(states)
    # nothing known of 50,000 files that lie there: one listing, no look at each
    (out / "receipts.jsonl").write_text("")
    with pytest.raises(UsageError, match="50,000 of these sources that no record here explains"):
        settle([many], **options)
    assert json.loads((out / "settings.json").read_text())


@pytest.mark.parametrize(("name", "options"), [("sheet.png", {}), ("report.html", {"sheet": False, "report": True})])
def test_a_sheet_or_report_that_is_not_ours_stays(pictures, tmp_path, run, tree, name, options) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"has a {name} that no record here explains"):
        run(out, **options)
    assert tree(out) == {name: b"mine"}
    run(out, **{"sheet": False, "report": False} if name == "sheet.png" else {"report": False})
    assert (out / name).read_bytes() == b"mine"


def test_files_that_came_after_the_first_run_stay(pictures, tmp_path, run, tree) -> None:
    """A sheet, a report, and an output beyond the recorded samples."""
    out = tmp_path / "out"
    run(out, samples=1, sheet=False)
    mine = {"sheet.png": {}, "report.html": {"sheet": False, "report": True}, "a__smiling=1__01.png": {"sheet": False}}
    for name, options in mine.items():
        (out / name).write_bytes(b"mine")
        before = tree(out)
        with pytest.raises(UsageError, match="that no record here explains"):
            run(out, samples=2, **options)
        assert tree(out) == before
        (out / name).unlink()
    run(out, samples=2, report=True)
    run(out, samples=3, report=True)
    assert "a__smiling=1__02.png" in tree(out)


def test_a_source_called_as_the_sheet_stays(pictures, tmp_path, run) -> None:
    out = tmp_path / "out"
    run(out)
    data = (pictures / "a.png").read_bytes()
    (out / "sheet.png").write_bytes(data)
    with pytest.raises(UsageError, match=r"sheet\.png is read and would be replaced by a page of this run"):
        run(out, inputs=out / "sheet.png")
    assert (out / "sheet.png").read_bytes() == data


@pytest.mark.parametrize(
    "wrong", [{"engine": "spark"}, {"workers": 0}, {"report": True, "out": "memory://bucket/x"}, {"batch_size": 0}]
)
def test_a_dry_run_is_refused_as_the_run_is(pictures, tiny_bundle, tmp_path, wrong) -> None:
    options = {"bundle": tiny_bundle, "set": ["smiling=1"], "out": tmp_path / "out", "provider": "cpu"} | wrong
    with pytest.raises(UsageError) as refused:
        edit_folder([pictures], **options)
    with pytest.raises(UsageError) as forecast:
        dry_run([pictures], **options)
    assert str(forecast.value) == str(refused.value)


def test_a_run_that_was_cut_off_explains_outputs_of_its_own_edit_alone(pictures, tiny_bundle, tmp_path, run) -> None:
    out = tmp_path / "out"
    job = settle([pictures], bundle=tiny_bundle, set=["young=0"], samples=3, out=out, provider="cpu")
    (task,) = (task for task in job.tasks if task.source.relative == "a.png")
    with job.ledger:
        # as a kill leaves it between the first output and its record
        job.ledger.begin("a.png", task.wanted[0].settings, task.wanted[0].outputs(task.stem, "png"))
        (out / "a__young=0__00.png").write_bytes(b"ours")
        (out / "a__smiling=1__00.png").write_bytes(b"mine")
    assert (out / ".journal.jsonl").exists()
    with pytest.raises(UsageError, match=r"such as a__smiling=1__00\.png"):
        run(out)
    assert (out / "a__smiling=1__00.png").read_bytes() == b"mine"
    assert run(out, set=["young=0"]).written == 27
    assert (out / "a__young=0__00.png").read_bytes() != b"ours"
