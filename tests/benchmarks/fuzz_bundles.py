"""Open damaged bundles until something breaks: every case must end in one of our errors or in correct work.

    python tests/benchmarks/fuzz_bundles.py --cases 100000 --seed 0

A case is a golden bundle with a damaged manifest, or with a damaged graph that the manifest vouches for, so that the
checks of the graph are really reached. Case i of seed s is always the same. Cases run in a process of their own with a
limit of memory and a deadline; it is started again when it dies. A traceback, a message of several lines, an output of
another shape, a death and a hang are failures: their bundles are kept under --keep, and the exit code is 1.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from damaged_graphs import damaged_graph
from damaged_manifests import damaged_manifest

from ccvae_deploy.bundle import Bundle, open_bundle
from ccvae_deploy.errors import CCVAEError
from ccvae_deploy.schema import GRAPHS

GOLDEN = Path(__file__).parents[1] / "golden"
MEMORY = 3 << 30
"""Bytes of address space that a case may take beyond what the process has when it starts."""

KINDS = (
    "manifest.json is not JSON",
    "has no schema_version",
    "has schema version",
    "longer than the limit",
    "bytes beside its weights",
    "not an ONNX file or is truncated",
    "a name that is not UTF-8",
    "which is not allowed",
    "has IR version",
    "needs operators of",
    "uses the operator",
    "nodes, expected at most",
    "has an attribute",
    "type, shape and bytes do not agree",
    "twice or without a name",
    "not a valid ONNX graph",
    "other inputs or outputs",
    "shapes that do not fit",
    "not given by constants",
    "does not follow from the input",
    "as it declares",
    "multiplications for",
    "mixes the images",
    "onnxruntime refuses",
    "cannot run on",
    "not what the manifest says",
    "not finite",
    "its hash differs",
    "cannot be read",
)
"""A part of the message of each check, in the order of the checks."""


class Cases:
    """The cases of a seed, each written over the last one in one folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.bundles = []
        for path in sorted(GOLDEN.glob("*-onnx-*")):
            graphs = {name: (path / f"{name}.onnx").read_bytes() for name in GRAPHS}
            self.bundles.append((json.loads((path / "manifest.json").read_text()), graphs))
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, index: int) -> None:
        """Make the folder hold case `index`: one damaged graph, or a damaged manifest."""
        rng = random.Random(f"{self.seed}:{index}")
        manifest, graphs = self.bundles[rng.randrange(len(self.bundles))]
        for name, data in graphs.items():
            (self.folder / f"{name}.onnx").write_bytes(data)
        if rng.random() < 0.25:
            (self.folder / "manifest.json").write_bytes(damaged_manifest(manifest, rng))
            return
        name = rng.choice(GRAPHS)
        data = damaged_graph(graphs[name], list(graphs.values()), rng)
        (self.folder / f"{name}.onnx").write_bytes(data)
        vouched = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": max(len(data), 1)}
        # the damaged graph is the first to be opened, so that most cases end early
        files = {name: manifest["files"][name] | vouched} | {
            other: entry for other, entry in manifest["files"].items() if other != name
        }
        (self.folder / "manifest.json").write_text(json.dumps(manifest | {"files": files}))


def outcome(folder: Path, rows: int) -> str:
    """What becomes of one case: `opened`, `refused: …`, or `FAILED: …`."""
    try:
        _use(open_bundle(folder, provider="cpu", threads=1), rows)
    except CCVAEError as error:
        message = str(error)
        if not message.isprintable() or len(message) > 500:
            return f"FAILED: a message of several lines: {message!r:.300}"
        return f"refused: {_kind(message)}"
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {error!r:.300}"
    return "opened"


def _use(bundle: Bundle, rows: int) -> None:
    """Run all graphs; the bundle itself refuses outputs of another shape, here it must not let one through."""
    rng = np.random.default_rng(rows)
    for name, entry in bundle.manifest.files.items():
        given = rng.random((rows, *entry.inputs[0].shape[1:]), np.float32)
        for spec, array in zip(entry.outputs, bundle._run(name, given), strict=True):
            if array.shape != (rows, *spec.shape[1:]) or array.dtype != np.float32:
                raise AssertionError(f"{name} gave {array.shape} {array.dtype}")


