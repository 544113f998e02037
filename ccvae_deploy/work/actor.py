"""What edits away from the run that asked for it, in an actor of Ray or in a process of this machine. Reads sources,
writes nothing.

A chunk of tasks goes in, outcomes come out one by one: files in memory with their receipts, made by the same functions
as in the run itself, so their bytes are the same wherever that is.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

from ..composer import Composer
from ..errors import ImageError, UsageError
from ..folder import Source
from ..pictures.canvas import few_at_a_time
from ..receipts import Failure
from . import batch
from .batch import OUTPUTS, Finished, Read, Task

if TYPE_CHECKING:
    from .job import Job

PIXELS = 4_000_000
"""Where the pictures of a chunk are larger, it is done in parts."""

Chunk = Sequence[tuple[Task, tuple[str, ...]]]
"""Tasks, each with what is done of it; see `batch.due`."""

Settled = tuple[Finished | Failure | None, int]
"""What has become of a task under an edit (None: nothing was to do), and how many outputs that settles."""


class Actor:
    """One open bundle.

    Args:
        open_composer: gives the composer; its bundle must be that of the run, by digest.
        pool: composites and encodes pictures.
    """

    def __init__(self, open_composer: Callable[[], Composer], digest: str, pool: Executor) -> None:
        self.composer, self.pool = open_composer(), pool
        if self.composer.bundle.digest != digest:
            raise UsageError("a worker has another bundle under this path, exported since or not shared; start again")

    def edit(self, chunk: Chunk) -> Iterator[Settled]:
        """Read and edit; the pictures held at once are few."""
        reads: list[Read] = []
        pixels = 0
        for task, done in chunk:
            try:
                read = batch.due(task, done, self.composer)
            except ImageError as error:
                yield Failure.of(task.source.relative, error), task.outputs
                continue
            passed = task.outputs - (read.task.outputs if read else 0)
            if passed:
                yield None, passed
            if read is None:
                continue
            reads.append(read)
            pixels += read.picture.area
            if pixels > PIXELS:
                # the picture goes before the next one is read
                del read
                yield from self._through(reads)
                reads, pixels = [], 0
        if reads:
            yield from self._through(reads)

    def _through(self, reads: Sequence[Read]) -> Iterator[Settled]:
        left = sum(read.task.outputs for read in reads)
        with few_at_a_time(read.picture.size for read in reads):
            begun = batch.start(self.composer, reads, self.pool)
            for result in batch.finish(self.composer, begun, self.pool):
                settled = len(result.outputs) if isinstance(result, Finished) else 0
                left -= settled
                yield result, settled
        if left:
            yield None, left


def chunks(job: "Job") -> Iterator[Chunk]:
    """The tasks by the batch, with few outputs each, their paths such that another process finds them."""
    chunk: list[tuple[Task, tuple[str, ...]]] = []
    outputs = 0
    for task in job.tasks:
        if chunk and (len(chunk) == job.composer.batch_size or outputs + task.outputs > OUTPUTS):
            yield chunk
            chunk, outputs = [], 0
        chunk.append((replace(task, source=_found_anywhere(task.source)), job.done_of(task)))
        outputs += task.outputs
    if chunk:
        yield chunk


def _found_anywhere(source: Source) -> Source:
    return replace(source, path=source.path.absolute())
