"""Swap characteristics over folders: read, swap, write, note. Writes below `out` only."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from .composer import Composer, Encoded
from .edits.request import checked_compose
from .errors import ImageError, underway
from .folder import Source, check_out, default_out, output_stems, refuse_own_sources, roots, scan
from .images import Picture, from_array
from .limits import BATCH, MAX_PIXELS, refuse_speed
from .machine.resources import usable_cores
from .pictures.decoding import decode
from .pictures.film import Cell, film_grid, shrunk
from .pictures.rendering import Rendered, refuse_format
from .receipts import Failure, OutputRecord
from .records.reading import Names
from .records.results import Results, RunOutcome, open_results
from .storage.remote import Paths, local_path, paths
from .storage.source_file import read_file
from .swap import Swap, SwapSettings, Whole, chosen_labels
from .terminal.progress import Reporter, progress
from .work.references import Reference, References, read_references
from .work.stream import area_of, chunks, read_ahead, see, stack

SHEET_ROWS, SHEET_COLUMNS, CELL = 12, 8, 128


@dataclass
class Making:
    """One source of a batch on its way through.

    Attributes:
        at: its place in the batch.
        names: of its outputs; `receipts` are those of the outputs that are written.
        failure: why it cannot be done.
    """

    at: int
    source: Whole
    names: list[str]
    receipts: list[OutputRecord] = field(default_factory=list)
    failure: Failure | None = None

    def begin(self, results: Results) -> None:
        """Make room for the outputs."""
        try:
            results.begin(self.source.source.relative, self.source.digest, self.names)
        except ImageError as error:
            self.fail(error)

    def fail(self, error: ImageError) -> None:
        """Note why it cannot be done."""
        self.failure = Failure.of(self.source.source.relative, error)

    def record(self, results: Results) -> int:
        """Note what has become of it; gives the number of outputs."""
        if self.failure:
            results.fail(self.failure, self.receipts)
            return 0
        results.record(self.source.source.relative, self.receipts)
        return len(self.receipts)


@dataclass(frozen=True)
class Unit:
    """One output to make: of which source, under which name, and the reference with its number."""

    of: Making
    name: str
    reference: tuple[int, Reference]


def swap_folder(
    images: Paths,
    *,
    bundle: Path | str,
    from_: Path | str,
    labels: Sequence[str],
    pairs: str = "one",
    out: Path | str | None = None,
    compose: str = "residual",
    format: str = "same",
    provider: str = "auto",
    batch_size: int = BATCH,
    workers: int | None = None,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    sheet: bool = True,
    allow_torchscript: bool = False,
) -> RunOutcome:
    """Give images and folders of images the characteristics of a reference.

    A source that cannot be done is recorded in failures.jsonl and passed over. What an earlier run with the same
    settings and references has done is skipped.

    Args:
        images: one image or folder of images, or several.
        from_: the reference, or a folder of them.
        labels: names of the labels whose blocks are taken.
        pairs: `one` reference per source, paired in the order of paths; or `all` with all.
        out: None takes `<folder>-swapped`.
        format: `same`, `png`, `jpeg`, `webp` or `avif`.
        overwrite: replace outputs that were made with other settings.
        max_pixels: larger images are recorded as failures; at most 178,956,970.

    Raises:
        CCVAEError: refused, and nothing was written.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_speed(batch_size, workers)
    refuse_format(format)
    how = checked_compose(compose)
    places, reference = [local_path(given) for given in paths(images)], local_path(from_)
    target = default_out(places, "swapped") if out is None else local_path(out)
    found = scan(places)
    sources = found.sources
    check_out(target, [*places, reference], sources)
    composer = Composer.open(
        bundle,
        provider=provider,
        allow_torchscript=allow_torchscript,
        batch_size=batch_size,
        max_pixels=max_pixels,
    )
    chosen = chosen_labels(composer, labels)
    references = read_references(composer, reference, pairs, len(sources), workers=workers)
    settings = SwapSettings(
        bundle=composer.bundle.digest,
        edit=",".join("_".join(composer.labels.names[i].lower().split()) for i in chosen),
        pairs=pairs,
        references=references.digest,
        compose=how,
        format=format,
    )
    swap = Swap(composer, chosen, references, settings, how)
    stems = output_stems(sources)
    read = (source.path for source in (*sources, *scan([reference]).sources))
    refuse_own_sources(target, read, _plan(swap, sources, stems), [Names.of(None).sheet] if sheet else [])
    began = time.monotonic()
    plan = _plan(swap, sources, stems)
    with open_results(target, settings, plan, overwrite=overwrite, sheet=sheet, roots=roots(places)) as results:
        written, skipped = _run(swap, results, sources, stems, workers or usable_cores())
        if skipped:
            results.ledger.found_done()
        path = _write_sheet(swap, results, sources, stems) if sheet else None
        seconds = time.monotonic() - began
        return results.outcome(
            composer,
            chosen,
            {source.relative for source in sources},
            sheet=path,
            written=written,
            skipped=skipped,
            seconds=seconds,
            ignored=found.ignored,
        )


def _plan(swap: Swap, sources: Sequence[Source], stems: Sequence[str]) -> Iterator[tuple[str, Iterator[str]]]:
    """Per source the names that its outputs may have."""
    for row, source in enumerate(sources):
        yield source.relative, chain.from_iterable(swap.possible_outputs(row, stems[row]))


