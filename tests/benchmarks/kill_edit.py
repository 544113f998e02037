"""Kill `edit` with -9 again and again: nothing may be lost, half-written or left behind.

    python tests/benchmarks/kill_edit.py --kills 100 [--processes 2]

Half of the kills hit the process group, half the parent alone, each at a random moment while outputs remain (a run that
had finished is not counted and starts again in an empty folder). After each the same command is started again, now and
then killed again, until it ends; then the folder must have the same bytes as that of a run that was never disturbed.
All the while a watcher opens every file that appears under its final name. Needs Linux.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "ccvae_deploy"))
from conftest import made_graph, write_bundle

from ccvae_deploy.schema import GRAPHS

COMMAND = (
    "import sys; from ccvae_deploy.cli import app; from ccvae_deploy.work import processes; "
    "processes.FEW = int(sys.argv.pop(1)); app()"
)


class Watcher:
    """Opens every file that appears in a folder under a name that is not hidden; a half-written one is an error."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.opened, self.broken = folder, 0, list[str]()
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """One last look, then no more."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.002):
            self.look()
        self.look()

    def look(self) -> None:
        """Open what is new."""
        for parent, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if not name.startswith("."):
                    self._open(Path(parent, name))

    def _open(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                version = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._seen.get(str(path)) == version:
                    return
                data = file.read()
        except FileNotFoundError:
            return
        self._seen[str(path)] = version
        self.opened += 1
        try:
            check(path, data)
        except Exception as error:
            self.broken.append(f"{path.name}: {type(error).__name__}: {error}")


def check(path: Path, data: bytes) -> None:
    """Decode a whole file of its kind."""
    if path.suffix == ".jsonl":
        assert not data or data.endswith(b"\n")
        for line in data.splitlines():
            json.loads(line)
    elif path.suffix == ".json":
        json.loads(data)
    else:
        with Image.open(io.BytesIO(data)) as image:
            image.load()


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file, hidden ones too, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def make_images(folder: Path, count: int) -> None:
    """Pictures of three formats in a few folders, and one that is none."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i % 4}" / f"{i:04d}.{('jpg', 'png', 'webp')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (6, 5, 3), dtype=np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(path)
    (folder / "broken.png").write_bytes(b"no image")


class Bench:
    """One folder of images, one bundle, and the bytes that must come out."""

    def __init__(self, root: Path, images: int, samples: int, seed: int, workers: int) -> None:
        self.root, self.out, self.random = root, root / "out", random.Random(seed)
        self.counts: Counter[str] = Counter()
        make_images(root / "imgs", images)
        bundle = write_bundle(root / "bundle", {name: made_graph(name) for name in GRAPHS})
        self.command = [sys.executable, "-c", COMMAND, "0" if workers else "1000000000", "edit", str(root / "imgs")]
        self.command += ["--bundle", str(bundle), "--set", "smiling=1", "--samples", str(samples), "--provider", "cpu"]
        self.command += ["--workers", str(workers)] if workers else []
        self.total = images * samples
        started = self._start(root / "expected")
        self.work = self._ended(started, root / "expected")
        self.expected = tree(root / "expected")

    def attack(self, group: bool) -> bool:
        """Kill one run; True when it landed while outputs remained."""
        process = self._start(self.out)
        self._wait_for(process, self.out)
        time.sleep(self.random.uniform(0, self.work))
        # a process that was not waited for keeps its id, so this cannot hit another
        ended = process.poll() is not None
        if not ended:
            self.counts["with children"] += bool(children(process.pid))
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        assert gone(process.pid), "a process outlived its parent"
        if ended:
            assert process.returncode == 1, "a run that nothing disturbed failed"
            self.settle()
            return False
        remain = outputs(self.out) < self.total
        self.counts[("group" if group else "parent alone") if remain else "killed after the last output"] += 1
        return remain

    def settle(self) -> None:
        """Compare a folder in which a run has ended, and empty it."""
        found = tree(self.out)
        if found != self.expected:
            differ = {name for name in found.keys() | self.expected if found.get(name, 0) != self.expected.get(name, 0)}
            sys.exit(f"differs from an undisturbed run: {sorted(differ)[:5]}; see {keep(self.out)}")
        self.counts["ends compared"] += 1
        shutil.rmtree(self.out)

    def go_on(self) -> None:
        """The same command to its end."""
        process = self._start(self.out)
        if process.wait() != 1:
            sys.exit(f"started again, it ended with {process.returncode}; see {keep(self.out)}")
        self.settle()

    def _start(self, out: Path) -> subprocess.Popen[bytes]:
        command = [*self.command, "--out", str(out)]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _wait_for(self, process: subprocess.Popen[bytes], out: Path) -> None:
        """Until work begins: the run holds its journal."""
        journal = out / ".journal.jsonl"
        while process.poll() is None and not (journal.exists() and holds(process.pid, journal)):
            time.sleep(0.001)

    def _ended(self, process: subprocess.Popen[bytes], out: Path) -> float:
        """Seconds from the begin of work to its last output."""
        self._wait_for(process, out)
        began = last = time.monotonic()
        while process.poll() is None and outputs(out) < self.total:
            last = time.monotonic()
            time.sleep(0.005)
        assert process.wait() == 1, "the undisturbed run failed"
        return last - began


def outputs(out: Path) -> int:
    """How many outputs are there."""
    return sum(1 for path in out.rglob("*__*") if path.is_file())


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(handle.samefile(path) for handle in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def children(pid: int) -> list[str]:
    """The processes a process has started."""
    try:
        tasks = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return " ".join(tasks).split()


def gone(group: int, patience: float = 30.0) -> bool:
    """Whether no process of a group is left, at the latest after some seconds; one that waits to be buried is none."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not any(alive_in(group, status) for status in Path("/proc").glob("[0-9]*/stat")):
            return True
        time.sleep(0.01)
    return False


def alive_in(group: int, status: Path) -> bool:
    """Whether this is the status of a living process of a group."""
    try:
        state, _, of = status.read_text(errors="replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(of) == group and state != "Z"


def keep(out: Path) -> Path:
    """A copy of a folder that went wrong, to look at."""
    place = Path(tempfile.mkdtemp(prefix="kill-edit-")) / "out"
    shutil.copytree(out, place)
    return place


def main() -> None:
    """Kill, start again, compare; print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="work in N processes, as large runs do")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.images, given.samples, given.seed, given.processes)
        watcher = Watcher(bench.out)
        landed = 0
        while landed < given.kills:
            landed += bench.attack(group=landed % 2 == 0)
            print(f"{landed} of {given.kills} kills", end="\r", file=sys.stderr, flush=True)
            # now and then the run that goes on is killed in its turn
            if bench.out.exists() and (landed == given.kills or bench.random.random() < 0.5):
                bench.go_on()
            if watcher.broken:
                break
        watcher.stop()
    counts = bench.counts
    print(f"{landed} kills: {counts['group']} of the process group, {counts['parent alone']} of the parent alone")
    print(f"not counted: {counts['killed after the last output']} that landed after the last output")
    print(f"{counts['ends compared']} ends, each byte-identical to the undisturbed run, no other file left")
    print(f"{watcher.opened:,} new files opened while runs went on, {len(watcher.broken)} of them broken")
    print(f"{counts['with children']} runs had processes of their own")
    if watcher.broken:
        sys.exit("\n".join(watcher.broken[:5]))


if __name__ == "__main__":
    main()
