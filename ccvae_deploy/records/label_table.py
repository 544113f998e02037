"""A table of label probabilities as CSV or JSON lines, written row by row. Writes one file, whole or not at all.

Names in CSV are the bytes that lie on disk, so a name that is not UTF-8 makes a line that is not either; read such
a file with `errors="surrogateescape"`. JSON lines are ASCII: such bytes are surrogate escapes, as in receipts.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Self

from ..errors import UsageError
from ..storage.new_file import new_file
from ..storage.store import refuse_file

TableFormat = Literal["csv", "jsonl"]
KEYS = ("source", "source_sha256", "error")


@dataclass(frozen=True)
class Row:
    """One source: its label probabilities by name, or the error why there are none.

    Attributes:
        spread: standard deviation of each probability over posterior draws, where draws were asked for.
    """

    source: str
    source_sha256: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] | None = None
    error: str = ""


class LabelTable:
    """Writes rows to a binary stream; a CSV begins with its header.

    Raises:
        UsageError: two columns of the CSV would have one name.
    """

    def __init__(self, stream: BinaryIO, format: TableFormat, names: Sequence[str], spread: bool) -> None:
        self.stream, self.format, self.names, self.spread = stream, format, tuple(names), spread
        if format == "csv":
            columns = [*KEYS[:2], *names, *(f"{name} sd" for name in names if spread), KEYS[2]]
            if twin := next((name for name in names if columns.count(name) > 1), None):
                raise UsageError(f"label {twin} has the name of another column of the table; give --out FILE.jsonl")
            self.stream.write(csv_line(columns))

    def write(self, row: Row) -> None:
        """Append one row; probabilities have six decimals."""
        if self.format == "jsonl":
            self.stream.write((json.dumps(_as_json(row)) + "\n").encode("ascii"))
            return
        figures = [row.probabilities, *([row.spread or {}] if self.spread else [])]
        cells = [f"{part[name]:.6f}" if name in part else "" for part in figures for name in self.names]
        self.stream.write(csv_line([row.source, row.source_sha256, *cells, row.error]))

    @classmethod
    @contextmanager
    def create(cls, path: Path, names: Sequence[str], spread: bool, overwrite: bool) -> Iterator[Self]:
        """A table that appears at `path` when the block ends well, and leaves nothing when it does not.

        Raises:
            WriteError: as `new_file`.
        """
        with new_file(path, overwrite=overwrite) as stream:
            yield cls(stream, table_format(path), names, spread)


def table_format(path: Path) -> TableFormat:
    """The format that a file's ending names.

    Raises:
        UsageError: another ending.
    """
    match path.suffix.lower():
        case ".csv":
            return "csv"
        case ".jsonl":
            return "jsonl"
    raise UsageError(f"--out {path}: expected a name that ends in .csv or .jsonl")


def refuse_table(path: Path, overwrite: bool) -> None:
    """Refuse a place where a table cannot go: a folder, or a file that is there.

    Raises:
        UsageError: `path` is taken, or its ending is unknown.
    """
    table_format(path)
    refuse_file(path, overwrite)


def _as_json(row: Row) -> dict[str, object]:
    if row.error:
        return {"source": row.source, "error": row.error}
    content: dict[str, object] = {"source": row.source, "source_sha256": row.source_sha256}
    content["probabilities"] = {name: round(value, 6) for name, value in row.probabilities.items()}
    if row.spread is not None:
        content["spread"] = {name: round(value, 6) for name, value in row.spread.items()}
    return content


def csv_line(cells: Sequence[str]) -> bytes:
    """One line of a CSV file; any name a file may have comes back as it was, also one that is no UTF-8."""
    text = io.StringIO(newline="")
    # else a carriage return, which is no line end of ours, would stand bare before Python 3.13
    bare = any("\r" in cell for cell in cells)
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL).writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")
