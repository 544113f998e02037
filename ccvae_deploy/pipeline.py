"""Edit folders: readers, graphs and writers overlap, memory stays bounded, and nothing is lost.

    read and decode (threads) -> graphs (this thread) -> composite, encode, look again (threads)
        -> graphs for the receipts (this thread) -> write, then note in the ledger

Sources go through in batches of a few; at most `IN_FLIGHT` batches exist at once. Writes below `out` only.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack, get_args

import numpy as np

from . import images
from .editor import Array, Editor, Encoded, Rendered, write_out
from .errors import ImageError, UsageError, nearest
from .folder import (
    Source,
    check_out,
    clean_temporaries,
    default_out,
    in_shard,
    output_name,
    output_stems,
    parse_shard,
    scan,
    write_atomic,
)
from .images import Format, Picture
from .ledger import Ledger
from .progress import Reporter, progress
from .receipts import Failure
from .report import write_report
from .request import EditRequest, RequestOptions, make_request
from .sheet import ROWS, contact_sheet
from .summary import Summary, summarise

IN_FLIGHT = 3
PIXELS_IN_FLIGHT = 24_000_000
ENDING: dict[Format, str] = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(frozen=True)
class Job:
    """One run over a folder, settled before any work."""

    editor: Editor
    request: EditRequest
    out: Path
    format: Format | None
    ledger: Ledger
    plan: tuple[tuple[Source, str], ...]

    def outputs(self, stem: str, kept: Format) -> list[str]:
        """The output names of a source, whose own format counts where `same` was asked for."""
        ending = ENDING[self.format or kept]
        return [output_name(stem, self.request.name, k, ending) for k in range(self.request.samples)]

    def possible_outputs(self, stem: str) -> Iterator[list[str]]:
        """The output names of a source that is not decoded yet, for every format it may have."""
        for kept in (self.format,) if self.format else get_args(Format):
            yield self.outputs(stem, kept)


@dataclass(frozen=True)
class Read:
    """A source in memory."""

    source: Source
    stem: str
    digest: str
    picture: Picture
    seen: Array


@dataclass
class Batch:
    """Sources on their way through, with what has been computed of them."""

    reads: list[Read]
    encoded: Encoded
    rendered: list[list[Future[Rendered]]] = field(default_factory=list)


def edit_folder(
    inputs: Sequence[Path],
    *,
    bundle: Path,
    set: Sequence[str],
    out: Path | None = None,
    format: str = "same",
    provider: str = "auto",
    batch_size: int = 16,
    workers: int | None = None,
    shard: str | None = None,
    overwrite: bool = False,
    sheet: bool = True,
    report: bool = False,
    allow_torchscript: bool = False,
    **options: Unpack[RequestOptions],
) -> Summary:
    """Edit images and folders of images.

    A source that cannot be done is recorded in failures.jsonl and passed over. What an earlier run with the same
    settings has done is skipped. Results depend on no batch size, worker count, order or shard.

    Args:
        set: `LABEL=VALUE` strings.
        out: None takes `<folder>-edited`.
        format: `same`, `png`, `jpeg` or `webp`.
        shard: `I/N`, part I of N counted from 0.
        overwrite: replace outputs that were made with other settings.
        report: write report.html, one page about all outputs of this edit.
        options: samples, seed, mode, strength, confidence, compose, as in `EditRequest`.

    Raises:
        CCVAEError: refused, and nothing was written.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    _refuse_options(format, batch_size, workers)
    part = parse_shard(shard) if shard else None
    target = out or default_out(inputs)
    found = scan(inputs)
    check_out(target, inputs)
    editor = Editor.open(bundle, provider=provider, allow_torchscript=allow_torchscript, batch_size=batch_size)
    request = make_request(editor.labels, set, **options)
    plan = zip(found.sources, output_stems(found.sources), strict=True)
    mine = tuple(entry for entry in plan if part is None or in_shard(entry[0].relative, *part))
    ledger = Ledger(target, editor.settings(request, format), part)
    chosen: Format | None = None if format == "same" else format  # type: ignore[assignment]
    job = Job(editor, request, target, chosen, ledger, mine)
    if not overwrite:
        _refuse_conflicts(job)
    began = time.monotonic()
    with ledger:
        clean_temporaries(target)
        written, skipped = _run(job, workers or os.cpu_count() or 1, overwrite)
        clean_temporaries(target, own_only=True)
        ledger.finish()
        sheet_path = _write_sheet(job, part) if sheet else None
    summary = summarise(
        ledger,
        editor,
        request,
        sources=len(mine),
        written=written,
        skipped=skipped,
        ignored=found.ignored,
        seconds=time.monotonic() - began,
        sheet=sheet_path,
    )
    if report:
        write_report(target, ledger.receipts(), summary, {source.relative: source.path for source, _ in mine})
    return summary


