"""`table:DIR`: images at any depth below DIR plus DIR/labels.csv. Reads below DIR.

The first column, or the one called file, image, path or filename, names the image. Every other column is a label, or
those that were asked for: 0 and 1 (or -1 and 1, or 0.0 and 1.0), or class names; blank is missing. Whole numbers are
classes in columns that were asked for, else a table's ages would be. A column called split or partition, with train,
valid or test, or 0, 1 and 2, is obeyed; without it a tenth of the images, drawn by seed, validates.
"""

import os
from collections.abc import Collection, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ccvae_deploy.errors import DataError, one_line
from ccvae_deploy.schema import ImageSpec, Label, LabelSet, folded

from ..cache import decoded_images
from .dataset import MISSING, Dataset, Partition, fingerprint_of
from .listing import checked_paths, random_splits, read_rows
from .selection import select

TABLE = "labels.csv"
FILE_COLUMNS = ("file", "image", "path", "filename")
SPLIT_COLUMNS = ("split", "partition")
SPLITS = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "test": 2, "0": 0, "1": 1, "2": 2}
SHUFFLE = 0
UNKNOWN = frozenset({"na", "n/a", "none", "null"})
AFFIRMATIVE = ("no", "yes"), ("false", "true"), ("absent", "present"), ("off", "on"), ("n", "y"), ("f", "t")


@dataclass(frozen=True)
class Table:
    """A parsed table.

    Attributes:
        files: paths relative to DIR, in file order.
        labels: one per label column.
        values: (N, L): 0 or 1, a class index, or -1 where blank.
        splits: 0 train, 1 validation, 2 test per row, or None without such a column.
    """

    files: list[str]
    labels: tuple[Label, ...]
    values: NDArray[np.int8]
    splits: NDArray[np.int8] | None


def open_table(source: str, folder: Path, labels: Sequence[str] | None, spec: ImageSpec, seed: int) -> Dataset:
    """Read the table, check every file, decode into the cache.

    Raises:
        DataError: the table does not parse, or names a file that is missing or outside DIR.
        LabelError: an unknown label.
    """
    table = read_table(folder / TABLE, labels)
    try:
        label_set = LabelSet(labels=table.labels)
    except ValidationError as error:
        raise DataError(f"{folder / TABLE}: {one_line(error.errors()[0]['msg'])}; choose some with --labels") from error
    paths = checked_paths(folder / TABLE, table.files)
    splits = table.splits if table.splits is not None else random_splits(len(paths), seed)
    # a table is often written class by class, and evaluation takes the first images of a part
    shuffle = np.random.default_rng(SHUFFLE).permutation
    parts = [shuffle(np.flatnonzero(splits == number)) for number in (0, 1)]
    for rows, name in zip(parts, ("training", "validation"), strict=True):
        if not len(rows):
            raise DataError(f"{folder / TABLE} leaves no {name} image of {len(paths):,}; add rows or correct its split")
    images, fingerprint = decoded_images("table", folder, [paths[row] for rows in parts for row in rows], spec)
    return Dataset.of(source, label_set, spec, images, [table.values[rows] for rows in parts], fingerprint)


def table_test(folder: Path, labels: Sequence[str] | None, spec: ImageSpec) -> tuple[Partition, str]:
    """The rows whose split is test, mixed, and their fingerprint; see `open_table` for errors."""
    table = read_table(folder / TABLE, labels)
    rows = np.flatnonzero(table.splits == 2) if table.splits is not None else np.empty(0, np.intp)
    rows = np.random.default_rng(SHUFFLE).permutation(rows)
    if not len(rows):
        raise DataError(f"{folder / TABLE} has no row whose split is test; add some, or leave out --partition test")
    paths = checked_paths(folder / TABLE, table.files)
    images, fingerprint = decoded_images("table", folder, [paths[row] for row in rows], spec)
    values, names = table.values[rows], tuple(label.name for label in table.labels)
    return Partition(images, values), fingerprint_of(fingerprint, names, values)


