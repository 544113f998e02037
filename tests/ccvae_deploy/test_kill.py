"""A few kills with -9 at random moments; `tests/benchmarks/kill_edit.py --kills 100` makes many."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "kill_edit.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("processes", [0, 2])
def test_nothing_is_lost_half_written_or_left_behind(processes) -> None:
    command = [sys.executable, BENCHMARK, "--kills", "2", "--images", "40", "--samples", "2"]
    command += ["--processes", str(processes)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills: 1 of the process group, 1 of the parent alone" in done.stdout
    assert ", 0 of them broken" in done.stdout
    assert ("0 runs had processes of their own" in done.stdout) == (processes == 0)