def _refuse_options(format: str, batch_size: int, workers: int | None) -> None:
    if format != "same" and format not in get_args(Format):
        raise UsageError(f"--format {format!r}: {nearest(format, ('same', *get_args(Format)))}")
    if not 1 <= batch_size <= 4096:
        raise UsageError(f"--batch-size {batch_size}: expected 1 to 4096")
    if workers is not None and not 1 <= workers <= 256:
        raise UsageError(f"--workers {workers}: expected 1 to 256")


def _refuse_conflicts(job: Job) -> None:
    """Outputs of other settings, and files that no record of ours explains, are not ours to replace."""
    first, count = None, 0
    resuming, exists = job.ledger.resuming, job.out.exists()
    for source, stem in job.plan:
        if not exists:
            return
        if job.ledger.made_with_others(source.relative):
            taken: str | None = source.relative
        elif resuming or job.ledger.knows(source.relative):
            continue
        else:
            possible = (name for names in job.possible_outputs(stem) for name in names)
            taken = next((name for name in possible if (job.out / name).exists()), None)
        if taken is not None:
            first, count = first or taken, count + 1
    if first is not None:
        raise UsageError(
            f"{job.out} has results for {count:,} of these sources that were made with other settings, such as "
            f"{first}; add --overwrite to replace them, or give another --out"
        )


def _run(job: Job, threads: int, overwrite: bool) -> tuple[int, int]:
    """Push every source through; gives outputs written and sources skipped as done."""
    waiting: deque[Batch] = deque()
    counts = {"written": 0, "skipped": 0}
    total = len(job.plan) * job.request.samples
    with ThreadPoolExecutor(threads) as pool, progress("edit", total, "images") as bar:
        try:
            for reads in _batches(job, pool, counts, bar, overwrite):
                waiting.append(_start(job, pool, reads))
                if len(waiting) == IN_FLIGHT:
                    counts["written"] += _finish(job, waiting.popleft(), bar)
            while waiting:
                counts["written"] += _finish(job, waiting.popleft(), bar)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return counts["written"], counts["skipped"]