def read_table(path: Path, asked: Sequence[str] | None = None) -> Table:
    """Parse labels.csv.

    Args:
        asked: the label columns to read, in this order; None reads all.

    Raises:
        DataError: names file, row as an editor numbers it, column and remedy.
        LabelError: a column that was asked for is not there.
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path} is empty; expected a header of file and label names")
    header = [name.strip() for name in rows[0][1]]
    if len(header) < 2 or not all(header):
        raise DataError(
            f"{path}, row 1: {one_line(','.join(header), 60)!r}; expected a header of file and one or more label "
            "names, none of them blank, with commas between"
        )
    seen: dict[str, str] = {}
    for name in header:
        if twin := seen.get(folded(name)):
            raise DataError(f"{path}, row 1: columns {twin!r} and {name!r} have one name; rename one")
        seen[folded(name)] = name
    body = rows[1:]
    if not body:
        raise DataError(f"{path} has a header and no rows; expected one row per image")
    for number, row in body:
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: {len(row)} fields, the header has {len(header)}")
    lowered = [name.lower() for name in header]
    file_column = next((lowered.index(name) for name in FILE_COLUMNS if name in lowered), 0)
    splits = [name for name in SPLIT_COLUMNS if name in lowered]
    if len(splits) > 1:
        raise DataError(f"{path}, row 1: columns {' and '.join(splits)} both say what validates; remove one")
    split_column = lowered.index(splits[0]) if splits else None
    columns = [i for i in range(len(header)) if i not in (file_column, split_column)]
    if not columns:
        raise DataError(f"{path}, row 1: no label column beside {', '.join(header)}")
    if asked:
        columns = [columns[place] for place in select([header[i] for i in columns], asked)]
    parsed = [_label(path, header[i], [(n, row[i].strip()) for n, row in body], bool(asked)) for i in columns]
    return Table(
        files=_files(path, [(number, row[file_column].strip()) for number, row in body]),
        labels=tuple(label for label, _ in parsed),
        values=np.stack([values for _, values in parsed], axis=1),
        splits=None if split_column is None else _splits(path, [(n, row[split_column].strip()) for n, row in body]),
    )


def _label(path: Path, name: str, cells: list[tuple[int, str]], asked: bool) -> tuple[Label, NDArray[np.int8]]:
    """The label of a column, and its values; in one that was asked for whole numbers are classes."""
    cells = _plain_numbers(cells, asked)
    present = {cell for _, cell in cells if cell}
    if not present:
        raise DataError(f"{path}, column {name}: every cell is blank; fill some or remove the column")
    if len(name) > 100 or not name.isprintable():
        raise DataError(f"{path}, row 1: {name[:40]!r} is no label name; expected up to 100 printable characters")
    if "=" in name or "," in name:
        raise DataError(f"{path}, row 1: {name!r} has = or a comma, which options could not tell; rename the column")
    if present <= {"0", "1"}:
        classes: tuple[str, ...] = ("0", "1")
    elif asked and all(map(_is_number, present)):
        classes = _numbered_classes(path, name, cells, present)
    else:
        classes = _classes(path, name, cells, present)
    label = Label(name=name, kind="binary" if len(classes) == 2 else "categorical", classes=classes)
    index = {folded(text): position for position, text in enumerate(classes)} | {"": MISSING}
    return label, np.array([index[folded(cell)] for _, cell in cells], np.int8)


def _classes(path: Path, name: str, cells: list[tuple[int, str]], present: set[str]) -> tuple[str, ...]:
    """Class names of a column in order; numbers other than 0 and 1 are no class names."""

    def refuse(number: int, cell: str, remedy: str) -> DataError:
        return DataError(f"{path}, row {number}, column {name}: {cell[:40]!r}; {remedy}")

    for number, cell in cells:
        if cell and (_is_number(cell) or not cell.isprintable() or len(cell) > 100 or not folded(cell)):
            if cell in ("0", "1"):
                other = next((n, c) for n, c in cells if c and c not in ("0", "1"))
                raise refuse(*other, "expected 0, 1 or blank, since the column has 0 or 1 elsewhere")
            raise refuse(
                number,
                cell,
                "expected 0, 1, a class name that is no number, or blank; choose the columns to learn with --labels",
            )
    for number, cell in cells:
        if cell.lower() in UNKNOWN:
            raise refuse(number, cell, "leave the cell of a missing value blank")
    spelled: dict[str, str] = {}
    for cell in sorted(present):
        spelled.setdefault(folded(cell), cell)
    _refuse_one(path, name, spelled.values())
    _refuse_many(path, name, spelled)
    for pair in AFFIRMATIVE:
        if set(spelled) == set(pair):
            return tuple(spelled[text] for text in pair)
    return tuple(spelled[text] for text in sorted(spelled))


def _numbered_classes(path: Path, name: str, cells: list[tuple[int, str]], present: set[str]) -> tuple[str, ...]:
    """Whole numbers of 0 or more as classes, in their order."""
    for number, cell in cells:
        if cell and not (cell.isdecimal() and len(cell) <= 100):
            seen = f"{path}, row {number}, column {name}: {cell[:40]!r}"
            raise DataError(f"{seen}; expected class names, or whole numbers of 0 or more")
    _refuse_one(path, name, present)
    _refuse_many(path, name, present)
    return tuple(sorted(present, key=int))


def _plain_numbers(cells: list[tuple[int, str]], asked: bool) -> list[tuple[int, str]]:
    """Numbers as tables of others write them: 1.0 where cells of a column are blank, -1 and 1 for no and yes."""
    present = {cell for _, cell in cells if cell}
    numbers = {cell: float(cell) for cell in present if _is_number(cell)}
    if len(numbers) < len(present):
        return cells
    if set(numbers.values()) == {-1, 1}:
        plain = {cell: "1" if value > 0 else "0" for cell, value in numbers.items()}
    elif asked or set(numbers.values()) <= {0, 1}:
        plain = {cell: f"{value:.0f}" for cell, value in numbers.items() if value.is_integer() and abs(value) < 1e6}
    else:
        return cells
    return [(number, plain.get(cell, cell)) for number, cell in cells]


def _refuse_one(path: Path, name: str, classes: Collection[str]) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{path}, column {name}: {next(iter(classes))[:40]!r} is its only class; use 0 and 1, or remove it"
        )


def _refuse_many(path: Path, name: str, classes: Sized) -> None:
    if len(classes) > 127:
        raise DataError(f"{path}, column {name}: {len(classes)} different values; expected at most 127 classes")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _files(path: Path, cells: list[tuple[int, str]]) -> list[str]:
    first: dict[str, int] = {}
    for number, cell in cells:
        if not cell:
            raise DataError(f"{path}, row {number}: no file name")
        known = first.setdefault(os.path.normpath(cell), number)
        if known != number:
            raise DataError(f"{path}, row {number}: {cell[:80]!r} stands in row {known} already; remove one")
    return [cell for _, cell in cells]


def _splits(path: Path, cells: list[tuple[int, str]]) -> NDArray[np.int8]:
    for number, cell in cells:
        if cell.lower() not in SPLITS:
            raise DataError(f"{path}, row {number}: split {cell[:40]!r}; expected train, valid or test, or 0, 1 or 2")
    return np.array([SPLITS[cell.lower()] for _, cell in cells], np.int8)
