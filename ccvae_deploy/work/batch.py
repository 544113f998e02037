"""One batch of sources through the graphs: due, start, finish. Reads sources, writes nothing.

    due(task, done, composer)       a source decoded, in any thread, with what is not done of it
    start(composer, reads)          encode, change, decode; hand the pictures to a pool that composites and encodes them
    finish(composer, batch, pool)   look again at what was rendered: files in memory and their receipts

`Task` goes in, `Finished` or `Failure` comes out; both can be pickled, so a batch can be done anywhere.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .. import images
from ..arrays import Array
from ..composer import Composer, Encoded, Made
from ..edits.redraw import Kept, Slot, keep_drawing
from ..edits.request import EditRequest
from ..errors import ImageError
from ..folder import Source, output_name
from ..images import ENDING, Format, Picture
from ..latent_store import LatentRow, LatentStore, encoded_rows
from ..pictures.decoding import decode
from ..pictures.rendering import Rendered, output_format, write_out
from ..receipts import Failure, Noted, Settings
from ..storage.source_file import read_file

OUTPUTS = 128
"""Outputs of one batch, and of one task: a source of which more are asked is read several times. Graphs run on full
batches of 16 sources where 8 samples are asked of each."""


@dataclass(frozen=True)
class Wanted:
    """One edit that is asked of sources, and the settings its receipts refer to."""

    request: EditRequest
    settings: Settings

    @property
    def name(self) -> str:
        """How output names call it."""
        return self.settings.edit

    @cached_property
    def id(self) -> str:
        """The id of the settings, which takes a while to compute."""
        return self.settings.id

    def format(self, kept: Format) -> Format:
        """The format of the outputs of a source."""
        return output_format(self.settings.format, kept)

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

    @property
    def read(self) -> bool:
        """Whether the source is read; the edits of one run agree on it."""
        return self.wanted[0].settings.read


@dataclass(frozen=True)
class Read:
    """A source in memory: what the encoder sees of it, or what is stored of it already."""

    task: Task
    digest: str
    picture: Picture
    seen: Array | LatentRow


@dataclass(frozen=True)
class Output:
    """One file to write, and its record.

    Attributes:
        data: its bytes, or the name of the temporary in which a worker process has set them down.
    """

    name: str
    data: bytes | str
    receipt: Noted


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
    read: Read
    unedited: Array
    rendered: list[Future[Rendered]] = field(default_factory=list)

    def submit(self, composer: Composer, pool: Executor, image: Array) -> Future[Rendered]:
        """Hand one decoded image to a pool."""
        picture, format = self.read.picture, self.wanted.format(self.read.picture.format)
        how, spec = self.wanted.request.compose, composer.bundle.manifest.image
        return pool.submit(write_out, picture, image, self.unedited, how, format, spec)


@dataclass(frozen=True)
class Batch:
    """Sources on their way through, with what has been computed of them."""

    reads: Sequence[Read]
    encoded: Encoded
    pending: list[_Pending]


def stored(latents: LatentStore, source: Source) -> LatentRow:
    """What is stored of a source.

    Raises:
        ImageError: nothing.
    """
    row = latents.row(source.relative)
    if row is None:
        raise ImageError("not among the latents; encode again, or leave --latents out")
    return row


def _unread(task: Task, composer: Composer, latents: LatentStore) -> Read:
    """A source as it is stored, whether it still exists or not."""
    row = stored(latents, task.source)
    if (pixels := row.frame.area) > composer.max_pixels:
        raise ImageError(f"{pixels:,} pixels, the limit is {composer.max_pixels:,}")
    return Read(task, row.source_sha256, row.frame, row)


def _encoded(composer: Composer, reads: Sequence[Read]) -> Encoded:
    """The encoder's view of a batch; a run has stored latents of all its sources or of none."""
    rows = [one.seen for one in reads if isinstance(one.seen, LatentRow)]
    if rows:
        return encoded_rows(composer, rows)
    return composer.encode(np.stack([one.seen for one in reads if not isinstance(one.seen, LatentRow)]))


def due(task: Task, done: Sequence[str], composer: Composer, latents: LatentStore | None = None) -> Read | None:
    """A source decoded, with the edits that are yet to be made of it; None when there are none.

    Args:
        done: for each edit of the task, the hash of the source of which it is done, or nothing.

    Raises:
        ImageError: it cannot be done, or the latents are not those of its bytes.
    """
    if latents is not None and not task.read:
        unread = _unread(task, composer, latents)
        left = _left(task, done, unread.digest)
        return replace(unread, task=left) if left.wanted else None
    data = read_file(task.source.path)
    digest = hashlib.sha256(data).hexdigest()
    left = _left(task, done, digest)
    if not left.wanted:
        return None
    picture = decode(data, max_pixels=composer.max_pixels)
    if latents is None:
        return Read(left, digest, picture, images.network_input(picture, composer.bundle.manifest.image))
    row = stored(latents, task.source)
    if row.source_sha256 != digest:
        raise ImageError("changed since it was encoded; encode again, or leave --latents out")
    return Read(left, digest, picture, row)


