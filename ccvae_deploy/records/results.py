"""The output folder of a command that makes pictures: what is not ours is refused, what is written is then noted.

Writes below one root; the ledger makes a run resumable, as for `edit`.
"""

import json
import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import images
from ..composer import Composer
from ..edits.outcome import outcome as judged
from ..errors import ImageError, UsageError
from ..images import Picture
from ..pictures.decoding import decode
from ..pictures.sheet import sheet_file
from ..receipts import Failure, OutputRecord, RunSettings
from ..storage.remote_store import RemoteStore
from ..storage.source_file import read_file
from ..storage.store import Store
from ..terminal.printable import printable
from ..terminal.screen import counted, facts, passed_over
from .ledger import Ledger
from .pages import refuse_foreign
from .reading import Group, Key

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table


@dataclass(frozen=True)
class RunOutcome:
    """What a run of `generate` or `swap` came to; shares are of all outputs that it asks for.

    Attributes:
        written: outputs of this run, `skipped` those that an earlier run had made, `failed` inputs that could not
            be done; `ignored` files are no images.
        reached: share of outputs that classify as asked, by label.
        all_reached: share of outputs on which all of them do.
    """

    out: Path
    sheet: Path | None
    provider: str
    written: int
    skipped: int
    failed: int
    ignored: int
    seconds: float
    reached: Mapping[str, float]
    all_reached: float


class Results:
    """One open output folder; made by `open_results`."""

    def __init__(self, out: Path, ledger: Ledger, store: Store, settings: RunSettings, overwrite: bool) -> None:
        self.out, self.ledger, self.store, self.settings = out, ledger, store, settings
        self.overwrite = overwrite

    def done(self, source: str, outputs: Sequence[str]) -> str | None:
        """The sha256 of the source when all these outputs are recorded with these settings and lie there as written."""
        group = self.ledger.group(source, self.settings.edit)
        if group is None or group.settings != self.settings.id or group.output != outputs[0]:
            return None
        whole = group.samples >= len(outputs) and self.store.holds(outputs, group.sizes)
        return group.source_sha256 if whole else None

    def begin(self, source: str, source_sha256: str, outputs: Sequence[str]) -> None:
        """Make room for the outputs of a source; call it before the first is written. Raises as `take_back`."""
        take_back(self.ledger, self.store, source, self.settings, source_sha256, outputs, overwrite=self.overwrite)

    def write(self, name: str, data: bytes) -> None:
        """Write one output; `record` its source when all of its outputs are there.

        Raises:
            ImageError: no file can be called so here.
            WriteError: the disk is full or refuses.
        """
        self.store.write(name, data)

    def record(self, source: str, receipts: Sequence[OutputRecord]) -> None:
        """Note a source as done."""
        self.ledger.record(source, [receipt.noted() for receipt in receipts])

    def fail(self, failure: Failure, written: Iterable[OutputRecord] = ()) -> None:
        """Note an input that could not be done, and remove what was written of it; the next run tries it again."""
        for receipt in written:
            self.store.remove(receipt.output, receipt.output_sha256)
        self.ledger.fail(failure)

    def outcome(
        self,
        composer: Composer,
        labels: Sequence[int],
        sources: Container[str],
        *,
        sheet: Path | None,
        written: int,
        skipped: int,
        seconds: float,
        ignored: int = 0,
    ) -> RunOutcome:
        """Go through the receipts once, while no other run may change them.

        Args:
            labels: those of which `reached` is told one by one.
            sources: what the run is about; the folder may hold results of others.
        """
        hits, count, every = dict.fromkeys((composer.labels.names[i] for i in labels), 0), 0, 0
        for row in (row for row in self.ledger.receipts() if row["source"] in sources):
            count, every = count + 1, every + row["reached"]
            after = np.array([*row["after"].values()], np.float32)
            for i in labels:
                name = composer.labels.names[i]
                hits[name] += bool(judged(composer.labels, i, row["asked"][name], after).reached)
        return RunOutcome(
            out=self.out,
            sheet=sheet,
            provider=composer.bundle.runs_on,
            written=written,
            skipped=skipped,
            failed=len(self.ledger.failures),
            ignored=ignored,
            seconds=seconds,
            reached={name: hit / max(count, 1) for name, hit in hits.items()},
            all_reached=every / max(count, 1),
        )

    def write_sheet(self, sheet: "Image.Image") -> Path:
        """Write a sheet beside the results."""
        name = self.ledger.names.sheet
        self.store.write(name, sheet_file(sheet))
        return self.out / name

    def picture(self, name: str) -> Picture:
        """An output as it lies on disk.

        Raises:
            ImageError: it is gone or damaged.
        """
        return decode(read_file(self.out / name), max_pixels=images.MOST_PIXELS)


@contextmanager
def open_results(
    out: Path,
    settings: RunSettings,
    plan: Iterable[tuple[str, Iterable[str]]],
    *,
    overwrite: bool,
    sheet: bool,
    roots: Mapping[str, str] | None = None,
) -> Iterator[Results]:
    """Open an output folder for one run; leaving it well merges the records, leaving it by an error keeps the journal.

    Args:
        plan: per source its possible outputs, relative to `out`.
        overwrite: replace outputs of other settings, and files that no record explains.
        sheet: whether one will be written.
        roots: where the sources lie, see `folder.roots`.

    Raises:
        UsageError: the folder holds such outputs, or another run writes to it.
    """
    ledger = Ledger(out, [settings], roots=roots)
    store = Store(out)
    ledger.refuse_audit()
    _refuse_taken(store, ledger, settings, plan, overwrite)
    if sheet and not overwrite:
        refuse_foreign(out, store, [ledger.names.sheet])
    with ledger, store:
        yield Results(out, ledger, store, settings, overwrite)
        ledger.finish()


