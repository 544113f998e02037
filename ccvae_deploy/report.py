"""One HTML page about a run of `edit`: summary, plots, the most and the least successful edits as pictures.

The page needs no network and no script: pictures are data URIs, plots inline SVG. All text in it is escaped, since
file names may come from strangers. Reads sources and outputs for a few thumbnails, writes one HTML file.
"""

import heapq
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from . import images
from .edits.outcome import Outcome, outcomes
from .edits.request import Asked, asked_of
from .errors import ImageError
from .pictures.decoding import decode
from .pictures.film import thumbnail
from .pictures.html_page import data_uri, page
from .pictures.plots import bars, escaped, histogram
from .records.summary import Summary, drift_text, pixels_text
from .schema import LabelSet
from .storage.remote import Place, local_path
from .storage.source_file import read_file
from .storage.store import replace_file

REPORT = "report.html"
SHOWN, THUMBNAIL = 12, 128
BINS, LEVELS, EDITS = 20, 256, 12
OTHERS = "other edits"


@dataclass(order=True)
class Ranked:
    """A receipt by how well the output answers what was asked; greater is kept.

    Attributes:
        asked: `label=value` of every asked label.
        before, after: probability of the one that answers least.
    """

    rank: float
    tie: int
    row: dict[str, Any] = field(compare=False)
    asked: str = field(compare=False)
    before: float = field(compare=False)
    after: float = field(compare=False)