def _left(task: Task, done: Sequence[str], digest: str) -> Task:
    """The task with the edits alone that are not done of a source with this hash."""
    return replace(task, wanted=tuple(one for one, known in zip(task.wanted, done, strict=True) if known != digest))


def start(composer: Composer, reads: Sequence[Read], pool: Executor) -> Batch:
    """Run the graphs on a batch and hand its pictures to the pool."""
    encoded = _encoded(composer, reads)
    by_edit: dict[str, list[tuple[int, Wanted]]] = {}
    for row, one in enumerate(reads):
        for wanted in one.task.wanted:
            by_edit.setdefault(wanted.id, []).append((row, wanted))
    latents: dict[tuple[int, str], Array] = {}
    for settings_id, rows in by_edit.items():
        some = [row for row, _ in rows]
        names = [reads[row].task.source.relative for row in some]
        edited = composer.edited_latents(rows[0][1].request, encoded.z[some], encoded.before[some], names)
        latents |= zip(((row, settings_id) for row in some), edited, strict=True)
    # one decode for all edits: graphs run on full batches
    units = [(row, wanted) for row, one in enumerate(reads) for wanted in one.task.wanted]
    decoded = iter(composer.decode(np.concatenate([latents[row, wanted.id] for row, wanted in units])))
    pending = []
    for row, wanted in units:
        unit = _Pending(row, wanted, reads[row], encoded.decoded[row])
        unit.rendered.extend(unit.submit(composer, pool, next(decoded)) for _ in range(wanted.request.samples))
        pending.append(unit)
    return Batch(reads, encoded, pending)


def finish(composer: Composer, batch: Batch, pool: Executor) -> Iterator[Finished | Failure]:
    """Classify what was rendered, redraw where that is asked; gives the files of a source under an edit, or why not."""
    by_edit: dict[str, list[_Pending]] = {}
    for unit in batch.pending:
        by_edit.setdefault(unit.wanted.id, []).append(unit)
    for units in by_edit.values():
        yield from _finish_edit(composer, batch.encoded, units, pool)


def _finish_edit(
    composer: Composer, encoded: Encoded, units: Sequence[_Pending], pool: Executor
) -> Iterator[Finished | Failure]:
    """The sources of a batch under one edit."""
    rows, wanted = [unit.row for unit in units], units[0].wanted
    part = encoded.of(rows)
    first: dict[Slot, Rendered] = {}
    for i, unit in enumerate(units):
        try:
            first |= {(i, k): one for k, one in enumerate([future.result() for future in unit.rendered])}
        except ImageError as error:
            yield Failure.of(unit.read.task.source.relative, error)
    if not first:
        return

    def again(slots: Sequence[Slot], decoded: Array) -> list[Rendered]:
        futures = [units[i].submit(composer, pool, image) for (i, _), image in zip(slots, decoded, strict=True)]
        return [future.result() for future in futures]

    names = [unit.read.task.source.relative for unit in units]
    try:
        kept = keep_drawing(composer, wanted.request, part, names, first, again)
    except ImageError as error:
        # of a redraw: which source it was is found by doing them one by one
        left = [units[i] for i in sorted({i for i, _ in first})]
        if len(left) == 1:
            yield Failure.of(left[0].read.task.source.relative, error)
            return
        for unit in left:
            yield from _finish_edit(composer, encoded, [unit], pool)
        return
    for i, unit in enumerate(units):
        if (i, 0) in kept:
            made = [kept[i, k] for k in range(wanted.request.samples)]
            yield Finished(names[i], unit.read.digest, wanted, _outputs(composer, part, i, unit, made))


def _outputs(
    composer: Composer, encoded: Encoded, row: int, unit: _Pending, made: Sequence[Kept[Rendered]]
) -> tuple[Output, ...]:
    """The files of a source under an edit; `row` is the source's in `encoded`."""
    source, wanted = unit.read, unit.wanted
    names = wanted.outputs(source.task.stem, source.picture.format)
    receipts = composer.receipts(
        wanted.request,
        encoded,
        row,
        np.stack([one.after for one in made]),
        [
            Made(one.result.pixel_change if source.picture.read else None, one.attempt, name, one.result.data)
            for name, one in zip(names, made, strict=True)
        ],
        source=source.task.source.relative,
        digest=source.digest,
        settings=wanted.id,
    )
    return tuple(
        Output(name, one.result.data, receipt.noted()) for name, one, receipt in zip(names, made, receipts, strict=True)
    )
