"""The folder of a run: its name, `runs/latest`, `metrics.csv`, `run.json`, where the run came from. Touches only it."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

from ccvae_deploy.errors import RunError
from ccvae_deploy.latest import LATEST, RUNS

from .checkpoint import CHECKPOINT, RunState

BEGUN = ("tensorboard", f".{CHECKPOINT}.")
"""How what is called that lies in a run's folder before its first checkpoint."""


def new_run_folder(out: Path | None, source: str) -> Path:
    """Make the folder of a new run: `out`, or `runs/<kind of data>-<time>`.

    Raises:
        RunError: `out` holds something already, or cannot be made.
    """
    folder = out or _free(f"{source.partition(':')[0]}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        refuse_taken(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; give another --out") from error
    return folder


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds anything but what a run leaves that ended before its first checkpoint.

    Raises:
        RunError: it does, or is no folder.
    """
    taken = any(not path.name.startswith(BEGUN) for path in folder.iterdir()) if folder.is_dir() else folder.exists()
    if taken:
        raise RunError(f"{folder} is not empty; go on with --resume, or give another --out")


def _free(name: str) -> Path:
    """A name below `runs/` that no run has; two may begin in one second."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(RUNS / one for one in names if not (RUNS / one).exists())


def point_latest(run: Path) -> None:
    """Let `latest`, beside a run that lies in a folder `runs`, point at it: a symlink, a text file where links fail."""
    if run.parent.name != RUNS.name:
        return
    latest, beside = run.parent / LATEST.name, run.parent / f".latest.{os.getpid()}"
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(run.name, target_is_directory=True)
    except OSError:
        beside.write_text(run.name + "\n", "utf-8")
    beside.replace(latest)


def write_run_json(run: Path, state: RunState) -> None:
    """Write what the checkpoint's header holds as a file that people read."""
    beside = run / ".run.json"
    beside.write_text(state.model_dump_json(indent=2) + "\n", "utf-8")
    beside.replace(run / "run.json")


def append_metrics(run: Path, row: Mapping[str, float | int]) -> None:
    """Add the row of an epoch to `metrics.csv`, in place of rows of the same or later epochs.

    Those are there when a run was killed after the row and before the checkpoint.
    """
    path, beside = run / "metrics.csv", run / ".metrics.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    beside.replace(path)


def versions() -> dict[str, str]:
    """Versions of what computed the run, and the git commit of the current folder where there is one."""
    found = {"python": platform.python_version()}
    for package in ("ccvae-deploy", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return found | {"git_commit": commit}
