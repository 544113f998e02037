"""A short run of the fuzz command: damaged bundles end in one of our errors or in correct work, and in nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz_bundles.py"

# limits of memory and /dev/shm are those of Linux
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fuzz command runs on Linux")


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FUZZ), "--json", *options], capture_output=True, text=True, check=False)


def test_damaged_bundles_are_refused_or_work(tmp_path: Path) -> None:
    done = fuzz("--cases", "600", "--seconds", "20", "--seed", "0", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["cases"] >= 200
    # all doors were tried, and behind them the graphs ran
    assert len(found["outcomes"]) >= 12
    assert found["outcomes"]["opened"] >= 10
    assert {"refused: a field of the manifest", "refused: not a valid ONNX graph", "refused: uses the operator"} <= set(
        found["outcomes"]
    )


@pytest.mark.parametrize(
    ("blow", "seen", "deadline"),
    [("os.abort()", "DEATH", "2"), ("time.sleep(60)", "HANG", "0.5"), ("1 / 0", "FAILED", "2")],
)
def test_the_command_sees_deaths_hangs_and_tracebacks(tmp_path: Path, blow: str, seen: str, deadline: str) -> None:
    broken = tmp_path / "fuzz_bundles.py"
    for name in ("damaged_graphs.py", "damaged_manifests.py"):
        (tmp_path / name).write_text((FUZZ.parent / name).read_text("utf-8"), "utf-8")
    text = FUZZ.read_text("utf-8").replace(
        'Path(__file__).parents[1] / "golden"', f"Path({str(FUZZ.parents[1])!r}, 'golden')"
    )
    target = "        _use(open_bundle("
    assert target in text
    broken.write_text(text.replace(target, f"        {blow} if folder.name == 'bundle' else None\n{target}"), "utf-8")
    options = ["--cases", "2", "--deadline", deadline, "--json", "--keep", str(tmp_path / "kept")]
    done = subprocess.run([sys.executable, str(broken), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert [case for case, _ in json.loads(done.stdout)["failures"]] == [0, 1]
    assert all(what.startswith(seen) for _, what in json.loads(done.stdout)["failures"])
    assert (tmp_path / "kept" / "0-1" / "manifest.json").is_file()
