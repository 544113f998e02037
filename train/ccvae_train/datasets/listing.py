"""A CSV file that lists images: its rows, the files it names, a split by chance. Reads below the file's folder."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError
from ccvae_deploy.storage.plain import read_plain

VALIDATION_SHARE = 0.1
SIZE_LIMIT = 128 << 20
"""Bytes; parsed they take up to forty times as much."""


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Non-blank rows with the number of their last line.

    Raises:
        DataError: the file is missing, huge, not UTF-8 or no CSV.
    """
    try:
        text = read_plain(path, SIZE_LIMIT).decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path} cannot be read: {reason}; expected a table of a file column and labels") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path} holds NUL characters, so it is no text; save it as UTF-8 CSV")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}, row {reader.line_num}: {error}; save it as plain CSV") from error


def checked_paths(table: Path, files: Sequence[str], folder: Path | None = None) -> list[Path]:
    """Where the files that a table names lie: below a folder, every one of them there.

    Args:
        folder: None takes the table's own.

    Raises:
        DataError: a name is a whole path or leads outside, by itself or through a link, or nothing is there.
    """
    folder = folder or table.parent
    root = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118  (os.path is quicker, and there may be 200,000 files)
    real: dict[str, str] = {}
    paths, missing = [], []
    for name in files:
        path = folder / name
        parent = os.path.dirname(path)  # noqa: PTH120
        if parent not in real:
            real[parent] = os.path.join(os.path.realpath(parent), "")  # noqa: PTH118
        inside = real[parent].startswith(root) and path.name != ".."
        if inside and os.path.islink(path):  # noqa: PTH114
            inside = os.path.realpath(path).startswith(root)
        if Path(name).is_absolute():
            raise DataError(f"{table}: {name[:80]!r} is a whole path; expected paths relative to {folder}")
        if not inside:
            raise DataError(f"{table}: {name[:80]!r} lies outside {folder}; expected paths below it")
        if not os.path.isfile(path):  # noqa: PTH113
            missing.append(name)
        paths.append(path)
    if missing:
        raise DataError(
            f"{table}: {missing[0][:80]!r} is missing ({len(missing):,} of {len(files):,} images in all); "
            f"expected paths relative to {folder}"
        )
    return paths


def random_splits(count: int, seed: int) -> NDArray[np.int8]:
    """0 for training and, for a tenth drawn by seed, 1 for validation, (count,)."""
    splits = np.zeros(count, np.int8)
    valid = max(1, round(VALIDATION_SHARE * count)) if count > 1 else 0
    splits[np.random.default_rng(seed).permutation(count)[:valid]] = 1
    return splits