class Collected:
    """What a pass over receipts keeps of them: counts and a few rows, the same memory for any number.

    Attributes:
        chances: per asked `label=value` how often its probability after the edit fell into each of 20 bins; those in
            `soft` ask for a value between 0 and 1.
        changes: outputs by pixel change, in whole levels of 255; `controls` by the plain reconstruction's.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self.chances: dict[str, NDArray[np.int64]] = {}
        self.soft: set[str] = set()
        self.changes, self.controls = np.zeros(LEVELS, np.int64), np.zeros(LEVELS, np.int64)
        self._best: list[Ranked] = []
        self._worst: list[Ranked] = []
        self._top: Ranked | None = None
        self._bottom: Ranked | None = None
        self._source, self._count = "", 0

    def add(self, row: dict[str, Any]) -> None:
        """Count one receipt; those of one source follow each other, and only its best and worst may be shown."""
        if row["source"] != self._source:
            self._close()
            self._source = row["source"]
        self._count += 1
        if row["pixel_change"] is not None:
            self.changes[min(int(row["pixel_change"]), LEVELS - 1)] += 1
        self.controls[min(int(row["control"]), LEVELS - 1)] += 1
        asked = asked_of(self.labels, row["asked"])
        before, after = (np.array([*row[key].values()]) for key in ("before", "after"))
        was, became = (outcomes(self.labels, asked, before, seen) for seen in (before, after))
        had = all(one.reached for one in was.values())
        answers = []
        for one in asked:
            then, now = _chance(self.labels, one, before, was), _chance(self.labels, one, after, became)
            self._count_chance(one, now)
            answers.append((_fit(now, one.value), then, now))
        # of the label that answers least what was asked of it
        rank, *least = min(answers)
        named = ", ".join(one.spelled for one in asked)
        up, down = (Ranked(sign * rank, -self._count, row, named, *least) for sign in (1, -1))
        if not had and (self._top is None or up > self._top):
            self._top = up
        if self._bottom is None or down > self._bottom:
            self._bottom = down

    def meant(self, edit: str) -> str:
        """What the probabilities of an edit are of."""
        return "the label" if edit in self.soft else "what was asked"

    def best(self) -> list[Ranked]:
        """The outputs that answer best what was asked, among sources that did not have it."""
        self._close()
        return sorted(self._best, reverse=True)

    def worst(self) -> list[Ranked]:
        """The outputs that classify least as asked."""
        self._close()
        return sorted(self._worst, reverse=True)

    def _count_chance(self, one: Asked, chance: float) -> None:
        edit = one.spelled
        if edit not in self.chances and len(self.chances) >= EDITS:
            edit = OTHERS
        elif _is_soft(one.value):
            self.soft.add(edit)
        bins = self.chances.setdefault(edit, np.zeros(BINS, np.int64))
        bins[min(int(chance * BINS), BINS - 1)] += 1

    def _close(self) -> None:
        for one, kept in ((self._top, self._best), (self._bottom, self._worst)):
            if one is not None:
                heapq.heappush(kept, one)
                if len(kept) > SHOWN:
                    heapq.heappop(kept)
        self._top = self._bottom = None


def write_report(
    out: Path | str,
    labels: LabelSet,
    receipts: Iterable[dict[str, Any]],
    summary: Summary,
    sources: Mapping[str, Place],
    name: str = REPORT,
) -> Path:
    """Write the page into an output folder.

    Args:
        labels: of the bundle that made the edits.
        receipts: of the edits in question, those of one source after each other, as the ledger gives them.
        sources: relative path to where the source lies; one that is missing is shown without its picture.
        name: the page's own; shards of one folder have one each.

    Raises:
        WriteError: the disk is full or refuses.
    """
    out, collected = local_path(out), Collected(labels)
    for row in receipts:
        collected.add(row)
    parts = [
        _summary(summary),
        _plots(collected, summary.drift),
        _pictures("Most successful", _BEST, collected.best(), out, sources),
        _pictures("Least successful", _WORST, collected.worst(), out, sources),
    ]
    replace_file(out / name, [page(", ".join(collected.chances) or "no outputs", parts)])
    return out / name


_BEST = "Of sources that did not have what was asked; one output per source, the surest first."
_WORST = "One output per source, the least convincing first."


def _is_soft(value: float | None) -> TypeGuard[float]:
    """Whether a value lies between the two of a binary label; classes are whole numbers."""
    return value is not None and 0 < value < 1


def _chance(labels: LabelSet, one: Asked, seen: NDArray[np.floating], found: Mapping[int, Outcome]) -> float:
    """The probability of what was asked; of a value between the two of a binary label, the probability of 1.

    Args:
        seen: label probabilities, and `found` what they say of every asked label.
    """
    return float(seen[labels.columns[one.label].start] if _is_soft(one.value) else found[one.label].probability)


def _fit(chance: float, value: float | None) -> float:
    """How well a probability answers what was asked, at most 1: a value between is a probability to be met."""
    return 1 - abs(chance - value) if _is_soft(value) else chance


def _summary(summary: Summary) -> str:
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    skipped = f", {summary.skipped:,} done before" if summary.skipped else ""
    rows = [
        ("sources", f"{summary.sources:,}{skipped}{failed}"),
        ("outputs", f"{summary.receipts:,}, of which {summary.written:,} in this run"),
        ("provider", summary.provider),
    ]
    figures = [
        *(
            ("reached", f"{name}: {share:.1%} classify as asked, by the bundle itself")
            for name, share in summary.reached.items()
        ),
        ("all reached", f"{summary.all_reached:.1%}"),
        ("drift", drift_text(summary)),
        ("pixels", pixels_text(summary)),
        ("control", f"{summary.control:.2f} of 255: the model's plain reconstruction, at its own size"),
    ]
    shown = rows + figures if summary.receipts else rows
    cells = (f"<tr><th>{escaped(name)}</th><td>{escaped(text)}</td></tr>" for name, text in shown)
    return f"<table>{''.join(cells)}</table>"


def _plots(collected: Collected, drifts: Mapping[str, float]) -> str:
    figures = [
        (
            f"{escaped(name)}: probability of {collected.meant(name)}, after the edit",
            histogram([("", bins.tolist())], 0, 1, "probability"),
        )
        for name, bins in collected.chances.items()
    ]
    drift = sorted(drifts.items(), key=lambda one: -one[1])
    if drift:
        caption = "Drift: median absolute change of the labels that were not asked"
        figures.append((caption, bars(drift, max(0.1, drift[0][1]))))
    top = int(max(np.flatnonzero(collected.changes + collected.controls), default=0)) + 1
    series = [("edit", collected.changes[:top].tolist()), ("reconstruction", collected.controls[:top].tolist())]
    legend = '<span class="k0">■</span> edit <span class="k1">■</span> reconstruction alone (control)'
    changes = histogram(series, 0, top, "mean absolute change, levels of 255")
    figures.append((f"Pixel change: {legend}", changes))
    shown = (f"<figure><figcaption>{caption}</figcaption>{svg}</figure>" for caption, svg in figures)
    return f'<h2>Plots</h2><div class="row">{"".join(shown)}</div>'


def _pictures(title: str, note: str, ranked: Iterable[Ranked], out: Path, sources: Mapping[str, Place]) -> str:
    cards = []
    for one in ranked:
        row = one.row
        source, output = sources.get(row["source"]), out / row["output"]
        inside = output.resolve().is_relative_to(out.resolve())
        pictures = _image(source, "before") + _image(output if inside else None, "after")
        cards.append(
            f'<figure class="pair">{pictures}<figcaption><bdi>{escaped(row["output"])}</bdi><br>{escaped(one.asked)}: '
            f"{one.before:.3f} → <b>{one.after:.3f}</b>, drift {row['drift']:.3f}, "
            f"{_change(row['pixel_change'])}</figcaption></figure>"
        )
    body = f'<div class="row">{"".join(cards)}</div>' if cards else '<p class="note">None.</p>'
    return f'<h2>{title}</h2><p class="note">{note}</p>{body}'


def _change(levels: float | None) -> str:
    return "source not read" if levels is None else f"pixels {levels:.2f}"


def _image(path: Place | None, alt: str) -> str:
    """A thumbnail as a data URI, or nothing where the file is gone or damaged."""
    if path is None:
        return ""
    try:
        picture = decode(read_file(path), max_pixels=images.MOST_PIXELS)
    except ImageError:
        return ""
    buffer = io.BytesIO()
    thumbnail(picture, THUMBNAIL).save(buffer, "JPEG", quality=88)
    return f'<img src="{data_uri(buffer.getvalue())}" alt="{alt}" width="{THUMBNAIL}" height="{THUMBNAIL}"> '
