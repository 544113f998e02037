"""Tens of thousands of files in one folder, through the whole command: killed, started again, started once more.

    python tests/benchmarks/many_files.py --count 50000

The files are names of one small picture; the graphs are tiny. Prints seconds and peak memory of each run. Needs Linux.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "ccvae_deploy"))
from conftest import made_graph, write_bundle

from ccvae_deploy.schema import GRAPHS

SCRIPT = (
    "import sys\nfrom ccvae_deploy.cli import app\n"
    "try: app(sys.argv[1:])\n"
    "finally: print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
)
LINKS = 30_000
"""File systems allow so many names of one file at least."""


def make_folder(folder: Path, count: int) -> Path:
    """Names of a few small pictures."""
    folder.mkdir()
    for i in range(count):
        first = folder / f"{i - i % LINKS:07d}.png"
        if i % LINKS == 0:
            Image.new("RGB", (32, 32), (i // LINKS % 256, 90, 60)).save(first)
        else:
            os.link(first, folder / f"{i:07d}.png")
    return folder


def run(arguments: list[str], kill_after: float | None = None) -> tuple[float, str]:
    """Seconds and peak MiB of a run, or of one that is killed after some seconds."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        printed, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return time.perf_counter() - began, "killed"
    if process.returncode:
        sys.exit(f"ended with {process.returncode}: {printed}")
    return time.perf_counter() - began, f"{int(printed.split('peak')[1]) / 1024:,.0f} MiB"


def main() -> None:
    """Print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--kill-after", type=float, default=60.0, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        bundle = write_bundle(root / "bundle", {name: made_graph(name) for name in GRAPHS})
        images, out = make_folder(root / "imgs", given.count), root / "out"
        line = ["edit", str(images), "--set", "smiling=1", "--samples", str(given.samples), "--provider", "cpu"]
        line += ["--bundle", str(bundle), "--out", str(out)]
        for title, kill_after in (("killed", given.kill_after), ("started again", None), ("nothing to do", None)):
            seconds, peak = run(line, kill_after)
            there = sum(1 for entry in os.scandir(out) if "__" in entry.name)
            print(f"{title}: {seconds:,.1f} s, {peak}, {there:,} outputs there", flush=True)
        seconds, peak = run([*line, "--dry-run"])
        print(f"dry run: {seconds:,.1f} s, {peak}")


if __name__ == "__main__":
    main()
