"""What a protocol has found: figures by name, tables, pictures; and its form as JSON. Pure data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under column names; the name becomes part of a file name.

    Attributes:
        shares: the first column of figures holds shares, from 0 to 1, which a page shows as bars.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shares: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of one protocol on one model.

    Attributes:
        figures: what is reported and compared, by name; NaN where it cannot be told.
        pictures: by name, for people.
        note: one line on how to read it.
        images: on how many it was measured; 0 means all that the bench holds.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    note: str = ""
    images: int = 0

    def to_json(self) -> dict[str, Any]:
        """Figures, tables and note; pictures by name only."""
        return {
            "figures": {name: known(value) for name, value in self.figures.items()},
            "tables": [
                {
                    "name": table.name,
                    "columns": list(table.columns),
                    "rows": [[known(cell) for cell in row] for row in table.rows],
                    "shares": table.shares,
                }
                for table in self.tables
            ],
            "pictures": list(self.pictures),
            "note": self.note,
            "images": self.images,
        }


class Skipped(Exception):
    """A protocol that does not apply, or whose extra is missing; the text says why and what would change it."""


def by_label(
    name: str, labels: Sequence[str], columns: Mapping[str, Sequence[float] | NDArray[Any]], *, shares: bool = False
) -> Table:
    """A table with one row per label; see `Table` for `shares`."""
    rows = zip(labels, *columns.values(), strict=True)
    return Table(name, ("label", *columns), tuple((label, *map(_number, figures)) for label, *figures in rows), shares)


def _number(value: Any) -> int | float:
    """As Python has it; counts stay whole numbers."""
    return int(value) if isinstance(value, int | np.integer) else float(value)


def known(value: Cell) -> Cell:
    """A cell as JSON has it: numbers of six significant digits, null for what is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