@underway()
def _run(
    swap: Swap, results: Results, sources: Sequence[Source], stems: Sequence[str], threads: int
) -> tuple[int, int]:
    """Push every source through; gives outputs written, and outputs that were there."""
    references, rows = swap.references, {source.relative: row for row, source in enumerate(sources)}
    for one in references.failures:
        results.fail(one)
    todo = [source for row, source in enumerate(sources) if references.of(row)]
    for row, source in enumerate(sources):
        if not references.of(row):
            results.fail(Failure.of(source.relative, ImageError("its reference cannot be read")))
    each = len(references.of(rows[todo[0].relative])) if todo else 0
    size = max(1, swap.composer.batch_size // max(each, 1))
    written = skipped = 0

    def read(source: Source) -> Whole | int:
        row = rows[source.relative]
        return _read(swap, results, source, row, stems[row])

    with ThreadPoolExecutor(threads) as pool, progress("swap", each * len(todo), "images") as bar:
        ahead = read_ahead(todo, read, workers=threads, weigh=area_of)
        for group in chunks(ahead, size, area_of):
            batch = [one for one in group if isinstance(one, Whole)]
            for failed in (one for one in group if isinstance(one, Failure)):
                results.fail(failed)
            skipped += sum(one for one in group if isinstance(one, int))
            bar.advance(each * (len(group) - len(batch)))
            if batch:
                written += _do(swap, results, batch, pool, bar)
    return written, skipped


def _read(swap: Swap, results: Results, source: Source, row: int, stem: str) -> Whole | int:
    """A source decoded, or the number of its outputs when they are there and it is still the same."""
    data = read_file(source.path)
    digest = hashlib.sha256(data).hexdigest()
    for names in swap.possible_outputs(row, stem):
        if results.done(source.relative, names) == digest:
            return len(names)
    return Whole(**vars(see(swap.composer, source, data)), row=row, stem=stem)


def _do(swap: Swap, results: Results, batch: Sequence[Whole], pool: ThreadPoolExecutor, bar: Reporter) -> int:
    """Swap, render, classify and write a batch of sources; gives the number of outputs."""
    encoded = swap.composer.encode(stack(batch))
    made = [
        Making(at, source, swap.outputs(source.row, source.stem, source.picture.format))
        for at, source in enumerate(batch)
    ]
    for one in made:
        one.begin(results)
        if one.failure:
            bar.advance(len(one.names))
    todo = [
        Unit(one, name, reference)
        for one in made
        if not one.failure
        for name, reference in zip(one.names, swap.references.of(one.source.row), strict=True)
    ]
    for units in chunks(todo, swap.composer.batch_size):
        _make(swap, results, encoded, units, pool)
        bar.advance(len(units))
    return sum(one.record(results) for one in made)


def _make(swap: Swap, results: Results, encoded: Encoded, units: Sequence[Unit], pool: ThreadPoolExecutor) -> None:
    """Make some outputs and their receipts; a source of which one cannot be made fails."""
    done: list[tuple[Unit, Rendered]] = []
    for unit, future in zip(units, _rendered(swap, encoded, units, pool), strict=True):
        try:
            done.append((unit, future.result()))
        except ImageError as error:
            unit.of.fail(error)
    if not done:
        return
    after = swap.composer.classify(np.stack([rendered.seen for _, rendered in done]))
    for (unit, rendered), probabilities in zip(done, after, strict=True):
        try:
            results.write(unit.name, rendered.data)
        except ImageError as error:
            unit.of.fail(error)
            continue
        source, at = unit.of.source, unit.of.at
        unit.of.receipts.append(swap.receipt(source, encoded, at, unit.reference, rendered, probabilities, unit.name))


def _rendered(swap: Swap, encoded: Encoded, units: Sequence[Unit], pool: ThreadPoolExecutor) -> list[Future[Rendered]]:
    """Files in memory, made by the pool."""
    rows = [unit.of.at for unit in units]
    decoded = swap.decoded(encoded.z[rows], np.stack([unit.reference[1].z_c for unit in units]))
    return [
        pool.submit(swap.render, unit.of.source, image, encoded.decoded[row])
        for unit, row, image in zip(units, rows, decoded, strict=True)
    ]


def _picture(swap: Swap, source: Source) -> Picture:
    return decode(read_file(source.path), max_pixels=swap.composer.max_pixels)


def _write_sheet(swap: Swap, results: Results, sources: Sequence[Source], stems: Sequence[str]) -> Path | None:
    """The first sources beside what lies on disk for them; references stand above, or in the second column."""
    rows: list[list[Cell]] = []
    above: list[Cell] = []
    for row, source in enumerate(sources):
        if len(rows) == SHEET_ROWS:
            break
        if source.relative in results.ledger.failures:
            continue
        try:
            original = _picture(swap, source)
            names = swap.outputs(row, stems[row], original.format)[:SHEET_COLUMNS]
            made = [Cell(shrunk(results.picture(name), CELL)) for name in names]
            taken = [
                Cell(shrunk(_picture(swap, one.source), CELL)) for _, one in swap.references.of(row)[:SHEET_COLUMNS]
            ]
        except ImageError:
            continue
        if made:
            above = taken
            rows.append([Cell(shrunk(original, CELL)), *(made if swap.references.shared else [*taken, *made])])
    if not rows:
        return None
    if swap.references.shared:
        rows.insert(0, [Cell(from_array(np.full((1, 1), 255, np.uint8))), *above])
    return results.write_sheet(film_grid(rows, f"{swap.settings.edit}: {_told(swap.references, len(sources))}"))


def _told(references: References, sources: int) -> str:
    """What a sheet shows, and of how many where that is not all."""
    order, each = "original, reference, result", 1
    if references.shared:
        order, each = "references above", len(references.of(0))
    columns = f", the first {SHEET_COLUMNS} of {each:,}" if each > SHEET_COLUMNS else ""
    return f"{order}{columns}" + (f"; the first {SHEET_ROWS} of {sources:,} images" if sources > SHEET_ROWS else "")
