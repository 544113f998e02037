"""Edit folders: readers, graphs and writers overlap, memory stays bounded, and nothing is lost.

    read and decode (pool) -> graphs (drivers) -> composite, encode, look again (pool)
        -> graphs for the receipts (drivers) -> write, then note in the ledger (this thread)

Pool and drivers are threads; at most `IN_FLIGHT` batches of a few sources exist at once. Where there is much to do, all
but the last step is done in worker processes instead, see `processes`, or on Ray. Writes below `out` only.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from .errors import ImageError, underway
from .images import Picture
from .machine.resources import usable_cores
from .pictures.compositing import enlarge
from .pictures.decoding import decode
from .pictures.sheet import COLUMNS, ROWS, contact_sheet, sheet_file, small
from .receipts import Failure
from .records.results import take_back
from .records.summary import Summary, summarise
from .report import write_report
from .storage.remote import Paths
from .storage.source_file import read_file
from .storage.store import Store
from .terminal.progress import Reporter, progress
from .work import batch, processes, ray_engine
from .work.actor import Settled
from .work.batch import OUTPUTS, Finished, Read, Task
from .work.job import Job, JobOptions, settle
from .work.stream import each_read

Done = tuple[list[Finished | Failure], int]
"""What has become of a batch, and how many outputs that settles."""

IN_FLIGHT = 3
PIXELS_IN_FLIGHT = 12_000_000


@dataclass
class Tally:
    """What a run has done so far."""

    written: int = 0
    worked: set[str] = field(default_factory=set)


def edit_folder(
    images: Paths,
    *,
    workers: int | None = None,
    engine: str = "local",
    sheet: bool = True,
    report: bool = False,
    **options: Unpack[JobOptions],
) -> Summary:
    """Edit images and folders of images, of this machine or behind URLs such as `s3://bucket/imgs`.

    A source that cannot be done is recorded in failures.jsonl and passed over. What an earlier run with the same
    settings has done is skipped; what it has done of a source that has changed since is done again. Results depend on
    no batch size, worker count, order or shard.

    Args:
        images: one image or folder of images, or several.
        workers: threads or processes that read and render, None takes one per core; with Ray, actors, see
            `ray_engine`.
        engine: `local`, or `ray` for the machines of a Ray cluster.
        sheet: write a contact sheet.
        report: write report.html, one page about all outputs of these edits; a shard's is `report-I-of-N.html`.
        bundle: the bundle folder.
        set: `LABEL=VALUE` strings, or labels to values.
        plan: a CSV file with one row per image and edit, instead of `set`; see `read_plan`.
        latents: what `encode_folder` has written of these images; the sources are not encoded again. With `compose`
            `decode` they are not read either, nor need they exist; no images then mean all of the file's.
        out: a folder or a URL; None takes `<folder>-edited` here.
        format: `same`, `png`, `jpeg`, `webp` or `avif`.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        batch_size: images per graph run.
        max_pixels: larger images are recorded as failures; at most 178,956,970.
        shard: `I/N`, part I of N counted from 0.
        overwrite: replace outputs that were made with other settings.
        allow_torchscript: open a TorchScript bundle, which is code.
        vary, samples, seed, mode, strength, confidence, compose, until_reached: as in `make_request`.

    Raises:
        CCVAEError: refused, and nothing was written.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    job = settle(images, workers=workers, engine=engine, sheet=sheet, report=report, **options)
    began = time.monotonic()
    # a cluster is asked before records are opened, since it may refuse
    with ray_engine.hired(job, workers) if engine == "ray" else nullcontext() as crew, job.ledger, job.store:
        tally = _run(job, workers or usable_cores(), crew)
        skipped = job.sources - len(tally.worked | job.ledger.failures.keys())
        if skipped:
            job.ledger.found_done()
        job.ledger.finish()
        sheet_path = _write_sheet(job) if sheet else None
        summary = summarise(
            job.ledger,
            job.composer,
            job.asks_for,
            sources=job.sources,
            written=tally.written,
            skipped=skipped,
            ignored=job.ignored,
            seconds=time.monotonic() - began,
            sheet=sheet_path,
        )
        if report:
            sources = {task.source.relative: task.source.path for task in job.tasks if job.read}
            receipts = filter(job.asks_for, job.ledger.receipts())
            labels, name = job.composer.labels, job.ledger.names.report
            page = write_report(Path(str(job.out)), labels, receipts, summary, sources, name)
            summary = replace(summary, report=page)
    return summary


@underway()
def _run(job: Job, workers: int, crew: ray_engine.Crew | None) -> Tally:
    """Push every source through: on a Ray cluster, in processes of their own, or in this one."""
    if crew:
        return _run_elsewhere(job, ray_engine.results(job, crew))
    if processes.worthwhile(job, workers):
        return _run_elsewhere(job, processes.results(job, workers))
    return _run_here(job, workers)


def _run_here(job: Job, threads: int) -> Tally:
    """Threads read and render, a few more run the graphs, this one writes and notes."""
    waiting: deque[Future[Done]] = deque()
    tally = Tally()
    with (
        ThreadPoolExecutor(threads) as pool,
        ThreadPoolExecutor(IN_FLIGHT) as drivers,
        progress("edit", job.outputs, "images") as bar,
    ):
        try:
            for reads in _batches(job, pool, threads, bar):
                waiting.append(drivers.submit(_through, job, pool, reads))
                if len(waiting) == IN_FLIGHT:
                    _finish(job, waiting.popleft().result(), tally, bar)
            while waiting:
                _finish(job, waiting.popleft().result(), tally, bar)
        except BaseException:
            for executor in (pool, drivers):
                executor.shutdown(wait=True, cancel_futures=True)
            raise
    return tally