def _batches(
    job: Job, pool: ThreadPoolExecutor, counts: dict[str, int], bar: Reporter, overwrite: bool
) -> Iterator[list[Read]]:
    """Read ahead, in order; a batch closes when it is full or its pictures add up."""
    ahead: deque[tuple[Source, Future[Read | None]]] = deque()
    todo = iter(job.plan)
    batch: list[Read] = []
    pixels, largest, size = 0, 1_000_000, max(1, min(job.editor.batch_size, 64 // job.request.samples))
    while True:
        # large pictures are read ahead one or two at a time, small ones by the batch
        room = max(2, min(2 * size, PIXELS_IN_FLIGHT // largest))
        while len(ahead) < room and (entry := next(todo, None)) is not None:
            ahead.append((entry[0], pool.submit(_read, job, *entry, overwrite)))
        if not ahead:
            break
        source, future = ahead.popleft()
        try:
            read = future.result()
        except ImageError as error:
            job.ledger.fail(Failure(source=source.relative, error="ImageError", reason=str(error)))
            bar.advance(job.request.samples)
            continue
        if read is None:
            counts["skipped"] += 1
            bar.advance(job.request.samples)
            continue
        batch.append(read)
        area = read.picture.size[0] * read.picture.size[1]
        pixels, largest = pixels + area, max(largest, area)
        if len(batch) == size or pixels > PIXELS_IN_FLIGHT // IN_FLIGHT:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(job: Job, source: Source, stem: str, overwrite: bool) -> Read | None:
    """A source decoded, or None when the ledger has it and the file is still the same."""
    data = images.read_file(source.path)
    digest = hashlib.sha256(data).hexdigest()
    asked = (job.ledger.done(source.relative, outputs) for outputs in job.possible_outputs(stem))
    recorded = next(filter(None, asked), None)
    if recorded == digest:
        return None
    if recorded is not None and not overwrite:
        raise ImageError("the source has changed since its results were made; add --overwrite or give another --out")
    picture = images.decode(data)
    return Read(source, stem, digest, picture, images.network_input(picture, job.editor.bundle.manifest.image))


def _start(job: Job, pool: ThreadPoolExecutor, reads: list[Read]) -> Batch:
    """Run the graphs on a batch and hand its pictures to the writers."""
    encoded = job.editor.encode(np.stack([read.seen for read in reads]))
    changed = job.editor.changed(job.request, encoded, [read.source.relative for read in reads])
    batch = Batch(reads, encoded)
    for row, read in enumerate(reads):
        format = job.format or read.picture.format
        batch.rendered.append(
            [
                pool.submit(
                    write_out, read.picture, changed[row, k], encoded.decoded[row], job.request, format, job.editor
                )
                for k in range(job.request.samples)
            ]
        )
    return batch


def _finish(job: Job, batch: Batch, bar: Reporter) -> int:
    """Classify what was rendered, write it, then note it; gives the number of outputs."""
    done: list[tuple[int, Read, list[Rendered]]] = []
    for row, (read, futures) in enumerate(zip(batch.reads, batch.rendered, strict=True)):
        try:
            done.append((row, read, [future.result() for future in futures]))
        except ImageError as error:
            job.ledger.fail(Failure(source=read.source.relative, error="ImageError", reason=str(error)))
            bar.advance(job.request.samples)
    if not done:
        return 0
    after = job.editor.classify(np.stack([one.seen for _, _, rendered in done for one in rendered]))
    probabilities = iter(after)
    for row, read, rendered in done:
        names = job.outputs(read.stem, read.picture.format)
        receipts = []
        for k, (name, one) in enumerate(zip(names, rendered, strict=True)):
            write_atomic(job.out, name, one.data)
            receipt = job.editor.receipt(
                job.request, batch.encoded, row, k, next(probabilities), one.pixel_change, job.ledger.settings.id
            )
            receipts.append(receipt.placed(read.source.relative, read.digest, name))
        job.ledger.record(read.source.relative, receipts)
        bar.advance(len(receipts))
    return len(after)


def _write_sheet(job: Job, part: tuple[int, int] | None) -> Path | None:
    """The first sources in plan order beside what lies on disk for them."""
    rows: list[tuple[Picture, list[Picture]]] = []
    for source, stem in job.plan:
        if len(rows) == ROWS:
            break
        try:
            original = images.decode(images.read_file(source.path))
            names = job.outputs(stem, original.format)
            rows.append((original, [images.decode(images.read_file(job.out / name)) for name in names[:8]]))
        except ImageError:
            continue
    if not rows:
        return None
    name = f"sheet-{part[0]}-of-{part[1]}.png" if part else "sheet.png"
    sheet = images.from_pil(contact_sheet(rows, f"{job.request.name}, {job.request.samples} samples each"))
    write_atomic(job.out, name, images.encode(sheet, "png"))
    clean_temporaries(job.out, own_only=True)
    return job.out / name
