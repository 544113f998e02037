"""Worker processes leave the bytes of a run that works alone, whatever ends them, and end with the run themselves."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy import pipeline
from ccvae_deploy.errors import EngineError, WriteError
from ccvae_deploy.pictures import canvas
from ccvae_deploy.records import ledger
from ccvae_deploy.storage.store import TEMPORARIES
from ccvae_deploy.work import processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

KILLED = "^a worker process was killed by signal 9, perhaps for want of memory; start the command again, with"

SCRIPT = (
    "import sys\nfrom pathlib import Path\nfrom ccvae_deploy import pipeline\nfrom ccvae_deploy.work import processes\n"
    "processes.FEW = 0\n"
    "pipeline.edit_folder([Path(sys.argv[1])], bundle=Path(sys.argv[2]), out=Path(sys.argv[3]), set=['smiling=1'],"
    " samples=3, workers=2, batch_size=2, provider='cpu')\n"
)


STUCK = (
    "import time; from ccvae_deploy.work import worker; "
    "worker.Actor = lambda *_: (print(file=sys.stderr, flush=True), time.sleep(60))"
)


def with_code(more: str) -> str:
    """What a worker runs, and this before its work."""
    head, call, tail = processes.CODE.partition("main(*")
    return f"{head}{more}; {call}{tail}"


def workers_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    below = [int(child) for children in tasks for child in children.read_text().split()]
    return [one for one in below if b"ccvae_deploy.work.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]


def ended(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


@pytest.fixture
def many(monkeypatch) -> None:
    """Every run of two or more workers is in processes."""
    monkeypatch.setattr(processes, "FEW", 0)


def test_the_same_bytes_and_failures(pictures, tmp_path, run, tree, many) -> None:
    (pictures / os.fsdecode(b"na\xefve.png")).write_bytes((pictures / "a.png").read_bytes())
    (pictures / "broken.png").write_bytes(b"no image")
    assert run(tmp_path / "alone", workers=1).written == 30
    elsewhere = run(tmp_path / "elsewhere", workers=3, batch_size=2)
    assert (elsewhere.written, elsewhere.failed) == (30, 1)
    assert tree(tmp_path / "elsewhere") == tree(tmp_path / "alone")
    (pictures / "i.jpeg").write_bytes((pictures / "b.jpg").read_bytes())
    again = run(tmp_path / "elsewhere", workers=2, batch_size=2)
    assert (again.written, again.skipped, again.failed) == (3, 9, 1)
    assert not workers_of(os.getpid())


def test_a_shard_into_a_relative_folder(tmp_path, run, tree, many, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "alone", workers=1, shard="1/2")
    run(Path("elsewhere"), workers=2, batch_size=2, shard="1/2")
    assert tree(tmp_path / "elsewhere") == tree(tmp_path / "alone")


def test_what_was_set_down_of_a_source_goes_with_its_failure(tmp_path, run, many, monkeypatch) -> None:
    """Its results cannot be named where they belong."""
    move, left = os.replace, []

    def refused(path: str | Path, target: str | Path) -> None:
        if Path(target).name.startswith("a"):
            raise OSError(errno.EINVAL, "Invalid argument")
        move(path, target)

    settle = pipeline._settle

    def settled(job, result, tally) -> None:
        settle(job, result, tally)
        left.extend(output for output in result.outputs if (job.store.temporaries() / output.data).exists())

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(pipeline, "_settle", settled)
    assert run(tmp_path / "out", workers=2, batch_size=2, sheet=False).failed == 1
    assert not left


@pytest.mark.parametrize("error", [KeyboardInterrupt, WriteError("no room")])
def test_a_run_that_ends_takes_its_workers_along(tmp_path, expected, run, tree, many, monkeypatch, error) -> None:
    record, seen = ledger.Ledger.record, []

    def ending(self, *arguments) -> None:
        seen.append(workers_of(os.getpid()))
        if len(seen) == 3:
            raise error
        record(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "record", ending)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            run(tmp_path / "out", workers=2, batch_size=2)
    assert len(seen[0]) == 2
    assert all(map(ended, seen[0]))
    assert run(tmp_path / "out", workers=2).skipped == 2
    assert tree(tmp_path / "out") == expected


def test_a_killed_worker_is_told_in_one_line(tmp_path, expected, run, tree, many, monkeypatch) -> None:
    settle, killed = pipeline._settle, []

    def killing(*arguments) -> None:
        settle(*arguments)
        if not killed:
            killed.extend(workers_of(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_settle", killing)
        with pytest.raises(EngineError, match=KILLED) as caught:
            run(tmp_path / "out", workers=2, batch_size=1)
    assert caught.value.exit_code == 1
    run(tmp_path / "out", workers=1)
    assert tree(tmp_path / "out") == expected


def test_workers_killed_in_the_middle_of_an_answer(tmp_path, run, many, monkeypatch) -> None:
    """What goes to a far store passes through the socket."""
    pytest.importorskip("fsspec")
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    (tmp_path / "large").mkdir()
    for name in "abcd":
        Image.fromarray(noise).save(tmp_path / "large" / f"{name}.png")

    def killing(*_) -> None:
        time.sleep(0.5)
        for pid in workers_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_settle", killing)
        with pytest.raises(EngineError, match=KILLED):
            run("memory://killed", tmp_path / "large", workers=2, batch_size=1)


def test_workers_set_outputs_down_and_the_run_moves_them(tmp_path, expected, run, tree, many, monkeypatch) -> None:
    settle, moved = pipeline._settle, []

    def settled(job, result, tally) -> None:
        moved.extend(tmp_path / "out" / TEMPORARIES / output.data for output in result.outputs)
        assert all(file.is_file() for file in moved)
        settle(job, result, tally)
        assert not any(file.exists() for file in moved)
        moved.clear()

    monkeypatch.setattr(pipeline, "_settle", settled)
    run(tmp_path / "out", workers=2, batch_size=2)
    assert tree(tmp_path / "out") == expected


def test_a_disk_that_is_full_for_a_worker(tmp_path, expected, run, tree, many, monkeypatch) -> None:
    full = (
        "import itertools; from ccvae_deploy.storage import store; from ccvae_deploy.work import worker; "
        "down, count, error = worker.set_down, itertools.count(), OSError(28, 'No space left on device'); "
        "worker.set_down = lambda folder, data: down(folder, data) if next(count) < 5 "
        "else (_ for _ in ()).throw(store._full(folder, error))"
    )
    with monkeypatch.context() as patch:
        patch.setattr(processes, "CODE", with_code(full))
        with pytest.raises(WriteError, match=r"^cannot write .*: No space left on device; make room and"):
            run(tmp_path / "out", workers=2, batch_size=2)
    assert not (tmp_path / "out" / TEMPORARIES).exists()
    run(tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("what", ["tempfile.TemporaryFile", "subprocess.Popen"])
def test_where_no_worker_can_be_started(tmp_path, run, many, monkeypatch, what) -> None:
    def refused(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(what, refused)
    with pytest.raises(EngineError, match=r"^worker processes cannot be started: .* with --workers 1$") as caught:
        run(tmp_path / "out", workers=2)
    assert caught.value.exit_code == 1


def test_workers_end_with_a_run_that_is_killed(pictures, tiny_bundle, tmp_path, expected, run, tree) -> None:
    """Also where they are in the middle of something."""
    script = SCRIPT.replace("processes.FEW", f"processes.CODE = {with_code(STUCK)!r}\nprocesses.FEW")
    process = subprocess.Popen(
        [sys.executable, "-c", script, pictures, tiny_bundle, tmp_path / "out"], stderr=subprocess.PIPE
    )
    assert [process.stderr.readline() for _ in range(2)] == [b"\n", b"\n"]
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    end = time.monotonic() + 30
    while not all(map(ended, workers)) and time.monotonic() < end:
        time.sleep(0.02)
    assert all(map(ended, workers))
    run(tmp_path / "out")
    assert tree(tmp_path / "out") == expected


def test_large_pictures_of_all_workers_wait_for_a_place(pictures, tmp_path, run, many, monkeypatch) -> None:
    """While another process holds all places, both workers come to the lock and no output is made."""
    waiting, out = tmp_path / "waiting", tmp_path / "out"
    waiting.mkdir()
    tell = (
        "import os; from ccvae_deploy.pictures import canvas; canvas.LARGE = 1; lock = canvas.fcntl.lockf; "
        "canvas.fcntl.lockf = lambda handle, how, *place: "
        f"(how == canvas.fcntl.LOCK_EX and open(f'{waiting}/{{os.getpid()}}', 'w').close(), lock(handle, how, *place))"
    )
    monkeypatch.setattr(processes, "CODE", with_code(tell))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: (tmp_path / "turn").open("w+b"))
    hold = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'w+b')\nfcntl.lockf(file, fcntl.LOCK_EX, 3, 1)\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, tmp_path / "turn"]
    # the holder ends first, also where an assertion fails: the edit waits for it
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
    ):
        assert holder.stdout.readline() == b"\n"
        edit = pool.submit(run, out, pictures, workers=2, batch_size=2)
        end = time.monotonic() + 60
        while len(list(waiting.iterdir())) < 2 and not edit.done() and time.monotonic() < end:
            time.sleep(0.02)
        assert len(list(waiting.iterdir())) == 2
        time.sleep(0.5)
        assert not list(out.rglob("*__*"))
        holder.stdin.close()
        assert edit.result().written == 27


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"open_composer": partial(int)}, "^a worker process failed: TypeError: .*'provider'"),
        (
            {"digest": "0" * 64},
            "^a worker has another bundle under this path, exported since or not",
        ),
    ],
)
def test_what_a_worker_cannot_do_is_told_in_one_line(tmp_path, run, many, monkeypatch, change, message) -> None:
    settle = pipeline.settle

    def settled(*arguments, **options):
        job = settle(*arguments, **options)
        if "digest" in change:
            return replace(job, composer=type(job.composer)(replace(job.composer.bundle, **change)))
        return replace(job, **change)

    monkeypatch.setattr(pipeline, "settle", settled)
    with pytest.raises(EngineError, match=message) as caught:
        run(tmp_path / "out", workers=2, batch_size=2)
    assert caught.value.exit_code == 1


def test_nothing_is_imported_from_the_folder_it_runs_in(pictures, tiny_bundle, tmp_path) -> None:
    for name in ("json", "numpy", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    code = SCRIPT.replace("import sys\n", "import sys\nsys.path.remove('')\n", 1)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code, pictures, tiny_bundle, tmp_path / "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_few_outputs_and_other_providers_stay_here(tmp_path, run, monkeypatch) -> None:
    monkeypatch.setattr(processes, "results", lambda *_: pytest.fail("processes were started"))
    run(tmp_path / "few", workers=2)
    monkeypatch.setattr(processes, "FEW", 0)
    run(tmp_path / "alone", workers=1)
    settle = pipeline.settle

    def on_another(*arguments, **options):
        job = settle(*arguments, **options)
        return replace(job, composer=type(job.composer)(replace(job.composer.bundle, provider="CUDAExecutionProvider")))

    monkeypatch.setattr(pipeline, "settle", on_another)
    run(tmp_path / "other", workers=2)


LARGE = (8_000, 8_000)


@pytest.mark.parametrize(
    ("held", "bounded"),
    [("(1, 0)", partial(canvas.one_at_a_time, LARGE)), ("(3, 1)", partial(canvas.few_at_a_time, [(80, 80), LARGE]))],
)
def test_large_pictures_wait_for_those_of_other_processes(tmp_path, monkeypatch, held, bounded) -> None:
    code = (
        f"import fcntl, sys\nfcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, *{held})\n"
        "print('mine', flush=True)\nsys.stdin.read()\n"
    )
    with (tmp_path / "turn").open("wb") as turn:
        handle = turn.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(handle)], pass_fds=[handle], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"mine\n"
        monkeypatch.setattr(canvas, "_shared", [handle])
        began = time.monotonic()
        with canvas.one_at_a_time((80, 80)), canvas.few_at_a_time([(80, 80)]):
            pass
        threading.Timer(0.3, process.stdin.close).start()
        with bounded():
            assert time.monotonic() - began > 0.25
        process.wait()
        process.stdout.close()


def test_where_files_cannot_be_locked_large_pictures_take_turns_in_their_process(tmp_path, monkeypatch) -> None:
    def refused(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(canvas.fcntl, "lockf", refused)
    with (tmp_path / "turn").open("wb") as turn:
        monkeypatch.setattr(canvas, "_shared", [turn.fileno()])
        for _ in range(2):
            with canvas.one_at_a_time(LARGE), canvas.few_at_a_time([LARGE]):
                assert not canvas._turn.acquire(blocking=False)
