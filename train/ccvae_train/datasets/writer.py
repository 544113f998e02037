"""Write made portraits out as a folder that `table:DIR` reads back. Writes below DIR only."""

import csv
import io
import shutil
from pathlib import Path

from PIL import Image

from ccvae_deploy.edits.request import refuse_seed
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.given import refuse_outside
from ccvae_deploy.storage.remote import local_path
from ccvae_deploy.terminal.progress import progress

from .portraits import CHUNK, LABELS, portraits
from .table import TABLE


def write_portraits(folder: Path | str, count: int, *, seed: int = 0, size: int = 64) -> None:
    """Write DIR/images/000000.png, … and, last of all, DIR/labels.csv. What is cut off leaves no image, so that the
    same call can be made again.

    Raises:
        UsageError: DIR holds something already or cannot be made, or a number is out of range.
        WriteError: the disk is full or refuses.
    """
    refuse_outside("--count", count, 1, 10_000_000)
    refuse_outside("--size", size, 16, 2048)
    refuse_seed(seed)
    folder = local_path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not empty; give a new or an empty folder")
        (folder / "images").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}; give another folder") from error
    try:
        _write(folder, count, seed, size)
    except BaseException as error:
        shutil.rmtree(folder / "images", ignore_errors=True)
        (folder / f".{TABLE}").unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(f"cannot write {folder}: {error.strerror or error}; make room and start again") from error
        raise


def _write(folder: Path, count: int, seed: int, size: int) -> None:
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file", *(label.name for label in LABELS)])
    with progress("write portraits", count, "images") as bar:
        for start in range(0, count, 20 * CHUNK):
            part = min(20 * CHUNK, count - start)
            images, labels = portraits(part, seed=seed, start=start, size=size, workers=1)
            for index, (pixels, values) in enumerate(zip(images, labels, strict=True), start=start):
                name = f"images/{index:06d}.png"
                Image.fromarray(pixels).save(folder / name, compress_level=3)
                writer.writerow([name, *map(int, values)])
            bar.advance(len(images))
    beside = folder / f".{TABLE}"
    beside.write_text(rows.getvalue(), "utf-8")
    beside.replace(folder / TABLE)
