"""The ledger: what of an output folder is done, made with which settings. It makes a run resumable.

`receipts.jsonl` and `failures.jsonl` are in the order of the sources' paths, then edit, then sample, whatever the
order of work was. While a run lasts, each finished source is one entry of `.journal.jsonl`; a run that was killed
leaves the journal, and the next run goes on from it. At its end the journal is merged in. `settings.json` holds the
settings that receipts refer to. Before the outputs of a source are written the journal says which they will be, so that
what a kill leaves between the first of them and their record is known for ours; `.unfinished.json` keeps that where a
later run ends without having done the source. Memory is one small index entry per source and edit, not the records.

What a power cut takes from the journal is done again; what it takes from an output is seen by the output's size.
"""

import json
import os
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from ..errors import UsageError, WriteError
from ..receipts import Failure, Noted, RunSettings
from ..storage.lock import FolderLock, busy, lock_journal
from ..storage.remote import Place
from ..storage.store import replace_file
from .reading import (
    SETTINGS,
    SHARD,
    AllSettings,
    Begun,
    Group,
    Key,
    Names,
    begun_entry,
    of_audit,
    order,
    parsed,
    read_failures,
    read_groups,
    read_journal,
    read_settings,
    read_unfinished,
    reading,
    settings_text,
)
from .roots import Roots


