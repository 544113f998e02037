"""What a run of `edit` came to, over all receipts of this edit, and as a table of 80 columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .editor import Editor
from .ledger import Ledger
from .outcome import outcomes
from .request import EditRequest

if TYPE_CHECKING:
    from rich.table import Table


BINS = 10_000


@dataclass(frozen=True)
class Summary:
    """Figures of a run; those of the edits count every receipt, also of sources that were skipped as done.

    Attributes:
        sources: images found for this run or shard; `written` outputs, `skipped` sources that were done before,
            `failed` sources that could not be done, `ignored` files that are no images.
        reached: share of outputs on which the asked label came out as asked, by label.
        drift: median absolute change of every other label's probability, by label.
        pixel_change: mean over outputs, in levels of 255; `control` is the model's own blur beside it.
    """

    out: Path
    sheet: Path | None
    provider: str
    sources: int
    written: int
    skipped: int
    failed: int
    ignored: int
    seconds: float
    receipts: int
    reached: Mapping[str, float]
    all_reached: float
    drift: Mapping[str, float]
    pixel_change: float
    control: float

    @property
    def images_per_second(self) -> float:
        """Outputs written per second, all of reading, graphs and writing included."""
        return self.written / self.seconds if self.seconds else 0.0


def summarise(
    ledger: Ledger,
    editor: Editor,
    request: EditRequest,
    *,
    sources: int,
    written: int,
    skipped: int,
    ignored: int,
    seconds: float,
    sheet: Path | None,
) -> Summary:
    """Go through the receipts once."""
    labels = [editor.labels.names[one.label] for one in request.asked]
    hits = dict.fromkeys(labels, 0)
    count, every, change, control = 0, 0, 0.0, 0.0
    moves: dict[str, NDArray[np.int64]] = {}
    for row in ledger.receipts():
        count += 1
        every += row["reached"]
        change += row["pixel_change"]
        control += row["control"]
        before, now = (np.array(list(row[key].values())) for key in ("before", "after"))
        for name, outcome in zip(labels, outcomes(editor.labels, request.asked, before, now).values(), strict=True):
            hits[name] += outcome.reached
        for name, after in row["after"].items():
            if name.partition("=")[0] not in labels:
                histogram = moves.setdefault(name, np.zeros(BINS + 1, np.int64))
                histogram[round(abs(after - row["before"][name]) * BINS)] += 1
    some = max(count, 1)
    return Summary(
        out=ledger.out,
        sheet=sheet,
        provider=f"{editor.bundle.provider}: {editor.bundle.provider_note}",
        sources=sources,
        written=written,
        skipped=skipped,
        failed=len(ledger.failures),
        ignored=ignored,
        seconds=seconds,
        receipts=count,
        reached={name: hit / some for name, hit in hits.items()},
        all_reached=every / some,
        drift={name: _median(histogram) for name, histogram in moves.items()},
        pixel_change=change / some,
        control=control / some,
    )


def _median(histogram: NDArray[np.int64]) -> float:
    """The median of what a histogram over [0, 1] counted, to 1e-4; it takes the same memory for any number."""
    return float(np.searchsorted(histogram.cumsum(), (histogram.sum() + 1) // 2) / BINS)


def summary_table(summary: Summary) -> "Table":
    """The summary for the screen."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    failures = f", {summary.failed:,} failed (failures.jsonl)" if summary.failed else ""
    done = f", {summary.skipped:,} done before" if summary.skipped else ""
    ignored = f", {summary.ignored:,} other files passed over" if summary.ignored else ""
    table.add_row("sources", f"{summary.sources:,}{done}{failures}{ignored}")
    table.add_row("written", f"{summary.written:,} images, {summary.images_per_second:,.1f} images/s")
    table.add_row("provider", summary.provider)
    for name, share in summary.reached.items():
        table.add_row("reached", f"{name}: {share:.1%} of {summary.receipts:,} outputs classify as asked")
    if len(summary.reached) > 1:
        table.add_row("", f"all of them at once: {summary.all_reached:.1%}")
    drift = sorted(summary.drift.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {value:.3f}" for name, value in drift[:4])
    table.add_row("drift", f"median change of other labels: {shown}" if drift else "no other label")
    table.add_row("pixels", f"changed by {summary.pixel_change:.2f} of 255 on average")
    table.add_row("control", f"reconstruction alone differs by {summary.control:.2f} of 255 at the model's size")
    table.add_row("results", str(summary.out))
    if summary.sheet:
        table.add_row("sheet", str(summary.sheet))
    return table
