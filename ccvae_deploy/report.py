"""One HTML page about a run of `edit`: summary, plots, the most and the least successful edits as pictures.

The page needs no network and no script: pictures are data URIs, plots inline SVG. All text in it is escaped, since
file names may come from strangers. Reads sources and outputs for a few thumbnails, writes one HTML file.
"""

import heapq
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .errors import ImageError
from .pictures.decoding import decode
from .pictures.film import thumbnail
from .pictures.html_page import data_uri, page
from .pictures.plots import bars, escaped, histogram
from .records.summary import Summary, drift_text, pixels_text
from .schema import folded
from .storage.remote import Place
from .storage.source_file import read_file
from .storage.store import replace_file

REPORT = "report.html"
SHOWN, THUMBNAIL = 12, 128
BINS, LEVELS, EDITS = 20, 256, 12
OTHERS = "other edits"


@dataclass(order=True)
class Ranked:
    """A receipt by how well the output answers what was asked; greater is kept."""

    rank: float
    tie: int
    row: dict[str, Any] = field(compare=False)
    before: float = field(compare=False)
    after: float = field(compare=False)


class Collected:
    """What a pass over receipts keeps of them: counts and a few rows, the same memory for any number.

    Attributes:
        chances: per asked `label=value` how often its probability after the edit fell into each of 20 bins; those in
            `soft` ask for a value between 0 and 1.
        changes: outputs by pixel change, in whole levels of 255; `controls` by the plain reconstruction's.
    """

    def __init__(self) -> None:
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
        rank, before, after = self._count_chances(row)
        if row["pixel_change"] is not None:
            self.changes[min(int(row["pixel_change"]), LEVELS - 1)] += 1
        self.controls[min(int(row["control"]), LEVELS - 1)] += 1
        had = all(_had(row, name, value) for name, value in row["asked"].items())
        up, down = (Ranked(sign * rank, -self._count, row, before, after) for sign in (1, -1))
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

    def _count_chances(self, row: dict[str, Any]) -> tuple[float, float, float]:
        """Of the label that answers least what was asked of it: how well, and its probability before and after."""
        found = []
        for name, value in row["asked"].items():
            was, became = (_chance(row, key, name, value) for key in ("before", "after"))
            found.append((_fit(became, value), was, became))
            edit = _edit(row, name, value)
            if edit not in self.chances and len(self.chances) >= EDITS:
                edit = OTHERS
            elif _is_soft(value):
                self.soft.add(edit)
            bins = self.chances.setdefault(edit, np.zeros(BINS, np.int64))
            bins[min(int(became * BINS), BINS - 1)] += 1
        return min(found)

    def _close(self) -> None:
        for one, kept in ((self._top, self._best), (self._bottom, self._worst)):
            if one is not None:
                heapq.heappush(kept, one)
                if len(kept) > SHOWN:
                    heapq.heappop(kept)
        self._top = self._bottom = None


def write_report(
    out: Path,
    receipts: Iterable[dict[str, Any]],
    summary: Summary,
    sources: Mapping[str, Place],
    name: str = REPORT,
) -> Path:
    """Write the page into an output folder.

    Args:
        receipts: of the edits in question, those of one source after each other, as the ledger gives them.
        sources: relative path to where the source lies; one that is missing is shown without its picture.
        name: the page's own; shards of one folder have one each.

    Raises:
        WriteError: the disk is full or refuses.
    """
    collected = Collected()
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


def _is_soft(value: float | str) -> bool:
    """Whether a value lies between the two of a binary label; classes are whole numbers."""
    return not isinstance(value, str) and 0 < value < 1


def _fit(chance: float, value: float | str) -> float:
    """How well a probability answers what was asked, at most 1: a value between is a probability to be met."""
    return 1 - abs(chance - float(value)) if _is_soft(value) else chance


def _chance(row: dict[str, Any], key: str, spelled: str, value: float | str) -> float:
    """The probability of what was asked, `before` or `after`; a label that was to vary is asked to stay as it was. Of a
    value between the two of a binary label, the probability of 1.

    Args:
        spelled: the label as the user wrote it.
        value: 0 to 1, a class's index, or a word.
    """
    names = _columns(row, spelled)
    chances = [row[key][name] for name in names]
    stays = isinstance(value, str)
    if len(names) == 1:
        if _is_soft(value):
            return float(chances[0])
        return float(chances[0] if (row["before"][names[0]] > 0.5 if stays else value) else 1 - chances[0])
    chosen = max(range(len(names)), key=lambda i: row["before"][names[i]]) if stays else int(value)
    return float(chances[chosen])


def _had(row: dict[str, Any], spelled: str, value: float | str) -> bool:
    """Whether the source classified as asked before the edit; what was to vary always did."""
    before = [row["before"][name] for name in _columns(row, spelled)]
    if isinstance(value, str):
        return True
    return (before[0] > 0.5) == (value >= 0.5) if len(before) == 1 else int(np.argmax(before)) == int(value)


def _columns(row: Mapping[str, Any], spelled: str) -> list[str]:
    return [name for name in row["after"] if folded(name.partition("=")[0]) == folded(spelled)]


def _edit(row: Mapping[str, Any], name: str, value: float | str) -> str:
    """What was asked, with the class's own name, which receipts hold by its place."""
    if isinstance(value, str):
        return f"{name}={value}"
    classes = [column for column in _columns(row, name) if "=" in column]
    return classes[int(value)] if 0 <= int(value) < len(classes) else f"{name}={value:g}"


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
        asked = ", ".join(_edit(row, name, value) for name, value in row["asked"].items())
        cards.append(
            f'<figure class="pair">{pictures}<figcaption><bdi>{escaped(row["output"])}</bdi><br>{escaped(asked)}: '
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
