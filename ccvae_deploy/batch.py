"""One batch of sources through the graphs: read, start, finish. Reads sources, writes nothing.

    read(task)              a source decoded, in any thread
    start(editor, reads)    encode, change, decode; hand the pictures to a pool that composites and encodes them
    finish(editor, batch)   look again at what was rendered: files in memory and their receipts

`Task` goes in, `Finished` or `Failure` comes out; both can be pickled, so a batch can be done anywhere.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np

from . import images
from .editor import Array, Editor, Encoded, Rendered, write_out
from .errors import ImageError
from .folder import Source, output_name
from .images import Format, Picture
from .latent_store import LatentRow, LatentStore, encoded_rows
from .receipts import Failure, Receipt, Settings
from .request import EditRequest

ENDING: dict[Format, str] = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(frozen=True)
class Wanted:
    """One edit that is asked of sources, and the settings its receipts refer to."""

    request: EditRequest
    settings: Settings

    @property
    def name(self) -> str:
        """How output names call it."""
        return self.settings.edit

    def format(self, kept: Format) -> Format:
        """The format of the outputs of a source whose own counts where `same` was asked for."""
        return kept if self.settings.format == "same" else self.settings.format  # type: ignore[return-value]

    def outputs(self, stem: str, kept: Format) -> list[str]:
        """The output names of a source."""
        return self.names(stem, ENDING[self.format(kept)])

    def names(self, stem: str, ending: str) -> list[str]:
        """The output names of a source with this ending."""
        return [output_name(stem, self.request.name, k, ending) for k in range(self.request.samples)]


@dataclass(frozen=True, slots=True)
class Task:
    """A source, the head of its output names, and the edits to make of it; they share one read and one encode."""

    source: Source
    stem: str
    wanted: tuple[Wanted, ...]

    @property
    def outputs(self) -> int:
        """How many files it gives."""
        return sum(one.request.samples for one in self.wanted)


@dataclass(frozen=True)
class Read:
    """A source in memory: what the encoder sees of it, or what is stored of it already."""

    task: Task
    digest: str
    picture: Picture
    seen: Array | LatentRow


@dataclass(frozen=True)
class Output:
    """One file to write, and its record."""

    name: str
    data: bytes
    receipt: Receipt


@dataclass(frozen=True)
class Finished:
    """All outputs of one source under one edit."""

    source: str
    source_sha256: str
    wanted: Wanted
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class _Pending:
    """The outputs of one source under one edit, on their way."""

    row: int
    wanted: Wanted
    rendered: list[Future[Rendered]]


@dataclass(frozen=True)
class Batch:
    """Sources on their way through, with what has been computed of them."""

    reads: Sequence[Read]
    encoded: Encoded
    pending: list[_Pending]


def read(task: Task, editor: Editor, data: bytes | None = None, latents: LatentStore | None = None) -> Read:
    """A source decoded; `data` are its bytes where they have been read already.

    Raises:
        ImageError: it cannot be done, or the latents are not those of these bytes.
    """
    data = images.read_file(task.source.path) if data is None else data
    digest = hashlib.sha256(data).hexdigest()
    if latents is not None:
        return Read(task, digest, images.decode(data), _stored(latents, task.source, digest))
    picture = images.decode(data)
    return Read(task, digest, picture, images.network_input(picture, editor.bundle.manifest.image))


def _stored(latents: LatentStore, source: Source, digest: str) -> LatentRow:
    row = latents.row(source.relative)
    if row is None:
        raise ImageError("not among the latents; encode again, or leave --latents out")
    if row.source_sha256 != digest:
        raise ImageError("changed since it was encoded; encode again, or leave --latents out")
    return row


def _encoded(editor: Editor, reads: Sequence[Read]) -> Encoded:
    """The encoder's view of a batch; a run has stored latents of all its sources or of none."""
    rows = [one.seen for one in reads if isinstance(one.seen, LatentRow)]
    if rows:
        return encoded_rows(editor, rows)
    return editor.encode(np.stack([one.seen for one in reads if not isinstance(one.seen, LatentRow)]))


def start(editor: Editor, reads: Sequence[Read], pool: Executor) -> Batch:
    """Run the graphs on a batch and hand its pictures to the pool."""
    encoded = _encoded(editor, reads)
    by_edit: dict[str, list[tuple[int, Wanted]]] = {}
    for row, one in enumerate(reads):
        for wanted in one.task.wanted:
            by_edit.setdefault(wanted.settings.id, []).append((row, wanted))
    latents: dict[tuple[int, str], Array] = {}
    for settings_id, rows in by_edit.items():
        some = [row for row, _ in rows]
        names = [reads[row].task.source.relative for row in some]
        edited = editor.edited_latents(rows[0][1].request, encoded.z[some], encoded.before[some], names)
        latents |= zip(((row, settings_id) for row in some), edited, strict=True)
    # one decode for all edits: graphs run on full batches
    units = [(row, wanted) for row, one in enumerate(reads) for wanted in one.task.wanted]
    decoded = iter(editor.decode(np.concatenate([latents[row, wanted.settings.id] for row, wanted in units])))
    pending = []
    for row, wanted in units:
        picture, request = reads[row].picture, wanted.request
        format, unedited = wanted.format(picture.format), encoded.decoded[row]
        futures = [
            pool.submit(write_out, picture, next(decoded), unedited, request, format, editor)
            for _ in range(request.samples)
        ]
        pending.append(_Pending(row, wanted, futures))
    return Batch(reads, encoded, pending)


def finish(editor: Editor, batch: Batch) -> Iterator[Finished | Failure]:
    """Classify what was rendered; gives the files of a source under an edit, or why there are none."""
    done: list[tuple[_Pending, list[Rendered]]] = []
    for unit in batch.pending:
        try:
            done.append((unit, [future.result() for future in unit.rendered]))
        except ImageError as error:
            yield failure(batch.reads[unit.row].task.source, error)
    if not done:
        return
    after = iter(editor.classify(np.stack([one.seen for _, rendered in done for one in rendered])))
    for unit, rendered in done:
        one = batch.reads[unit.row]
        source, wanted = one.task.source.relative, unit.wanted
        outputs = []
        for k, name in enumerate(wanted.outputs(one.task.stem, one.picture.format)):
            receipt = editor.receipt(
                wanted.request,
                batch.encoded,
                unit.row,
                k,
                next(after),
                rendered[k].pixel_change,
                wanted.settings.id,
            )
            data = rendered[k].data
            outputs.append(Output(name, data, receipt.placed(source, one.digest, name, data)))
        yield Finished(source, one.digest, wanted, tuple(outputs))


def failure(source: Source, error: ImageError) -> Failure:
    """The record of a source that could not be done."""
    return Failure(source=source.relative, error="ImageError", reason=str(error))


def only(task: Task, wanted: Sequence[Wanted]) -> Task:
    """The task with these edits alone."""
    return replace(task, wanted=tuple(wanted))