def _run_elsewhere(job: Job, results: Generator[Settled, None, None]) -> Tally:
    """Others read and edit, this process writes and notes."""
    tally = Tally()
    # closed at once when this process is interrupted or cannot write, so that the others end
    with progress("edit", job.outputs, "images") as bar, closing(results) as outcomes:
        for result, outputs in outcomes:
            if result is not None:
                _settle(job, result, tally)
            bar.advance(outputs)
            # the files in it, before the next ones come
            del result
    return tally


def _batches(job: Job, pool: ThreadPoolExecutor, threads: int, bar: Reporter) -> Iterator[list[Read]]:
    """Read ahead, in order; a batch closes when it is full or its pictures or outputs add up."""
    reads: list[Read] = []
    for task, read in each_read(job.tasks, partial(_read, job), pool, threads, weigh=_area):
        if isinstance(read, ImageError):
            job.ledger.fail(Failure.of(task.source.relative, read))
            read = None
        bar.advance(task.outputs - (read.task.outputs if read else 0))
        if read is None:
            continue
        if reads and _outputs(reads) + read.task.outputs > OUTPUTS:
            yield reads
            reads = []
        reads.append(read)
        full = len(reads) == job.composer.batch_size or _outputs(reads) == OUTPUTS
        if full or sum(map(_area, reads)) > PIXELS_IN_FLIGHT // IN_FLIGHT:
            yield reads
            reads = []
    if reads:
        yield reads


def _area(read: Read | None) -> int:
    return read.picture.area if read else 0


def _outputs(reads: Sequence[Read]) -> int:
    return sum(read.task.outputs for read in reads)


def _read(job: Job, task: Task) -> Read | None:
    """A source decoded, with the edits that are yet to be made of it; None when there are none."""
    return batch.due(task, job.done_of(task), job.composer, job.latents)


def _through(job: Job, pool: ThreadPoolExecutor, reads: list[Read]) -> Done:
    """Run the graphs on a batch, and let the pool render its pictures in between."""
    results = list(batch.finish(job.composer, batch.start(job.composer, reads, pool), pool))
    return results, _outputs(reads)


def _finish(job: Job, done: Done, tally: Tally, bar: Reporter) -> None:
    """Write what a batch has become, then note it."""
    results, outputs = done
    for result in results:
        _settle(job, result, tally)
    bar.advance(outputs)


def _settle(job: Job, result: Finished | Failure, tally: Tally) -> None:
    """Write and note what has become of a source under an edit."""
    try:
        if isinstance(result, Finished):
            _write(job, result)
            tally.written += len(result.outputs)
            tally.worked.add(result.source)
        else:
            job.ledger.fail(result)
    except ImageError as error:
        job.ledger.fail(Failure.of(result.source, error))
        if isinstance(result, Finished) and isinstance(job.store, Store):
            for output in result.outputs:
                job.store.discard(output.data)


def _write(job: Job, done: Finished) -> None:
    """The files of a source under an edit, then their records."""
    names = [output.name for output in done.outputs]
    take_back(
        job.ledger,
        job.store,
        done.source,
        done.wanted.settings,
        done.source_sha256,
        names,
        overwrite=job.overwrite,
    )
    job.store.write_all({output.name: output.data for output in done.outputs})
    job.ledger.record(done.source, [output.receipt for output in done.outputs])


def _write_sheet(job: Job) -> Path | str | None:
    """The first sources in plan order beside what lies on disk for them."""
    rows: list[tuple[Picture, list[Picture]]] = []
    edits: list[str] = []
    for task in job.tasks:
        if len(rows) >= ROWS:
            break
        if task.source.relative in job.ledger.failures:
            continue
        try:
            original = _original(job, task)
            for wanted in task.wanted:
                names = wanted.outputs(task.stem, original.format)[:COLUMNS]
                rows.append((small(original), [_seen(job, name) for name in names]))
                edits.append(wanted.name)
        except ImageError:
            continue
    if not rows:
        return None
    name = job.ledger.names.sheet
    units = sum(len(task.wanted) for task in job.tasks)
    cut = f"; the first {ROWS} of {units:,}" if units > ROWS else ""
    # a plan may ask for something else in every row
    captions = edits if len(set(edits)) > 1 else []
    job.store.write(name, sheet_file(contact_sheet(rows, f"{job.title}{cut}", captions)))
    return job.store.path(name)


def _original(job: Job, task: Task) -> Picture:
    """A source; where sources are not read, the model's own reconstruction of it."""
    if job.latents is None or job.read:
        return decode(read_file(task.source.path), max_pixels=job.composer.max_pixels)
    row = batch.stored(job.latents, task.source)
    return enlarge(job.composer.decode(row.z_loc[None])[0], row.frame)


def _seen(job: Job, name: str) -> Picture:
    """A picture at the size a sheet shows it: at their own, all of a sheet may be more than memory holds."""
    return small(decode(job.store.read(name), max_pixels=job.composer.max_pixels))
