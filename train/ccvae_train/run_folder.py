"""The folder of a run: its name, `runs/latest`, `metrics.csv`, `run.json`, where the run came from. Touches only it."""

import csv
import io
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

from ccvae_deploy.errors import RunError, one_line
from ccvae_deploy.latest import LATEST, RUNS
from ccvae_deploy.storage.plain import read_plain
from ccvae_deploy.storage.store import refuse_unwritable

from .checkpoint import CHECKPOINT, RunState

BEGUN = ("tensorboard", f".{CHECKPOINT}.")
"""How the names begin of what a run's folder holds before its first checkpoint, beside `METRICS`."""
METRICS, METRICS_BEGIN = "metrics.csv", b"epoch,step,images_per_second,"
METRICS_LIMIT = 64 << 20


def new_run_folder(out: Path | None, source: str) -> Path:
    """Make the folder of a new run: `out`, or `runs/<kind of data>-<time>`.

    Raises:
        RunError: `out` holds something already, or cannot be made.
        UsageError: it cannot be written.
    """
    folder = out or RUNS
    try:
        if out is None:
            return _made(f"{source.partition(':')[0]}-{datetime.now():%Y%m%d-%H%M%S}")
        refuse_taken(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; give another --out") from error
    refuse_unwritable(out)
    return out


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds anything but what a run leaves that ended before its first checkpoint.

    Raises:
        RunError: it does, or is no folder.
    """
    if not folder.exists() or (folder.is_dir() and all(map(_is_begun, folder.iterdir()))):
        return
    how = "go on with --resume" if (folder / CHECKPOINT).is_file() else "move away what it holds"
    raise RunError(f"{folder} is not empty; {how}, or give another --out")


def _is_begun(path: Path) -> bool:
    if path.name.lstrip(".") != METRICS:
        return path.name.startswith(BEGUN)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return METRICS_BEGIN.startswith(file.read(len(METRICS_BEGIN)))


def _made(name: str) -> Path:
    """A new folder below `runs/`; two runs may begin in one second."""
    RUNS.mkdir(parents=True, exist_ok=True)
    for one in chain([name], (f"{name}-{number}" for number in count(2))):
        try:
            (RUNS / one).mkdir()
        except FileExistsError:
            continue
        return RUNS / one
    raise AssertionError("there are names without end")


def refuse_stray_latest(out: Path | None) -> None:
    """Refuse to begin, or to go on, where `latest` cannot point at the run.

    Args:
        out: its folder; None for one that is yet to be made below `runs/`.

    Raises:
        RunError: a folder has its name, or the run is to have it.
    """
    runs = RUNS if out is None else out.parent
    latest = runs / LATEST.name
    if runs.name != RUNS.name:
        return
    if out == latest and not out.exists():
        raise RunError(f"--out {out}: `latest` points at the last run, whatever its name; give another --out")
    if out != latest and latest.is_dir() and not latest.is_symlink():
        raise RunError(f"{latest} is a folder, where `train` puts a link to the last run; move it away")


def point_latest(run: Path) -> None:
    """Let `latest`, beside a run that lies in a folder `runs`, point at it: a symlink, a text file where links fail."""
    latest, beside = run.parent / LATEST.name, run.parent / f".latest.{os.getpid()}"
    if run.parent.name != RUNS.name or run == latest:
        return
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(run.name, target_is_directory=True)
    except OSError:
        beside.write_text(run.name + "\n", "utf-8")
    beside.replace(latest)


def write_run_json(run: Path, state: RunState) -> None:
    """Write what the checkpoint's header holds as a file that people read."""
    replace_whole(run / "run.json", (state.model_dump_json(indent=2) + "\n").encode())


def refuse_other_metrics(run: Path) -> None:
    """Refuse to go on with a run whose `metrics.csv` a row cannot be added to.

    Raises:
        RunError: it is no table of epochs, as after it was saved again with other separators.
    """
    path = run / METRICS
    try:
        _rows_before(path, 0)
    except ValueError as error:
        raise RunError(
            f"{path} is no table of epochs: {error}; expected columns with commas between, the first `epoch`; save it "
            "so or move it away, and resume again"
        ) from error


def refuse_links_out(run: Path) -> None:
    """Refuse to go on with a run whose pictures or curves would be written elsewhere.

    Raises:
        RunError: one of its folders is a link.
    """
    for name in ("grids", "tensorboard"):
        if (run / name).is_symlink():
            raise RunError(f"{run / name} is a link to another place; put a folder there, and resume again")


def append_metrics(run: Path, row: Mapping[str, float | int]) -> Path | None:
    """Add the row of an epoch to `metrics.csv`, in place of rows of the same or later epochs.

    Those are there when a run was killed after the row and before the checkpoint. A figure that only some epochs have
    keeps its column.

    Returns:
        Where a file went that was there and is no table of epochs; None where there was none.
    """
    path, aside = run / METRICS, None
    try:
        rows = _rows_before(path, row["epoch"])
    except ValueError:
        rows, aside = [], run / f"metrics-before-{row['epoch']:04d}.csv"
        path.replace(aside)
    columns = dict.fromkeys(name for one in (row, *rows) for name in one if name)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    replace_whole(path, text.getvalue().encode())
    return aside


def _rows_before(path: Path, epoch: float) -> list[dict[str, Any]]:
    """The rows of a table of epochs, which may be absent, up to an epoch.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        # Excel puts a mark before UTF-8
        text = read_plain(path, METRICS_LIMIT).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if text and (reader.fieldnames or [""])[0] != "epoch":
            begin, _, _ = text.partition("\n")
            raise ValueError(f"it begins with {one_line(begin, 60)!r}")
        return [row for row in reader if int(row["epoch"]) < epoch]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except csv.Error as error:
        raise ValueError(str(error)) from error


def replace_whole(path: Path, data: bytes) -> None:
    """Put a file in its place at once. What lies under the name that it has until then goes, a link too."""
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    with beside.open("xb") as file:
        file.write(data)
    beside.replace(path)


def versions() -> dict[str, str]:
    """Versions of what computed the run, and the git commit of the current folder where there is one."""
    found = {"python": platform.python_version()}
    for package in ("ccvae-deploy", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if os.name == "nt":
        # it would look for git.exe in the current folder first, which may be anyone's
        return found
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return found | {"git_commit": commit}
