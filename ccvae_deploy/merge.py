"""Join what shards have left: outputs in one folder, records in one ledger. Writes below the merged folder, and removes
there the records that it has joined.

Records are read and written in one pass over all ledgers, group by group, so memory does not grow with their number.
"""

import hashlib
import heapq
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ImageError, UsageError, WriteError
from .folder import check_out, in_shard
from .receipts import Failure
from .records.reading import (
    FAILURES,
    JOURNAL,
    RECEIPTS,
    SETTINGS,
    SHARD,
    AllSettings,
    Key,
    Names,
    of_audit,
    order,
    read_failures,
    read_groups,
    read_settings,
    read_unfinished,
    reading,
    settings_text,
)
from .records.roots import Roots
from .storage.lock import FolderLock
from .storage.remote import Paths, local_path, paths
from .storage.source_file import read_file
from .storage.store import Store, inside, replace_file
from .terminal.printable import printable


@dataclass(frozen=True)
class Merged:
    """What a merge came to.

    Attributes:
        sources: sources with records; `receipts` are those of their outputs.
        missing: outputs that could not be copied, since they are not there or not as their receipts say; a run makes
            them again. In place nothing is copied, and nothing is missing.
        absent: shards `I/N` of which there are no records, while there are records of other parts of N. None beside
            what was merged before, which says no more from which shards it is.
    """

    out: Path
    sources: int
    receipts: int
    missing: int
    absent: tuple[str, ...]


class _Part(NamedTuple):
    """The ledger of one shard in one folder."""

    folder: Path
    names: Names
    settings: AllSettings

    def groups(self) -> Iterator[tuple[Key, list[bytes], Path]]:
        """Its groups and their file; they must stand in order, or they could not be joined in one pass."""
        last: Key | None = None
        with reading(self.folder):
            for key, _, lines in read_groups(self.folder, self.names.receipts, self.settings):
                if last is not None and order(last) >= order(key):
                    raise ValueError(f"{self.names.receipts} is not in the order of sources")
                last = key
                yield key, lines, self.folder / self.names.receipts


def merge_folders(folders: Paths, out: Path | str | None = None) -> Merged:
    """Join the ledgers of shards that wrote into one folder, or into folders that belong together.

    One folder without `out` is merged in place. Otherwise `out` gets a copy of every output and one ledger, and the
    folders stay as they are. A run over the same images without a shard then finds everything done. Started again after
    a kill, or a second time, it ends the same.

    Args:
        folders: one, or several.

    Raises:
        UsageError: an `out` that cannot be written, a folder without records or with an audit, a shard that was cut
            off, records that contradict each other, or another run in one of the folders; nothing was changed.
        WriteError: the disk is full or refuses.
    """
    given = [local_path(folder) for folder in paths(folders)]
    if out is None and len(given) != 1:
        raise UsageError(f"{len(given)} folders to merge: give a folder for all of them with --out")
    target = given[0] if out is None else local_path(out)
    check_out(target, [])
    for folder in given:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; give output folders of `edit --shard`")
    places = {path.resolve(): path for path in (*given, target)}
    with ExitStack() as stack:
        for place in places:
            if place.exists():
                stack.enter_context(FolderLock(place, shared=False))
        parts = [part for place in places.values() for part in _parts(place)]
        if not parts:
            raise UsageError(f"{given[0]} holds no records; give output folders of `edit --shard`")
        settings, failures, lying = _joined_settings(parts), _joined_failures(parts), _joined_roots(parts)
        # all records are compared before anything is written
        sources, receipts, last = 0, 0, ""
        ours = [part for part in parts if part.folder.resolve() == target.resolve()]
        if not ours:
            _refuse_foreign(target, (RECEIPTS, FAILURES))
        twins = _Twins()
        for (source, _), lines, file in _joined(parts):
            sources, receipts, last = sources + (source != last), receipts + len(lines), source
            rows = [json.loads(line) for line in lines]
            twins.refuse(source, rows)
            if file.parent.resolve() != target.resolve():
                _refuse_others(target, rows, file.parent, ours)
        if not target.exists():
            target.mkdir(parents=True)
            stack.enter_context(FolderLock(target, shared=False))
        missing = _write(target, parts, settings, failures, lying)
    return Merged(target, sources, receipts, missing, _absent(parts))