def _kind(message: str) -> str:
    """The check that refused; a message of the manifest's model begins with the path of a field."""
    found = next((kind for kind in KINDS if kind in message), None)
    return found or ("a field of the manifest" if "manifest.json: " in message else message[-60:])


def work(seed: int, folder: Path) -> None:
    """The other process: reads `first last` from stdin, answers with one line per case."""
    cases = Cases(seed, folder)
    open_bundle(GOLDEN / "v1-onnx-fp32", provider="cpu", threads=1)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        first, last = map(int, line.split())
        for index in range(first, last):
            cases.write(index)
            print(index, outcome(folder, 1 + index % 3), flush=True)


@dataclass
class Campaign:
    """Cases done and what became of them.

    Attributes:
        outcomes: how often each kind of end was met.
        failures: `(case, what happened)`, the bundles of which are kept.
    """

    seed: int
    deadline: float
    keep: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def run(self, first: int, last: int, seconds: float) -> None:
        """Do the cases, in a new process after each death, until they or the seconds are over."""
        until = time.monotonic() + seconds
        while first < last and time.monotonic() < until:
            with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
                first = self._run_until_death(first, last, until, Path(folder, "bundle"))

    def _run_until_death(self, first: int, last: int, until: float, folder: Path) -> int:
        command = [sys.executable, __file__, "--work", str(folder), "--seed", str(self.seed)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdin is not None
        assert worker.stdout is not None
        lines = _Lines(worker.stdout.fileno())
        try:
            worker.stdin.write(f"{first} {last}\n".encode())
            worker.stdin.flush()
            if lines.next(120) != "ready":
                raise SystemExit("the process that runs the cases does not start")
            for index in range(first, last):
                line = lines.next(self.deadline)
                if line is None:
                    hung = worker.poll() is None and not lines.closed
                    what = f"HANG of {self.deadline:g} s" if hung else f"DEATH with {worker.wait()}"
                    self._count(index, what, folder)
                    return index + 1
                self._count(index, line.partition(" ")[2], folder)
                if time.monotonic() > until:
                    return index + 1
            return last
        finally:
            worker.kill()
            worker.wait()

    def _count(self, index: int, what: str, folder: Path) -> None:
        self.outcomes[what.partition(":")[0] if what.startswith("FAILED") else what] += 1
        if self.outcomes.total() % 10_000 == 0:
            print(f"{self.outcomes.total():,} cases, {len(self.failures)} failures", file=sys.stderr, flush=True)
        if what.startswith(("FAILED", "DEATH", "HANG")):
            self.failures.append((index, what))
            kept = self.keep / f"{self.seed}-{index}"
            shutil.rmtree(kept, ignore_errors=True)
            Cases(self.seed, kept).write(index)


class _Lines:
    """Lines of a pipe, each within a deadline."""

    def __init__(self, pipe: int) -> None:
        self.pipe, self.held, self.closed = pipe, b"", False
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ)

    def next(self, seconds: float) -> str | None:
        until = time.monotonic() + seconds
        while b"\n" not in self.held:
            if not self.selector.select(max(until - time.monotonic(), 0)):
                return None
            read = os.read(self.pipe, 1 << 16)
            if not read:
                self.closed = True
                return None
            self.held += read
        line, _, self.held = self.held.partition(b"\n")
        return line.decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the case to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, whatever is done")
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds that one case may take")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where failures are kept")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.seed, given.work)
        return 0
    campaign = Campaign(given.seed, given.deadline, given.keep)
    began = time.monotonic()
    campaign.run(given.first, given.first + given.cases, given.seconds)
    done, seconds = campaign.outcomes.total(), time.monotonic() - began
    if given.json:
        print(json.dumps({"cases": done, "outcomes": campaign.outcomes, "failures": campaign.failures}))
    else:
        for what, count in campaign.outcomes.most_common():
            print(f"{count:8,}  {what}")
        for index, what in campaign.failures[:50]:
            print(f"seed {given.seed} case {index}: {what}")
        print(f"{done:,} cases in {seconds:,.0f} s ({done / seconds:,.0f}/s), {len(campaign.failures)} failures")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
