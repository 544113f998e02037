"""One run over a folder, settled and checked before any work. Reads folders, bundle and ledger, writes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Required, Unpack

from ..composer import Composer
from ..edits.plan import read_plan
from ..edits.request import Asking, EditRequest, RequestOptions
from ..errors import UsageError
from ..folder import Scan, Source, check_out, default_out, in_shard, output_stems, parse_shard, roots, scan
from ..latent_store import LatentStore
from ..limits import BATCH, MAX_PIXELS, refuse_speed
from ..pictures.rendering import refuse_format
from ..receipts import Settings
from ..records.ledger import Ledger
from ..records.reading import Group
from ..records.remote_ledger import RemoteLedger
from ..storage.remote import Paths, Place, Remote, local_path, location, paths
from ..storage.remote_store import RemoteStore
from ..storage.store import Store
from ..terminal.screen import counted
from . import ray_engine
from .batch import OUTPUTS, Task, Wanted
from .ownership import refuse_taken


class JobOptions(RequestOptions, total=False):
    """What can be said of a run; see `edit_folder`."""

    bundle: Required[Path | str]
    set: Asking
    plan: Path | str | None
    latents: Path | str | None
    out: Path | str | None
    format: str
    provider: str
    batch_size: int
    max_pixels: int
    shard: str | None
    overwrite: bool
    allow_torchscript: bool


class RunOptions(JobOptions, total=False):
    """What can be said of a run and of how it is done; see `edit_folder`."""

    workers: int | None
    engine: str
    sheet: bool
    report: bool


@dataclass(frozen=True)
class Job:
    """One run over a folder.

    Attributes:
        open_composer: opens the same composer again, in another process too.
        tasks: what this run or shard has to see to, in the order of the sources' paths.
        title: what the contact sheet says of it.
        latents: what `encode` has stored of the sources, in place of the encoder.
        overwrite: replace outputs of other settings, and files that no record explains.
    """

    composer: Composer
    open_composer: Callable[..., Composer]
    out: Place
    ledger: Ledger
    store: Store | RemoteStore
    tasks: tuple[Task, ...]
    part: tuple[int, int] | None
    ignored: int
    title: str
    latents: LatentStore | None = None
    overwrite: bool = False

    @property
    def outputs(self) -> int:
        """How many files the folder holds in the end."""
        return sum(task.outputs for task in self.tasks)

    @property
    def unrecorded(self) -> int:
        """How many of them have no record with these settings yet."""
        return sum(
            wanted.request.samples
            for task in self.tasks
            for wanted in task.wanted
            if (group := self.ledger.group(task.source.relative, wanted.name)) is None or not _covers(group, wanted)
        )

    @property
    def read(self) -> bool:
        """Whether the sources are read, rather than taken from the latents alone."""
        return not self.tasks or self.tasks[0].read

    @property
    def sources(self) -> int:
        """How many sources are in it."""
        return len({task.source.relative for task in self.tasks})

    @cached_property
    def _wanted(self) -> dict[str, tuple[Wanted, ...]]:
        found: dict[str, tuple[Wanted, ...]] = {}
        for task in self.tasks:
            before = found.get(task.source.relative)
            found[task.source.relative] = task.wanted if before is None else (*before, *task.wanted)
        return found

    def asks_for(self, receipt: Mapping[str, Any]) -> bool:
        """Whether a receipt is of an output that this run is about; a folder may hold others."""
        return any(
            one.id == receipt["settings"] and receipt["sample"] < one.request.samples
            for one in self._wanted.get(receipt["source"], ())
        )

    def done_of(self, task: Task) -> tuple[str, ...]:
        """For each edit of a task, the hash of the source of which it is done, or nothing."""
        groups = [self.ledger.group(task.source.relative, wanted.name) for wanted in task.wanted]
        return tuple(
            group.source_sha256 if group is not None and self.done(task, wanted, group) else ""
            for wanted, group in zip(task.wanted, groups, strict=True)
        )

    def done(self, task: Task, wanted: Wanted, group: Group | None) -> bool:
        """Whether these outputs are recorded with these settings and lie there as they were written.

        Whether the source is still the same is not asked.
        """
        if group is None or not _covers(group, wanted):
            return False
        names = wanted.names(task.stem, group.output.rpartition(".")[2])
        return group.output == names[0] and self.store.holds(names, group.sizes)


def _covers(group: Group, wanted: Wanted) -> bool:
    """Whether a record has these settings, and no fewer samples than are asked."""
    return group.settings == wanted.id and group.samples >= wanted.request.samples


def settle(
    images: Paths,
    *,
    bundle: Path | str,
    set: Asking = (),
    plan: Path | str | None = None,
    latents: Path | str | None = None,
    out: Path | str | None = None,
    format: str = "same",
    provider: str = "auto",
    batch_size: int = BATCH,
    max_pixels: int = MAX_PIXELS,
    shard: str | None = None,
    overwrite: bool = False,
    allow_torchscript: bool = False,
    workers: int | None = None,
    engine: str = "local",
    sheet: bool = True,
    report: bool = False,
    **options: Unpack[RequestOptions],
) -> Job:
    """Check everything that can be checked before work; see `edit_folder` for arguments and errors."""
    _refuse_options(format, set, options.get("vary", ()), plan)
    refuse_speed(batch_size, workers)
    ray_engine.refuse_engine(engine, latents)
    part = None if shard is None else parse_shard(shard)
    places = [location(given) for given in paths(images)]
    target = _target(places, out, report)
    read = latents is None or options.get("compose") != "decode"
    found = _sources(places, target, read)
    open_composer = partial(
        Composer.open,
        provider=provider,
        allow_torchscript=allow_torchscript,
        # several batches are in their graphs at once
        threads=1,
        batch_size=batch_size,
        max_pixels=max_pixels,
    )
    composer = open_composer(bundle)
    stored = None if latents is None else LatentStore.open(local_path(latents), composer.bundle)
    if stored is not None and not places:
        found = Scan(tuple(Source(Path(relative), relative) for relative in stored.paths), 0)
    asked, title = _asked(composer, found, set, plan, options)
    each = {one.name: one for requests in asked.values() for one in requests}
    wanted = {name: Wanted(one, composer.settings(one, format, read=read)) for name, one in each.items()}
    tasks = _tasks(found, asked, wanted, part)
    lying = roots(places) if read else {}
    ledger, store = _records(target, [one.settings for one in wanted.values()], part, lying)
    ledger.refuse_others()
    again = partial(open_composer, local_path(bundle).resolve())
    job = Job(composer, again, target, ledger, store, tasks, part, found.ignored, title, stored, overwrite)
    pages = [name for name, made in ((ledger.names.sheet, sheet), (ledger.names.report, report)) if made]
    sources = [source.path for source in found.sources if source.relative in asked] if read else []
    refuse_taken(job, places, sources, pages)
    return job


def _target(places: Sequence[Place], out: Path | str | None, report: bool) -> Place:
    """Where results go, and the report with them."""
    target = default_out(places) if out is None else location(out)
    if report and isinstance(target, Remote):
        raise UsageError("--report writes into folders of this machine only; leave it out, or give another --out")
    return target


def _sources(places: Sequence[Place], target: Place, read: bool) -> Scan:
    """What lies in the places that are given, none of which is where results go.

    Args:
        read: whether there must be some.
    """
    if not places and read:
        raise UsageError("no images are given; only --latents with --compose decode does without them")
    found = scan(places) if places else Scan((), 0)
    check_out(target, places, found.sources)
    return found


def _asked(
    composer: Composer,
    found: Scan,
    set: Asking,
    plan: Path | str | None,
    options: RequestOptions,
) -> tuple[Mapping[str, Sequence[EditRequest]], str]:
    """What is asked of every source by its relative path, and what the contact sheet says of it."""
    if plan is None:
        request = composer.request(set, **options)
        samples = counted(request.samples, "sample")
        return {source.relative: [request] for source in found.sources}, f"{request.name}, {samples} each"
    asked = read_plan(local_path(plan), composer.labels, found.sources, partial(composer.request, **options))
    return asked, f"by plan, {counted(next(iter(asked.values()))[0].samples, 'sample')} each"


def _records(
    target: Place, settings: Sequence[Settings], part: tuple[int, int] | None, lying: Mapping[str, str]
) -> tuple[Ledger, Store | RemoteStore]:
    """What keeps the records, and what the outputs; the sources are `lying` below these roots."""
    if isinstance(target, Remote):
        ledger: Ledger = RemoteLedger(target, settings, part, lying)
        return ledger, RemoteStore(target, ledger.names.mark)
    ledger = Ledger(target, settings, part, lying)
    return ledger, Store(target, ledger.names.mark)


def _tasks(
    found: Scan, asked: Mapping[str, Sequence[EditRequest]], wanted: Mapping[str, Wanted], part: tuple[int, int] | None
) -> tuple[Task, ...]:
    """The sources of this shard with what is asked of them; names do not depend on what else is asked."""
    tasks = []
    for source, stem in zip(found.sources, output_stems(found.sources), strict=True):
        if source.relative not in asked or not (part is None or in_shard(source.relative, *part)):
            continue
        edits = [wanted[request.name] for request in asked[source.relative]]
        size = max(1, OUTPUTS // edits[0].request.samples)
        tasks += [Task(source, stem, tuple(edits[i : i + size])) for i in range(0, len(edits), size)]
    return tuple(tasks)


def _refuse_options(
    format: str,
    set: Asking,
    vary: Sequence[str],
    plan: Path | str | None,
) -> None:
    refuse_format(format)
    if plan is not None and (set or vary):
        raise UsageError(f"--{'set' if set else 'vary'} and --plan both say what to change; give one of them")