class Ledger:
    """The ledger of one output folder, held open by one run at a time.

    Use it as a context manager; leaving it releases the folder and keeps the journal unless `finish` was called. It is
    read when it is made, and cannot be entered when another run has changed it since.

    Args:
        settings: those of every edit of this run.
        shard: a shard has records of its own.
        roots: where the run's sources lie, see `folder.roots`.
    """

    def __init__(
        self,
        out: Path,
        settings: Iterable[RunSettings],
        shard: tuple[int, int] | None = None,
        roots: Mapping[str, str] | None = None,
    ) -> None:
        self.out, self.names = out, Names.of(shard)
        self.roots = Roots(roots or {})
        self.place: Place = out
        self.settings = {one.id: one for one in settings}
        self.all_settings: AllSettings = {}
        self.groups: dict[Key, Group] = {}
        self.failures: dict[str, Failure] = {}
        self._journal: IO[bytes] | None = None
        self._lock: FolderLock | None = None
        self._whole = 0
        self._begun: dict[Key, Begun] = {}
        self._owners: dict[str, Key] | None = None
        self._read()

    def __enter__(self) -> Self:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.out, shared=bool(self.names.mark))
            # before the journal is there, which `merge` would take for one that was cut off
            with reading(self.out):
                self.refuse_others()
            self._open_journal()
        except OSError as error:
            self.__exit__()
            raise WriteError(f"cannot write in {self.out}: {error.strerror}; give another --out") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for held in (self._journal, self._lock):
            if held is not None:
                held.__exit__(None, None, None)
        self._journal = self._lock = None

    def check_free(self) -> None:
        """Refuse when another run holds the folder; nothing is written.

        Raises:
            UsageError: it does.
        """
        if self.out.exists():
            FolderLock(self.out, shared=bool(self.names.mark)).release()
        journal = self.out / self.names.journal
        if journal.exists():
            with journal.open("rb") as file:
                lock_journal(file.fileno(), self.out)

    def begun(self, source: str, settings: RunSettings) -> Collection[str]:
        """The outputs that a run of these settings was about to write of a source, and that are not recorded."""
        found = self._begun.get((source, settings.edit))
        return found.outputs if found is not None and found.settings == settings.id else ()

    def group(self, source: str, edit: str) -> Group | None:
        """What is recorded of a source under an edit."""
        return self.groups.get((source, edit))

    def made_with_others(self, source: str, settings: RunSettings) -> bool:
        """Whether this edit of the source is recorded with other settings."""
        group = self.groups.get((source, settings.edit))
        return group is not None and group.settings != settings.id

    def refuse_audit(self) -> None:
        """Refuse a folder that holds an audit, which goes on beside results of its own only.

        Raises:
            UsageError: it does.
        """
        if of_audit(self.all_settings):
            raise UsageError(f"{self.place} holds an audit; give another --out")

    def refuse_others(self) -> None:
        """Refuse where another ledger of the folder has an edit of this run with other settings: their outputs would
        have the same names. Shards of one number have no source in common.

        Raises:
            UsageError: there is one.
        """
        mine = {one.edit: settings_id for settings_id, one in self.settings.items()}
        for name in sorted(os.listdir(self.out)) if self.out.exists() else ():  # noqa: PTH208  (names are all)
            part = SHARD.fullmatch(name)
            beside = part and self.names.shard and int(part[2]) == self.names.shard[1]
            if beside or name == self.names.settings or not (part or name == SETTINGS):
                continue
            for settings_id, entry in read_settings(self.out, name).items():
                if mine.get(entry["edit"], settings_id) != settings_id:
                    whose = f"--shard {part[1]}/{part[2]}" if part else "a run without --shard"
                    remedy = "merge the shards first" if part else "leave out --shard"
                    raise UsageError(
                        f"{self.place} holds results of {whose} for {entry['edit']} with other settings; {remedy}, or "
                        "give another --out"
                    )

    def begin(self, source: str, settings: RunSettings, outputs: Sequence[str]) -> None:
        """Note which files will be written of a source; call it before the first one is."""
        key = (source, settings.edit)
        # what was begun with other settings is ours as well
        left = self._begun[key].outputs if key in self._begun else ()
        begun = Begun(settings.id, (*outputs, *(name for name in left if name not in outputs)))
        if self._begun.get(key) != begun:
            self._note_begun(key, begun)

    def record(self, source: str, receipts: Sequence[Noted]) -> None:
        """Note a source as done; call it after its outputs are written.

        Samples beyond these that were recorded of the same source with the same settings stay recorded.
        """
        if self.roots.add():
            self._keep_roots()
        lines = [receipt.line for receipt in receipts]
        sizes = array("Q", [receipt.output_bytes for receipt in receipts])
        first = receipts[0]
        key = (source, self.all_settings[first.settings]["edit"])
        old = self.groups.get(key)
        same = (first.settings, first.source_sha256, first.output)
        if old is not None and (old.settings, old.source_sha256, old.output) == same:
            lines += self.lines(old)[len(lines) :]
            sizes.extend(old.sizes[len(sizes) :])
        head = json.dumps({"source": source, "receipts": len(lines)}) + "\n"
        at = self._whole + len(head)
        self._append(head.encode("ascii") + b"".join(lines))
        self._hold(key, Group(*same, sizes, self.names.journal, at, sum(map(len, lines))))

    def forget(self, source: str, edit: str) -> None:
        """Take back what is recorded of a source under an edit; call it before its outputs are replaced."""
        self._append((json.dumps({"source": source, "edit": edit, "receipts": 0}) + "\n").encode("ascii"))
        del self.groups[source, edit]

    def owner(self, output: str) -> Key | None:
        """Of which source and edit this is the first output that is recorded."""
        if self._owners is None:
            self._owners = {group.output: key for key, group in self.groups.items()}
        key = self._owners.get(output)
        return key if key is not None and key in self.groups and self.groups[key].output == output else None

    def disown(self, source: str, edit: str, outputs: Collection[str]) -> None:
        """Take these outputs from what was begun of other sources; call it before they are replaced."""
        for key, begun in list(self._begun.items()):
            left = tuple(name for name in begun.outputs if name not in outputs)
            if key != (source, edit) and left != begun.outputs:
                self._note_begun(key, begun._replace(outputs=left))

    def fail(self, failure: Failure) -> None:
        """Note a source as failed in this run; the next run tries it again."""
        self.failures[failure.source] = failure

    def receipts(self) -> Iterator[dict[str, Any]]:
        """All receipts of this run's edits with its settings, in order."""
        mine = (group for _, group in self._ordered() if group.settings in self.settings)
        for lines in self._all_lines(mine):
            yield from map(parsed, lines)

    def lines(self, group: Group) -> list[bytes]:
        """The receipts of a group as they stand in their file."""
        return next(self._all_lines([group]))

    def outputs(self, group: Group) -> list[str]:
        """The names of all outputs of a group."""
        return [json.loads(line)["output"] for line in self.lines(group)]

    def found_done(self) -> None:
        """Note that sources of this run were done before: they may have moved since."""
        if self.roots.moved():
            self._keep_roots()

    def _keep_roots(self) -> None:
        replace_file(self.out / self.names.roots, [self.roots.text()])

    def finish(self) -> None:
        """Merge the journal into receipts.jsonl, write this run's failures.jsonl, and remove the journal."""
        if self._whole or not (self.out / self.names.receipts).exists():
            ordered = self._ordered()
            all_lines = self._all_lines(group for _, group in ordered)
            replace_file(self.out / self.names.receipts, (line for lines in all_lines for line in lines))
            at = 0
            for key, group in ordered:
                self.groups[key] = group._replace(file=self.names.receipts, offset=at)
                at += group.length
        failures = sorted(self.failures.values(), key=lambda failure: os.fsencode(failure.source))
        replace_file(self.out / self.names.failures, (failure.line().encode("ascii") for failure in failures))
        self._keep_unfinished()
        self._remove_journal()
        self._whole = 0

    def there(self, output: str) -> bool:
        """Whether anything lies where an output would."""
        return os.path.lexists(self.out / output)

    def _open_journal(self) -> None:
        path = self.out / self.names.journal
        # unbuffered: what a full disk refuses must not be tried again when the file is closed
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        self._journal = journal = os.fdopen(handle, "r+b", buffering=0)
        lock_journal(handle, self.out)
        try:
            still_there = os.path.samestat(os.fstat(handle), path.stat())
        except FileNotFoundError:
            still_there = False
        if not still_there or self._state() != self._read_state:
            # a run that held it has just ended, and what was checked before is no longer so
            if still_there and not os.fstat(handle).st_size:
                self._remove_journal()
            raise busy(self.out)
        # what a kill left of the last entry is dropped
        journal.truncate(self._whole)
        new = {settings_id: one.entry() for settings_id, one in self.settings.items()}
        if not new.keys() <= self.all_settings.keys():
            self.all_settings |= new
            replace_file(self.out / self.names.settings, [settings_text(self.all_settings)])

    def _remove_journal(self) -> None:
        """Remove it while it is held, so that no other run takes it for its own; Windows removes no open file."""
        path = self.out / self.names.journal
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            path.unlink(missing_ok=True)

    def _keep_unfinished(self) -> None:
        """Keep what was begun, not recorded, and lies there: its source is gone or failed, or was not asked for."""
        entries = []
        for key, one in sorted(self._begun.items(), key=lambda item: order(item[0])):
            recorded = self.outputs(self.groups[key]) if key in self.groups else []
            left = tuple(name for name in one.outputs if name not in recorded and self.there(name))
            if left:
                entries.append(begun_entry(key, one._replace(outputs=left)))
        if entries:
            replace_file(self.out / self.names.unfinished, [(json.dumps(entries) + "\n").encode("ascii")])
        else:
            (self.out / self.names.unfinished).unlink(missing_ok=True)

    def _hold(self, key: Key, group: Group) -> None:
        """Keep a group that is recorded, and what was begun beyond it."""
        self.groups[key] = group
        begun = self._begun.pop(key, None)
        if begun is None or begun.within(group):
            return
        recorded = self.outputs(group)
        left = tuple(name for name in begun.outputs if name not in recorded)
        if left:
            self._begun[key] = begun._replace(outputs=left)

    def _note_begun(self, key: Key, begun: Begun) -> None:
        self._append((json.dumps(begun_entry(key, begun)) + "\n").encode("ascii"))
        self._begun[key] = begun

    def _append(self, entry: bytes) -> None:
        if self._journal is None:
            raise RuntimeError("the ledger is not open")
        try:
            self._journal.seek(self._whole)
            left = memoryview(entry)
            while left:
                left = left[self._journal.write(left) :]
        except OSError as error:
            raise WriteError(f"cannot write in {self.out}: {error.strerror}; make room and start again") from error
        self._whole += len(entry)

    def _ordered(self) -> list[tuple[Key, Group]]:
        return sorted(self.groups.items(), key=lambda item: order(item[0]))

    def _state(self) -> list[tuple[int, int, int] | None]:
        """Tells whether another run has changed the records since they were read."""
        found: list[tuple[int, int, int] | None] = []
        for name in (self.names.settings, self.names.receipts, self.names.journal):
            try:
                status = (self.out / name).stat()
            except OSError:
                found.append(None)
            else:
                # an empty journal is as good as none
                found.append((status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None)
        return found

    def _read(self) -> None:
        self._whole = 0
        self.groups.clear()
        self._read_state = self._state()
        with reading(self.out):
            self.all_settings = read_settings(self.out, self.names.settings)
            for key, group, _ in read_groups(self.out, self.names.receipts, self.all_settings):
                self.groups[key] = group
            # failures of earlier runs are tried again, so they are not kept; but only our own file is replaced
            read_failures(self.out, self.names.failures)
            self.roots.read(self.out, self.names.roots)
            self._begun = read_unfinished(self.out, self.names.unfinished)
            for key, entry, end in read_journal(self.out, self.names.journal, self.all_settings):
                self._whole = end
                if entry is None:
                    self.groups.pop(key, None)
                elif isinstance(entry, Begun):
                    self._begun[key] = entry
                else:
                    self._hold(key, entry)

    def _all_lines(self, groups: Iterable[Group]) -> Iterator[list[bytes]]:
        with ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}
            for group in groups:
                if group.file not in files:
                    files[group.file] = stack.enter_context((self.out / group.file).open("rb"))
                files[group.file].seek(group.offset)
                yield files[group.file].read(group.length).splitlines(keepends=True)
