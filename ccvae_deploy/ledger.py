"""The ledger: what of an output folder is done, made with which settings. It makes a run resumable.

`receipts.jsonl` and `failures.jsonl` are in the order of the sources' paths, then edit, then sample, whatever the
order of work was. While a run lasts, each finished source is one line of `.journal.jsonl`; a run that was killed leaves
the journal, and the next run goes on from it. At its end the journal is merged in. `settings.json` holds the settings
that receipts refer to. Memory is one small index entry per source and edit, not the records themselves.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from .errors import UsageError, WriteError
from .receipts import Failure, Record, RunSettings

RECEIPTS, FAILURES, SETTINGS, JOURNAL = "receipts.jsonl", "failures.jsonl", "settings.json", ".journal.jsonl"


class Group(NamedTuple):
    """The receipts of one source under one edit: their settings, source hash, and where their lines lie."""

    settings: str
    source_sha256: str
    samples: int
    file: str
    offset: int
    length: int


@dataclass(frozen=True)
class Names:
    """The ledger's files; a shard has its own, so that machines may share an output folder."""

    receipts: str
    failures: str
    journal: str

    @classmethod
    def of(cls, shard: tuple[int, int] | None) -> Self:
        """Plain names, or names with `-i-of-n`."""
        mark = f"-{shard[0]}-of-{shard[1]}" if shard else ""
        return cls(*(name.replace(".jsonl", f"{mark}.jsonl") for name in (RECEIPTS, FAILURES, JOURNAL)))


