"""What a run would do: every check of `edit_folder`, and the state of each source. Reads only, writes nothing."""

import hashlib
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, Unpack, get_args

from .errors import ImageError
from .folder import Source
from .images import Format
from .pictures.decoding import decode
from .records.results import in_the_way
from .storage.remote import Paths, Place, Remote
from .storage.source_file import read_file
from .terminal.printable import printable
from .terminal.screen import counted, facts, passed_over
from .work.batch import Task, Wanted, stored
from .work.job import Job, RunOptions, settle

if TYPE_CHECKING:
    from rich.table import Table

State = Literal["new", "done", "changed", "incomplete", "replaced", "blocked", "unreadable"]

MEANING: dict[State, str] = {
    "new": "of a source of which nothing is recorded",
    "done": "to be passed over",
    "changed": "to be done again: the source has changed",
    "incomplete": "to be done again: files are missing or cut short, or more samples are asked",
    "replaced": "made with other settings, to be replaced",
    "blocked": "whose place another file, or the result of another image, has taken",
    "unreadable": "whose source is gone, empty or cannot be read",
}

EXAMPLES = 5


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        sources: images that are asked for in this run or shard; `ignored` files are no images.
        units: how many edits of one source are in which state.
        outputs: files that would be written; `examples` are the names of the first.
        bytes: their sum, if each is as large as its source.
    """

    out: Place
    sources: int
    ignored: int
    units: Mapping[State, int]
    outputs: int
    examples: tuple[str, ...]
    bytes: int


def dry_run(images: Paths, **options: Unpack[RunOptions]) -> Forecast:
    """Say what `edit_folder` with the same arguments would do.

    Sources with records are read to see whether they have changed, and decoded if so; of all others only the first are.
    So what is no image is counted as one.

    Raises:
        CCVAEError: `edit_folder` would be refused in the same way.
    """
    job = settle(images, **options)
    job.ledger.check_free()
    digest = lru_cache(maxsize=1)(partial(_digest, job))
    counts: Counter[State] = Counter()
    outputs, size, examples = 0, 0, list[str]()
    for task in job.tasks:
        for wanted in task.wanted:
            state = _state(job, task, wanted, digest)
            counts[state] += 1
            if state in ("done", "blocked", "unreadable"):
                continue
            outputs += wanted.request.samples
            size += wanted.request.samples * _size(task)
            if len(examples) < EXAMPLES:
                examples += _names(job, task, wanted)[: EXAMPLES - len(examples)]
    return Forecast(job.out, job.sources, job.ignored, counts, outputs, tuple(examples), size)


def _state(job: Job, task: Task, wanted: Wanted, digest: Callable[[Source], str]) -> State:
    group = job.ledger.group(task.source.relative, wanted.name)
    if group is None:
        return "new" if _is_there(job, task) else "unreadable"
    if group.settings != wanted.id:
        return "replaced" if _is_there(job, task) else "unreadable"
    now = digest(task.source)
    if not now:
        return "unreadable"
    if now != group.source_sha256:
        return _changed(job, task, wanted)
    return "done" if job.done(task, wanted, group) else "incomplete"


def _is_there(job: Job, task: Task) -> bool:
    """Whether a source is a file with something in it; what it holds is not asked."""
    path = task.source.path
    if isinstance(path, Remote) or not job.read:
        return True
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _changed(job: Job, task: Task, wanted: Wanted) -> State:
    """What would become of a source of other bytes."""
    try:
        names = wanted.outputs(task.stem, _format(job, task.source))
    except ImageError:
        return "unreadable"
    if job.overwrite:
        return "changed"
    source = task.source.relative
    taken = in_the_way(job.ledger, job.store, source, wanted.settings, names) or job.ledger.roots.elsewhere(source)
    return "blocked" if taken else "changed"


def _digest(job: Job, source: Source) -> str:
    try:
        if job.latents is not None and not job.read:
            return stored(job.latents, source).source_sha256
        return hashlib.sha256(read_file(source.path)).hexdigest()
    except ImageError:
        return ""


def _size(task: Task) -> int:
    path = task.source.path
    try:
        return path.size if isinstance(path, Remote) else path.stat().st_size
    except OSError:
        return 0


def _names(job: Job, task: Task, wanted: Wanted) -> list[str]:
    """Output names; with `same` the format stands in the file."""
    try:
        kept: Format = "png"
        if wanted.settings.format == "same":
            kept = _format(job, task.source)
    except ImageError:
        return []
    return wanted.outputs(task.stem, kept)


def _format(job: Job, source: Source) -> Format:
    if job.latents is not None and not job.read:
        return stored(job.latents, source).frame.format
    return decode(read_file(source.path), max_pixels=job.composer.max_pixels).format


def forecast_table(forecast: Forecast) -> "Table":
    """The forecast for the screen."""
    rows: list[tuple[str, str]] = []
    rows.append(("sources", f"{forecast.sources:,}{passed_over(forecast.ignored)}"))
    for state in get_args(State):
        if forecast.units[state]:
            rows.append((state, f"{counted(forecast.units[state], 'edit')} {MEANING[state]}"))
    rough = f", about {forecast.bytes / 1e6:,.1f} MB if each is as large as its source" if forecast.bytes else ""
    rows.append(("would write", f"{counted(forecast.outputs, 'image')}{rough}"))
    for number, name in enumerate(forecast.examples):
        rows.append(("" if number else "such as", printable(name)))
    rows.append(("into", printable(str(forecast.out))))
    return facts(rows)
