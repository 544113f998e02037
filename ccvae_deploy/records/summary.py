"""What a run of `edit` came to, over all receipts of what it asks for, and as a table of 80 columns."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..composer import Composer
from ..edits.outcome import outcomes
from ..edits.request import asked_of
from ..receipts import Failure
from ..schema import LabelSet
from ..storage.remote import Place
from ..terminal.printable import printable
from ..terminal.screen import counted, facts, passed_over
from .ledger import Ledger
from .reading import reading

if TYPE_CHECKING:
    from rich.table import Table


BINS = 10_000
TOGETHER = 1024
"""Receipts that are counted at once."""


@dataclass(frozen=True)
class Summary:
    """Figures of a run; those of the edits are of all outputs that it asks for, also of sources that were done before.

    Attributes:
        sources: images found for this run or shard; `written` outputs, `skipped` sources that were done before,
            `failed` sources that could not be done, `ignored` files that are no images.
        first_failure: the first of those that failed, and why; `failures` is the file that names all.
        asked: outputs of which a label was asked, by label; `reached` is the share of them that came out as asked.
        drift: median absolute change of a label's probability over the outputs of which it was not asked, by label.
        pixel_change: mean over outputs at their own size, in levels of 255, None where no source was read; `control`
            is the model's own blur.
    """

    out: Place
    sheet: Path | str | None
    provider: str
    sources: int
    written: int
    skipped: int
    failed: int
    ignored: int
    seconds: float
    receipts: int
    asked: Mapping[str, int]
    reached: Mapping[str, float]
    all_reached: float
    drift: Mapping[str, float]
    pixel_change: float | None
    control: float
    failures: str = ""
    first_failure: Failure | None = None
    report: Path | None = None

    @property
    def images_per_second(self) -> float:
        """Outputs written per second, all of reading, graphs and writing included."""
        return self.written / self.seconds if self.seconds else 0.0


def summarise(
    ledger: Ledger,
    composer: Composer,
    asks_for: Callable[[Mapping[str, Any]], bool],
    *,
    sources: int,
    written: int,
    skipped: int,
    ignored: int,
    seconds: float,
    sheet: Path | str | None,
) -> Summary:
    """Go through the receipts once.

    Args:
        asks_for: whether a receipt is of an output that the run is about.
    """
    figures = _Figures(composer.labels)
    with reading(ledger.out):
        for row in filter(asks_for, ledger.receipts()):
            figures.add(row)
        figures.settle()
    some = max(figures.count, 1)
    return Summary(
        out=ledger.place,
        sheet=sheet,
        provider=composer.bundle.runs_on,
        sources=sources,
        written=written,
        skipped=skipped,
        failed=len(ledger.failures),
        ignored=ignored,
        seconds=seconds,
        receipts=figures.count,
        asked=figures.asked,
        reached={name: hit / figures.asked[name] for name, hit in figures.hits.items()},
        all_reached=figures.every / some,
        drift={name: _median(histogram) for name, histogram in figures.moves.items()},
        pixel_change=figures.change / figures.compared if figures.compared else None,
        control=figures.control / some,
        failures=f"{ledger.place}/{ledger.names.failures}",
        first_failure=min(ledger.failures.values(), key=lambda one: os.fsencode(one.source), default=None),
    )


class _Figures:
    """Counts over receipts; they take the same memory for any number. `settle` counts what was added last."""

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self.count, self.every, self.compared, self.change, self.control = 0, 0, 0, 0.0, 0.0
        self.asked: dict[str, int] = {}
        self.hits: dict[str, int] = {}
        self.moves: defaultdict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(BINS + 1, np.int64))
        self._waiting: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)

    def add(self, row: Mapping[str, Any]) -> None:
        """One receipt."""
        self.count += 1
        self.every += row["reached"]
        if row["pixel_change"] is not None:
            self.compared, self.change = self.compared + 1, self.change + row["pixel_change"]
        self.control += row["control"]
        self._waiting[row["settings"]].append(row)
        if self.count % TOGETHER == 0:
            self.settle()

    def settle(self) -> None:
        """Count the labels of receipts, those of one edit together."""
        for rows in self._waiting.values():
            self._count(rows)
        self._waiting.clear()

    def _count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A label counts as reached where it was asked, and as drifting where it was not."""
        asked = asked_of(self.labels, rows[0]["asked"])
        before, after = (np.array([[*row[key].values()] for row in rows]) for key in ("before", "after"))
        for label, found in outcomes(self.labels, asked, before, after).items():
            name = self.labels.names[label]
            self.asked[name] = self.asked.get(name, 0) + len(rows)
            self.hits[name] = self.hits.get(name, 0) + int(np.sum(found.reached))
        with np.errstate(invalid="ignore"):
            # what is no number is no bin either
            moved = np.rint(np.abs(after - before) * BINS).astype(np.intp)
        given = {self.labels.names[one.label] for one in asked}
        for column, name in enumerate(rows[0]["after"]):
            if name.partition("=")[0] not in given:
                np.add.at(self.moves[name], moved[:, column], 1)