class Ledger:
    """The ledger of one output folder, held open by one run at a time.

    Use it as a context manager; leaving it releases the folder and keeps the journal unless `finish` was called.
    """

    def __init__(self, out: Path, settings: RunSettings, shard: tuple[int, int] | None = None) -> None:
        self.out, self.settings, self.edit = out, settings, settings.edit
        self.names = Names.of(shard)
        self.all_settings: dict[str, dict[str, Any]] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self.failures: dict[str, Failure] = {}
        self._journal: IO[bytes] | None = None
        self._read()

    def __enter__(self) -> Self:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            journal = (self.out / self.names.journal).open("ab")
        except OSError as error:
            raise WriteError(f"cannot write in {self.out}: {error.strerror}; give another --out") from error
        try:
            _lock(journal)
            if not os.path.samestat(os.fstat(journal.fileno()), (self.out / self.names.journal).stat()):
                raise OSError("the run that held it has just ended and removed it")
        except OSError as error:
            journal.close()
            raise UsageError(f"another run writes to {self.out}; wait for it, or give another --out") from error
        # another run may have ended since; and what a kill left of the last line is dropped
        self._read()
        journal.truncate(self._whole)
        self._journal = journal
        self.all_settings[self.settings.id] = self.settings.model_dump()
        _replace(self.out / SETTINGS, [json.dumps(self.all_settings, indent=2, sort_keys=True) + "\n"])
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    @property
    def resuming(self) -> bool:
        """Whether a run was cut off here, so that outputs may lie beside the ledger."""
        return self._whole > 0 or (self.out / self.names.journal).exists()

    def done(self, source: str, outputs: Sequence[str]) -> str | None:
        """The source's sha256 when all these outputs are recorded with these settings and still there, else None."""
        group = self.groups.get((source, self.edit))
        if group is None or group.settings != self.settings.id or group.samples < len(outputs):
            return None
        return group.source_sha256 if all((self.out / name).exists() for name in outputs) else None

    def made_with_others(self, source: str) -> bool:
        """Whether this edit of the source is recorded with other settings."""
        group = self.groups.get((source, self.edit))
        return group is not None and group.settings != self.settings.id

    def knows(self, source: str) -> bool:
        """Whether this edit of the source is recorded at all."""
        return (source, self.edit) in self.groups

    def record(self, source: str, receipts: Iterable[Record]) -> None:
        """Note a source as done; call it after its outputs are written."""
        lines = [receipt.line() for receipt in receipts]
        self._append({"source": source, "receipts": len(lines)}, lines)

    def fail(self, failure: Failure) -> None:
        """Note a source as failed in this run; the next run tries it again."""
        self.failures[failure.source] = failure

    def receipts(self) -> Iterator[dict[str, Any]]:
        """All receipts of this edit with these settings, in order."""
        for key, group in sorted(self.groups.items(), key=_order):
            if key[1] == self.edit and group.settings == self.settings.id:
                for line in self._lines(group):
                    yield json.loads(line)

    def finish(self) -> None:
        """Merge the journal into receipts.jsonl and failures.jsonl and remove it."""
        ordered = sorted(self.groups.items(), key=_order)
        _replace(self.out / self.names.receipts, (line for _, group in ordered for line in self._lines(group)))
        failures = sorted(self.failures.values(), key=lambda failure: os.fsencode(failure.source))
        _replace(self.out / self.names.failures, (failure.line() for failure in failures))
        (self.out / self.names.journal).unlink(missing_ok=True)
        self.groups.clear()
        self._read_receipts()

    def _append(self, head: dict[str, Any], lines: list[str]) -> None:
        if self._journal is None:
            raise RuntimeError("the ledger is not open")
        first, body = json.dumps(head) + "\n", "".join(lines)
        try:
            at = self._journal.seek(0, os.SEEK_END) + len(first)
            self._journal.write((first + body).encode("ascii"))
            self._journal.flush()
        except OSError as error:
            raise WriteError(f"cannot write in {self.out}: {error.strerror}; make room and start again") from error
        self._add(json.loads(lines[0]), len(lines), self.names.journal, at, len(body))

    def _add(self, first: dict[str, Any], count: int, file: str, offset: int, length: int) -> None:
        edit = (
            self.settings.edit
            if first["settings"] == self.settings.id
            else self.all_settings[first["settings"]]["edit"]
        )
        group = Group(first["settings"], first["source_sha256"], count, file, offset, length)
        self.groups[first["source"], edit] = group

    def _read(self) -> None:
        self._whole = 0
        self.groups.clear()
        try:
            if (self.out / SETTINGS).exists():
                self.all_settings = json.loads((self.out / SETTINGS).read_text("ascii"))
            self._read_receipts()
            self._check_failures()
            self._read_journal()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self.out} holds records that are damaged or not ours ({error}); give another --out"
            ) from error
        except OSError as error:
            raise UsageError(
                f"the records in {self.out} cannot be read: {error.strerror}; give another --out"
            ) from error

    def _read_receipts(self) -> None:
        """Index runs of lines that share source and edit."""
        path = self.out / self.names.receipts
        if not path.exists():
            return
        first: dict[str, Any] = {}
        key, count, start, at = ("", ""), 0, 0, 0
        with path.open("rb") as file:
            for line in file:
                row = json.loads(line)
                if (row["source"], row["settings"]) != key:
                    if count:
                        self._add(first, count, self.names.receipts, start, at - start)
                    key, first, count, start = (row["source"], row["settings"]), row, 0, at
                count += 1
                at += len(line)
        if count:
            self._add(first, count, self.names.receipts, start, at - start)

    def _check_failures(self) -> None:
        """Failures of earlier runs are tried again, so they are not kept; but only our own file is replaced."""
        path = self.out / self.names.failures
        if path.exists():
            for line in path.read_text("ascii").splitlines():
                Failure(**json.loads(line))

    def _read_journal(self) -> None:
        """Take over whole entries; the first that is cut off ends the journal."""
        path = self.out / self.names.journal
        if not path.exists():
            return
        with path.open("rb") as file:
            while (head := file.readline()).endswith(b"\n"):
                entry = json.loads(head)
                at = file.tell()
                lines = [file.readline() for _ in range(entry["receipts"])]
                if not all(line.endswith(b"\n") for line in lines):
                    return
                self._add(json.loads(lines[0]), len(lines), self.names.journal, at, sum(map(len, lines)))
                self._whole = file.tell()

    def _lines(self, group: Group) -> Iterator[str]:
        with (self.out / group.file).open("rb") as file:
            file.seek(group.offset)
            yield from file.read(group.length).decode("ascii").splitlines(keepends=True)


def _order(item: tuple[tuple[str, str], Group]) -> tuple[bytes, str]:
    return os.fsencode(item[0][0]), item[0][1]


def _lock(file: IO[bytes]) -> None:
    """Held until the file is closed or the process dies; where the system has no flock, none is taken."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _replace(path: Path, lines: Iterable[str]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="ascii") as file:
            file.writelines(lines)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WriteError(f"cannot write {path}: {error.strerror}; make room and start the command again") from error