def _parts(folder: Path) -> list[_Part]:
    """The ledgers in a folder, the unsharded one first."""
    if not folder.is_dir():
        return []
    found: list[tuple[int, int] | None] = [None] if (folder / SETTINGS).exists() else []
    shards = (SHARD.fullmatch(path.name) for path in folder.glob("settings-*-of-*.json"))
    found += sorted((int(match[1]), int(match[2])) for match in shards if match)
    for journal in sorted(folder.glob(JOURNAL.replace(".jsonl", "*.jsonl"))):
        part = journal.name.removeprefix(JOURNAL.removesuffix(".jsonl")).removesuffix(".jsonl").strip("-")
        which = f"--shard {part.replace('-of-', '/')}" if part else "a run"
        raise UsageError(f"{folder} holds {which} that was cut off; start it again, and merge when it has ended")
    with reading(folder):
        for shard in found:
            for (source, _), begun in read_unfinished(folder, Names.of(shard).unfinished).items():
                first = next(iter(begun.outputs), "something")
                raise UsageError(
                    f"{folder} holds {printable(first)}, begun of {printable(source)} and not recorded; "
                    "remove it, or start that run again; then start any run of that shard"
                )
        names = [Names.of(shard) for shard in found]
        parts = [_Part(folder, one, read_settings(folder, one.settings)) for one in names]
    if any(of_audit(part.settings) for part in parts):
        raise UsageError(f"{folder} holds an audit; give output folders of `edit --shard`, and another --out")
    return parts


def _joined_settings(parts: Iterable[_Part]) -> AllSettings:
    joined: AllSettings = {}
    for part in parts:
        for settings_id, entry in part.settings.items():
            if joined.setdefault(settings_id, entry) != entry:
                raise UsageError(f"{part.folder}: settings {settings_id} contradict those of another shard")
    return joined


def _joined_failures(parts: Sequence[_Part]) -> list[Failure]:
    """Each failure once, in the order of sources, but for what another ledger has done; of an earlier merge those alone
    whose shard has not run since.
    """
    failed = [(part, failure) for part in parts for failure in _failures(part)]
    done = _edits_done(parts, {failure.source for _, failure in failed}) if failed and len(parts) > 1 else {}
    left = [(part, failure) for part, failure in failed if not _done_elsewhere(part, done.get(failure.source, {}))]
    earlier, found = (
        {failure.source: failure for part, failure in left if bool(part.names.mark) == sharded}
        for sharded in (False, True)
    )
    # a merge that was cut off may have left the settings of a shard alone
    there = (part for part in parts if (part.folder / part.names.failures).exists())
    again = [part.names.shard for part in there if part.names.shard]
    kept = (one for one in earlier.values() if not any(in_shard(one.source, *shard) for shard in again))
    found = {failure.source: failure for failure in kept} | found
    return [found[source] for source in sorted(found, key=lambda source: order((source, "")))]


def _joined_roots(parts: Iterable[_Part]) -> Roots:
    """Where the sources of all of them lie."""
    joined = Roots({})
    for part in parts:
        with reading(part.folder):
            joined.read(part.folder, part.names.roots)
    return joined


def _failures(part: _Part) -> list[Failure]:
    with reading(part.folder):
        return list(read_failures(part.folder, part.names.failures))


def _edits_done(parts: Iterable[_Part], sources: Container[str]) -> dict[str, dict[str, list[_Part]]]:
    """Of some sources the edits that have been done, with the ledgers that have them."""
    done: dict[str, dict[str, list[_Part]]] = {}
    for part in parts:
        for (source, edit), _, _ in part.groups():
            if source in sources:
                done.setdefault(source, {}).setdefault(edit, []).append(part)
    return done


def _done_elsewhere(part: _Part, done: Mapping[str, Sequence[_Part]]) -> bool:
    """Whether all edits that a ledger knows, but has not done of a source, stand in others: one of them failed."""
    asked = {entry["edit"] for entry in part.settings.values()}
    lacking = asked - {edit for edit, by in done.items() if any(one is part for one in by)}
    return bool(lacking) and lacking <= done.keys()


def _joined(parts: Sequence[_Part]) -> Iterator[tuple[Key, list[bytes], Path]]:
    """The groups of all ledgers in order; of equal ones the longest, with the file it comes from.

    Raises:
        UsageError: two ledgers say different things of one source.
    """
    before: tuple[Key, list[bytes], Path] | None = None
    for key, lines, file in heapq.merge(*(part.groups() for part in parts), key=lambda item: order(item[0])):
        if before is None or before[0] != key:
            if before is not None:
                yield before
            before = key, lines, file
            continue
        some = min(len(lines), len(before[1]))
        if lines[:some] != before[1][:some]:
            raise UsageError(
                f"{before[2]} and {file} hold different results of {key[0]} for {key[1]}; leave the older one out"
            )
        if len(lines) > some:
            before = key, lines, file
    if before is not None:
        yield before