def _median(histogram: NDArray[np.int64]) -> float:
    """The median of what a histogram over [0, 1] counted, to 1e-4; it takes the same memory for any number."""
    count = histogram.sum()
    # of an even number, the mean of the two in the middle
    middle = np.searchsorted(histogram.cumsum(), [(count + 1) // 2, count // 2 + 1])
    return float(middle.mean() / BINS)


def summary_table(summary: Summary) -> "Table":
    """The summary for the screen."""
    rows: list[tuple[str, str]] = []
    failures = f", {summary.failed:,} failed" if summary.failed else ""
    done = f", {summary.skipped:,} done before" if summary.skipped else ""
    rows.append(("sources", f"{summary.sources:,}{done}{failures}{passed_over(summary.ignored)}"))
    if summary.first_failure:
        first, more = summary.first_failure, f" (the first of {summary.failed:,})" if summary.failed > 1 else ""
        rows.append(("failed", printable(f"{first.source}: {first.reason}") + more))
        rows.append(("failures", printable(summary.failures)))
    all_there = summary.receipts and not summary.written and not summary.failed
    written = f"{counted(summary.written, 'image')}, {summary.images_per_second:,.1f} images/s"
    rows.append(("written", "nothing: all of it was there" if all_there else written))
    rows.append(("provider", summary.provider))
    if summary.receipts:
        rows += _figure_rows(summary)
    rows.append(("results", printable(str(summary.out))))
    if summary.sheet:
        rows.append(("sheet", printable(str(summary.sheet))))
    if summary.report:
        rows.append(("report", printable(str(summary.report))))
    return facts(rows)


def pixels_text(summary: Summary) -> str:
    """What is known of the change of pixels."""
    if summary.pixel_change is None:
        return "not compared: the sources were not read"
    return f"changed by {summary.pixel_change:.2f} of 255 on average"


def drift_text(summary: Summary) -> str:
    """The median change of every label that was not asked, the largest first; those that do not move in one word."""
    moved = sorted(((value, name) for name, value in summary.drift.items() if value >= 0.0005), reverse=True)
    shown = [f"{name} {value:.3f}" for value, name in moved]
    if len(moved) < len(summary.drift):
        shown.append("all others 0.000" if moved else "0.000 each")
    return f"median change of other labels: {', '.join(shown)}" if shown else "no other label"


def _figure_rows(summary: Summary) -> list[tuple[str, str]]:
    """What the outputs came to."""
    rows: list[tuple[str, str]] = []
    for name, share in summary.reached.items():
        of = counted(summary.asked[name], "output")
        rows.append(("reached", f"{name}: {share:.1%} of {of} classify as asked, by the bundle itself"))
    if len(summary.reached) > 1:
        rows.append(("", f"all of them at once: {summary.all_reached:.1%}"))
    rows.append(("drift", drift_text(summary)))
    rows.append(("pixels", pixels_text(summary)))
    rows.append(("control", f"reconstruction alone differs by {summary.control:.2f} of 255 at the model's size"))
    return rows
