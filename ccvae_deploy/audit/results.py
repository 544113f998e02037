"""What an audit leaves: figures over its records, as a page, JSON, CSV, pictures and a table.

Reads sources again for the pictures; writes below the audit's folder only.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..folder import Scan
from ..records.ledger import Ledger
from ..storage.new_file import new_file
from ..storage.plain import read_plain
from ..storage.store import Store, replace_file
from ..terminal.printable import printable
from ..terminal.screen import counted, facts
from .auditor import Auditor
from .effects import Effect, effects
from .pictures import Shown, largest_flips
from .report import csv_lines, report_page
from .table import SHOWN, effects_table

EARLIER_LIMIT = 256 << 20

if TYPE_CHECKING:
    from rich.console import RenderableType

HTML, JSON, CSV, PICTURES = "audit.html", "audit.json", "effects.csv", "pictures"


@dataclass(frozen=True)
class Audit:
    """What an audit came to.

    Attributes:
        effects: of every label on every output, over all images of this run, also those that were done before.
        sources: images found, `skipped` of which an earlier run has done and `failed` could not be done.
        facts: what was audited and how, by name, for people.
    """

    out: Path
    html: Path
    effects: tuple[Effect, ...]
    sources: int
    skipped: int
    failed: int
    seconds: float
    facts: tuple[tuple[str, str], ...]


def write_results(auditor: Auditor, ledger: Ledger, store: Store, found: Scan, skipped: int, began: float) -> Audit:
    """Go through the records, write what they come to, and give it.

    Args:
        began: when the work did, by `time.monotonic`.

    Raises:
        WriteError: the disk is full or refuses.
    """
    # what was recorded of a file that cannot be read any more is of another one
    sources = {source.relative: source for source in found.sources if source.relative not in ledger.failures}
    labels, settings = auditor.composer.labels, auditor.settings

    def records() -> Iterator[dict[str, Any]]:
        return (row for row in ledger.receipts() if row["source"] in sources)

    measured = effects(labels, settings, records())
    classes = {labels.names[label]: labels.labels[label].classes for label in auditor.labels}
    with new_file(ledger.out / CSV) as stream:
        stream.writelines(csv_lines(records(), settings.reading.names, settings.samples, classes))
    pictures = largest_flips(auditor, measured, records(), sources)
    told = _facts(auditor, len(found.sources), skipped, len(ledger.failures), found.ignored)
    files = _write_pictures(store, pictures)
    _write_json(ledger.out / JSON, auditor, measured, files, told)
    title = f"{auditor.model.path.name}: what moves it"
    replace_file(ledger.out / HTML, [report_page(title, told, measured, pictures)])
    return Audit(
        out=ledger.out,
        html=ledger.out / HTML,
        effects=tuple(measured),
        sources=len(found.sources),
        skipped=skipped,
        failed=len(ledger.failures),
        seconds=time.monotonic() - began,
        facts=told,
    )


def _facts(auditor: Auditor, sources: int, skipped: int, failed: int, ignored: int) -> tuple[tuple[str, str], ...]:
    settings, model = auditor.settings, auditor.model
    strengths = ", ".join(f"{strength:g}" for strength in (0.0, *settings.strengths))
    done = f", {skipped:,} done before" if skipped else ""
    missing = f", {failed:,} failed (failures.jsonl)" if failed else ""
    passed = f", {counted(ignored, 'other file')} passed over" if ignored else ""
    return (
        ("model", f"{printable(model.path.name)}, {model.feeding.text()}"),
        ("outputs", printable(model.reading.text())),
        ("images", f"{sources:,}{done}{missing}{passed}"),
        ("edits", f"{counted(settings.samples, 'sample')} at strength {strengths}; {settings.compose}"),
        ("provider", auditor.composer.bundle.runs_on),
    )


def _write_pictures(store: Store, pictures: Sequence[Shown]) -> list[dict[str, Any]]:
    """The strips as files; those of an earlier report that are not shown any more are removed."""
    files = []
    for i, one in enumerate(pictures):
        name = f"{PICTURES}/{i:02d}.jpg"
        store.write(name, one.data)
        values = {"control": one.control, "redrawn": one.redrawn, "edited": one.edited, "flips": one.flips}
        digest = hashlib.sha256(one.data).hexdigest()
        files.append(
            {"file": name, "sha256": digest, "source": one.source, "edit": one.edit, "output": one.output} | values
        )
    for name, digest in _earlier(store.path(JSON)).items():
        if name not in {one["file"] for one in files}:
            store.remove(name, digest)
    return files


def _earlier(path: Path) -> Mapping[str, str]:
    """The pictures of an earlier report and their hashes."""
    try:
        return {one["file"]: one["sha256"] for one in json.loads(read_plain(path, EARLIER_LIMIT))["pictures"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _write_json(
    path: Path,
    auditor: Auditor,
    measured: Iterable[Effect],
    pictures: Sequence[Mapping[str, Any]],
    told: Sequence[tuple[str, str]],
) -> None:
    content = {
        "settings": auditor.settings.model_dump(),
        "facts": dict(told),
        "effects": [one.model_dump() for one in measured],
        "pictures": pictures,
    }
    replace_file(path, [(json.dumps(content, indent=2) + "\n").encode("ascii")])


def audit_table(found: Audit) -> "RenderableType":
    """An audit for the screen, in 80 columns."""
    from rich.console import Group
    from rich.text import Text

    rate = (found.sources - found.skipped) / found.seconds if found.seconds else 0.0
    rows = [*found.facts, ("speed", f"{rate:,.1f} images/s"), ("report", printable(str(found.html)))]
    if not found.effects:
        return facts(rows)
    if len(found.effects) > SHOWN:
        rows.insert(0, ("shown", f"{SHOWN} of {len(found.effects):,} pairs of label and output; all in the report"))
    note = Text(
        "moves: the joint interval leaves out zero; slightly: by less than a fifth of\n"
        "what the output varies among images; -: no effect found; ?: not tested, since\n"
        "under half of the edits reach the label, or under 20 images count (a direction\n"
        "of under 10 does not).",
        style="dim",
    )
    return Group(effects_table(found.effects), Text(), note, Text(), facts(rows))