def _write(
    target: Path, parts: Sequence[_Part], settings: AllSettings, failures: Sequence[Failure], lying: Roots
) -> int:
    """Settings before the receipts that name them, outputs too, and old records only go when the new ones are there.

    Gives the number of outputs that are missing.
    """
    missing = 0

    def lines(store: Store) -> Iterator[bytes]:
        nonlocal missing
        for _, some, file in _joined(parts):
            if file.parent.resolve() != target.resolve():
                missing += sum(not _copied(store, row, file.parent) for row in map(json.loads, some))
            yield from some

    replace_file(target / SETTINGS, [settings_text(settings)])
    if lying.known:
        replace_file(target / Names.of(None).roots, [lying.text()])
    with Store(target) as store:
        replace_file(target / RECEIPTS, lines(store))
    replace_file(target / FAILURES, (failure.line().encode("ascii") for failure in failures))
    for part in parts:
        if part.names.mark and part.folder.resolve() == target.resolve():
            # a shard is known by its settings, and its receipts need them, so they go last
            for name in (part.names.receipts, part.names.failures, part.names.roots, part.names.settings):
                (target / name).unlink(missing_ok=True)
    return missing


def _copied(store: Store, row: Mapping[str, Any], folder: Path) -> bool:
    """Whether an output is in the merged folder, copied there if it still is what its receipt says."""
    if not inside(folder / row["output"], folder):
        return False
    if store.holds([row["output"]], [row["output_bytes"]]):
        return True
    try:
        data = read_file(folder / row["output"])
    except ImageError:
        return False
    if hashlib.sha256(data).hexdigest() != row["output_sha256"]:
        return False
    try:
        store.write(row["output"], data)
    except ImageError as error:
        raise WriteError(f"{printable(row['output'])}: {error}; merge into a folder that takes it") from error
    return True


def _refuse_foreign(target: Path, names: Iterable[str]) -> None:
    """A folder without settings has no outputs and no records of ours."""
    for name in names:
        if os.path.lexists(target / name):
            raise UsageError(f"{target} has a {printable(name)} that no record here explains; give another --out")


def _refuse_others(target: Path, rows: Iterable[Mapping[str, Any]], folder: Path, ours: Sequence[_Part]) -> None:
    """A file that lies where an output goes must be that output, or what a merge that was cut off has left of it."""
    for row in rows:
        there = target / row["output"]
        if not inside(there, target) or not os.path.lexists(there):
            continue
        try:
            same = hashlib.sha256(read_file(there)).hexdigest() == row["output_sha256"]
        except ImageError:
            same = False
        if not same and not _is_recorded(ours, row):
            name = printable(row["output"])
            raise UsageError(
                f"{target} has a file {name} that is not the one of {folder}; move it, or give another --out"
            )


def _is_recorded(ours: Sequence[_Part], row: Mapping[str, Any]) -> bool:
    """Whether the records of the target have this output already: an earlier merge has put it there."""
    same = (
        json.loads(line)
        for part in ours
        for (source, _), lines, _ in part.groups()
        if source == row["source"]
        for line in lines
    )
    return any(all(one[key] == row[key] for key in ("output", "output_sha256")) for one in same)


class _Twins:
    """Tells sources whose outputs have one name, such as a.png and a.bmp that were edited apart.

    Outputs are called after a source with its ending or without, so sources that share one both begin with the shorter
    of these. Sources come in order, and all that begin alike stand together: kept are the outputs of those alone that
    the next source may still share.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = {}

    def refuse(self, source: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Refuse an output that another source has too.

        Raises:
            UsageError: there is one.
        """
        folder, slash, name = source.rpartition("/")
        head = f"{folder}{slash}{name.rpartition('.')[0] or name}"
        self._kept = {begin: outputs for begin, outputs in self._kept.items() if source.startswith(begin)}
        mine = self._kept.setdefault(head, {})
        for row in rows:
            mine.setdefault(row["output"], source)
            other = next(outputs[row["output"]] for outputs in self._kept.values() if row["output"] in outputs)
            if other != source:
                raise UsageError(
                    f"{printable(other)} and {printable(source)} both became {printable(row['output'])}; "
                    "edit them in one run, or merge them into different folders"
                )


def _absent(parts: Iterable[_Part]) -> tuple[str, ...]:
    """Shards that have left nothing here, as `I/N`; at most ten. Unsharded records may be theirs."""
    found: dict[int, set[int]] = {}
    for part in parts:
        if part.names.shard is None:
            return ()
        index, count = part.names.shard
        found.setdefault(count, set()).add(index)
    missing = (f"{i}/{n}" for n, there in sorted(found.items()) for i in range(min(n, 10_000)) if i not in there)
    return tuple(text for text, _ in zip(missing, range(10), strict=False))
