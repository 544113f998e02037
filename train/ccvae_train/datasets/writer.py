"""Write made portraits out as a folder that `table:DIR` reads back. Writes below DIR only."""

import csv
import io
from pathlib import Path

from PIL import Image

from ccvae_deploy.edits.request import refuse_seed
from ccvae_deploy.errors import UsageError
from ccvae_deploy.storage.remote import local_path
from ccvae_deploy.terminal.progress import progress

from .portraits import CHUNK, LABELS, portraits
from .table import TABLE


def write_portraits(folder: Path | str, count: int, *, seed: int = 0, size: int = 64) -> None:
    """Write DIR/images/000000.png, … and, last of all, DIR/labels.csv.

    Raises:
        UsageError: DIR holds something already or cannot be written, or a number is out of range.
    """
    if not 1 <= count <= 10_000_000:
        raise UsageError(f"--count {count}: expected 1 to 10,000,000")
    if not 16 <= size <= 2048:
        raise UsageError(f"--size {size}: expected 16 to 2048")
    refuse_seed(seed)
    folder = local_path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not empty; give a new or an empty folder")
        (folder / "images").mkdir(parents=True)
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
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}; give another folder") from error