def take_back(
    ledger: Ledger,
    store: Store | RemoteStore,
    source: str,
    settings: RunSettings,
    source_sha256: str,
    outputs: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Note that these outputs of a source will be written, take other results of it out of the records, and remove
    those of other names.

    They are there because the source or the settings have changed. A kill in between leaves records of outputs that are
    gone, which the next run sees.

    Raises:
        ImageError: a file lies where a result would go that had another name before, and `overwrite` is not given.
    """
    old, key = ledger.group(source, settings.edit), (source, settings.edit)
    same = old is None or (old.settings, old.source_sha256, old.output) == (settings.id, source_sha256, outputs[0])
    taken = None if same or overwrite else in_the_way(ledger, store, source, settings, outputs)
    if taken is not None:
        raise ImageError(f"its result would replace {taken}, which is not its own; add --overwrite, or move it")
    changed = old is not None and old.source_sha256 != source_sha256 and not overwrite
    if changed and (other := ledger.roots.elsewhere(source)):
        raise ImageError(f"its name here is that of another image, {other}; give another --out, or add --overwrite")
    if overwrite:
        ledger.disown(*key, outputs)
        owner = ledger.owner(outputs[0])
        if owner is not None and owner != key:
            _forget(ledger, store, owner, outputs)
    # before anything of it goes, so that whatever lies there at a kill is known for ours
    ledger.begin(source, settings, outputs)
    if not same:
        _forget(ledger, store, key, outputs)


def _forget(ledger: Ledger, store: Store | RemoteStore, key: Key, outputs: Sequence[str]) -> None:
    """Take a group out of the records, and remove those of its outputs that are not about to be replaced."""
    recorded = {row["output"]: row["output_sha256"] for row in map(json.loads, ledger.lines(ledger.groups[key]))}
    for name, digest in recorded.items():
        if name not in outputs:
            store.remove(name, digest)
    ledger.forget(*key)


def in_the_way(
    ledger: Ledger, store: Store | RemoteStore, source: str, settings: RunSettings, outputs: Sequence[str]
) -> str | None:
    """The first of these outputs of a recorded source that lies there and is not its own."""
    old = ledger.group(source, settings.edit)
    recorded = ledger.outputs(old) if old is not None else []
    ours = {*recorded, *ledger.begun(source, settings)}
    new = [name for name in outputs if name not in ours]
    if not new:
        return None
    # the outputs of a source lie in one folder
    there = set(store.names(new[0].rpartition("/")[0]))
    return next((name for name in new if name.rpartition("/")[2] in there), None)


def _unexplained(out: Path, group: Group | None, outputs: Iterable[str], begun: Collection[str]) -> str | None:
    """The first of these outputs that is there, unless the source is recorded under one of these names, or a run that
    was cut off was about to write it.
    """
    names = list(outputs)
    if group is not None and group.output in names:
        return None
    return next((name for name in names if name not in begun and os.path.lexists(out / name)), None)


def outcome_table(outcome: RunOutcome) -> "Table":
    """The outcome for the screen, in 80 columns."""
    rows: list[tuple[str, str]] = []
    failures = f", {outcome.failed:,} failed (failures.jsonl)" if outcome.failed else ""
    done = f", {outcome.skipped:,} done before" if outcome.skipped else ""
    rate = outcome.written / outcome.seconds if outcome.seconds else 0.0
    said = f"{done}{failures}{passed_over(outcome.ignored)}"
    all_there = outcome.skipped and not outcome.written and not outcome.failed
    written = (
        "nothing: all of it was there" if all_there else f"{counted(outcome.written, 'image')}, {rate:,.1f} images/s"
    )
    rows.append(("written", f"{written}{said}"))
    rows.append(("provider", outcome.provider))
    for name, share in outcome.reached.items():
        rows.append(("reached", f"{name}: {share:.1%} of the outputs classify as asked, by the bundle itself"))
    if len(outcome.reached) > 1:
        rows.append(("", f"all of them at once: {outcome.all_reached:.1%}"))
    rows.append(("results", printable(str(outcome.out))))
    if outcome.sheet:
        rows.append(("sheet", printable(str(outcome.sheet))))
    return facts(rows)


def _refuse_taken(
    store: Store, ledger: Ledger, settings: RunSettings, plan: Iterable[tuple[str, Iterable[str]]], overwrite: bool
) -> None:
    out = store.root
    first, count = "", 0
    for source, outputs in plan if out.exists() else ():
        store.refuse_blocked(source.rpartition("/")[0])
        if overwrite:
            continue
        group = ledger.group(source, settings.edit)
        if group is not None and ledger.made_with_others(source, settings):
            taken: str | None = group.output
        else:
            taken = _unexplained(out, group, outputs, ledger.begun(source, settings))
        if taken is not None:
            first, count = first or taken, count + 1
    if count:
        raise UsageError(
            f"{out} has {count:,} of these results, made with other settings or by others, such as {first}; "
            "add --overwrite to replace them, or give another --out"
        )
