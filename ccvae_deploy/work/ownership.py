"""What must not be replaced in an output folder: what is read, and what is not ours. Reads the folder and its ledger,
writes nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..errors import UsageError
from ..folder import refuse_own_sources, within
from ..images import Format
from ..records.pages import refuse_foreign
from ..records.reading import SETTINGS
from ..storage.remote import Place
from .batch import Task, Wanted

if TYPE_CHECKING:
    from .job import Job


def refuse_taken(job: "Job", places: Sequence[Place], read: Sequence[Place], pages: Sequence[str]) -> None:
    """Refuse to write where something lies that is read, or that is not ours to replace.

    Args:
        places: what was given as inputs; `read` are the sources in them of which something is asked.
        pages: what the run writes beside its outputs.

    Raises:
        UsageError: something of that kind lies there, or the folder is an audit's.
    """
    job.ledger.refuse_audit()
    for task in job.tasks if job.out.exists() else ():
        job.store.refuse_blocked(task.source.relative.rpartition("/")[0])
    inside = any(within(place, job.out) for place in places)
    # of folders that lie elsewhere, links alone may lead there
    reachable = [path for path in read if inside or _is_link(path)]
    outputs = ((task.source.relative, _possible_outputs(task, one)) for task in job.tasks for one in task.wanted)
    refuse_own_sources(job.out, reachable, outputs, pages)
    if not job.overwrite:
        _refuse_conflicts(job, pages)


def _is_link(path: Place) -> bool:
    # unlike Path.is_symlink, islink says no of what cannot be looked at; a later step tells of that
    return isinstance(path, Path) and os.path.islink(path)  # noqa: PTH114


def _refuse_conflicts(job: "Job", pages: Sequence[str]) -> None:
    """Outputs of other settings, and files that no record of ours explains, are not ours to replace.

    Args:
        pages: what the run writes beside its outputs.
    """
    if not job.out.exists():
        return
    others, unknown = [], []
    listing = lru_cache(maxsize=4)(lambda folder: frozenset(job.store.names(folder)))
    for task in job.tasks:
        for wanted in task.wanted:
            source, settings = task.source.relative, wanted.settings
            if job.ledger.made_with_others(source, settings):
                others.append(source)
            else:
                begun = job.ledger.begun(source, settings)
                names = (name for name in _unrecorded(job, task, wanted) if name not in begun)
                unknown += [name for name in names if _there(name, listing)][:1]
    if others:
        raise UsageError(
            f"{job.out} has results for {len(others):,} of these sources that were made with other settings, such as "
            f"{others[0]}; add --overwrite to replace them, or give another --out"
        )
    refuse_foreign(job.out, job.store, pages)
    if unknown:
        shards = ""
        if job.part and SETTINGS in listing(""):
            shards = "leave out --shard (they are merged, or were made without it), "
        elif not job.part and any(name.startswith("settings-") for name in listing("")):
            shards = "merge the shards first, "
        raise UsageError(
            f"{job.out} has files in the place of outputs of {len(unknown):,} of these sources that no record here "
            f"explains as theirs, such as {unknown[0]}; {shards}add --overwrite to replace them, or give another --out"
        )


def _unrecorded(job: "Job", task: Task, wanted: Wanted) -> Iterator[str]:
    """The outputs that a source may have under an edit, without those that are recorded.

    What a source is recorded with under another name, as when its twin of another ending came or went, explains none
    of these. Should its format have changed, `take_back` looks again.
    """
    group = job.ledger.group(task.source.relative, wanted.name)
    if group is not None:
        names = wanted.names(task.stem, group.output.rpartition(".")[2])
        if names[0] == group.output:
            yield from names[group.samples :]
            return
    yield from _possible_outputs(task, wanted)


def _possible_outputs(task: Task, wanted: Wanted) -> Iterator[str]:
    """The outputs of a source that is not decoded yet, for every format it may have."""
    for kept in get_args(Format):
        yield from wanted.outputs(task.stem, kept)


def _there(name: str, listing: Callable[[str], frozenset[str]]) -> bool:
    folder, _, file = name.rpartition("/")
    return file in listing(folder)
