"""Plans: a CSV file that says, row by row, which labels which image is to take. Reads that file, writes nothing."""

import csv
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from ..errors import CCVAEError, UsageError, nearest
from ..folder import UNSAFE, Source
from ..schema import LabelSet, folded
from .request import VARY, EditRequest, Value

FILE = "file"
"""The column that names the image."""

MAX_BYTES, MAX_ROWS = 1 << 28, 2_000_000
"""Larger plans are to be split; each edit that differs from all others takes memory."""


class Maker(Protocol):
    """Checks what is asked of an image, as `Composer.request` does with the other options filled in."""

    def __call__(self, asked: Mapping[str, Value], *, vary: Sequence[str]) -> EditRequest:
        """The request, or a CCVAEError."""


def read_plan(path: Path, labels: LabelSet, sources: Sequence[Source], make: Maker) -> dict[str, list[EditRequest]]:
    """The edits of every source that a plan names, by the source's relative path, in the order of their names.

    One row per image and edit: column `file` holds the path relative to the input folder (or the path as it was
    given), every other column is a label. A cell holds a value or `vary`; a blank one leaves the label alone. UTF-8,
    with or without a byte order mark. Rows are counted as a spreadsheet does: the header is row 1.

    Raises:
        UsageError: no readable CSV, an unknown file, a row that says nothing, or two rows that say the same.
        LabelError: an unknown label or a value outside its range.
    """
    by_path = {str(source.path): source.relative for source in sources}
    by_path |= {source.relative: source.relative for source in sources}
    requests: dict[tuple[str, ...], EditRequest] = {}
    found: dict[str, dict[str, EditRequest]] = {}
    seen: dict[tuple[str, str], int] = {}
    with _open(path) as file:
        rows = _rows(path, file)
        columns = _columns(path, next(rows, (1, []))[1], labels)
        for number, cells in rows:
            where = f"{path} row {number}"
            relative = _source(where, columns, cells, by_path)
            pairs = zip(columns, map(str.strip, cells), strict=True)
            values = {name: cell for name, cell in pairs if name != FILE and cell}
            if not values:
                raise UsageError(f"{where}: nothing to change for {relative}; fill a cell or delete the row")
            key = tuple(f"{name}={value}" for name, value in values.items())
            if key not in requests:
                try:
                    varied = [name for name, cell in values.items() if folded(cell) == VARY]
                    rest = {name: cell for name, cell in values.items() if name not in varied}
                    requests[key] = make(rest, vary=varied)
                except CCVAEError as error:
                    raise type(error)(f"{where} ({relative}): {error}") from error
            request = requests[key]
            # of one edit there is one name; class names may differ only in what no file name may hold
            name = request.name.translate(UNSAFE).casefold()
            earlier = seen.setdefault((relative, name), number)
            if earlier != number:
                raise UsageError(f"{where}: asks the same of {relative} as row {earlier}; delete one of them")
            found.setdefault(relative, {})[request.name] = request
    if not found:
        raise UsageError(f"{path} has no rows; expected a header such as `file,smiling` and one row per image and edit")
    return {relative: [edits[name] for name in sorted(edits)] for relative, edits in found.items()}


def _source(where: str, columns: Sequence[str], cells: Sequence[str], by_path: dict[str, str]) -> str:
    """The relative path of the source a row names."""
    if len(cells) != len(columns):
        raise UsageError(f"{where}: {len(cells)} cells, expected {len(columns)} as in the header")
    given = cells[columns.index(FILE)]
    if not given.strip():
        raise UsageError(f"{where}: no file is named; fill the column `{FILE}` or delete the row")
    spellings = (given, given.strip(), posixpath.normpath(given.strip()))
    relative = next((by_path[one] for one in spellings if one in by_path), None)
    if relative is None:
        raise UsageError(f"{where}: {given[:200]} is none of the images; give its path relative to the input folder")
    return relative


def _columns(path: Path, header: Sequence[str], labels: LabelSet) -> list[str]:
    """The header: `file`, and labels as they are spelled there."""
    if any("\0" in name for name in header):
        raise UsageError(f"{path} is no UTF-8 text; save it as comma-separated UTF-8 (CSV)")
    names = [FILE if folded(name) == FILE else name.strip() for name in header]
    if names.count(FILE) != 1:
        seen = ", ".join(names[:6])[:100]
        raise UsageError(
            f"{path} row 1: expected one column `{FILE}` and one per label, separated by commas; found {seen or 'none'}"
        )
    taken: dict[int, str] = {}
    for number, name in enumerate(names, start=1):
        if name == FILE:
            continue
        if not name:
            raise UsageError(f"{path} row 1: column {number} has no name; write a label there or delete the column")
        try:
            position = labels.index(name)
        except CCVAEError as error:
            near = nearest(name, labels.names)
            raise type(error)(f"{path} row 1: column {name[:100]!r} is no label of the bundle; {near}") from error
        if position in taken:
            raise UsageError(f"{path} row 1: columns {taken[position]} and {name} are one label; keep one of them")
        taken[position] = name
    if not taken:
        raise UsageError(f"{path} row 1: no label; add one column per label beside `{FILE}`")
    return names


def _rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with their number."""
    number = 0
    try:
        for number, row in enumerate(csv.reader(file, strict=True), start=1):
            if number > MAX_ROWS:
                raise UsageError(f"{path} has more than {MAX_ROWS:,} rows; split it")
            if any(map(str.strip, row)):
                yield number, row
    except csv.Error as error:
        raise UsageError(f"{path} row {number + 1}: no CSV ({error}); save it as comma-separated UTF-8 text") from error


def _open(path: Path) -> TextIO:
    """The file as text; bytes that are not UTF-8 stay, since file names may hold them."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"--plan {path} is no regular file; give a CSV file")
        if status.st_size > MAX_BYTES:
            raise UsageError(f"--plan {path} has {status.st_size:,} bytes, the limit is {MAX_BYTES:,}; split it")
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(f"--plan {path} cannot be read: {error.strerror}; give a CSV file") from error
