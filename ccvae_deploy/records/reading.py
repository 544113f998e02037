"""The files of a ledger, read: receipts by source and edit, failures, settings. Reads, writes nothing.

The receipts of one source under one edit stand together, a group. Groups are in the order of the bytes of the sources'
paths, then of the edit's name.
"""

import json
import os
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic_core import from_json

from ..errors import UsageError
from ..receipts import Failure
from ..storage.plain import lines_of, open_plain, read_plain

RECEIPTS, FAILURES, SETTINGS, JOURNAL = "receipts.jsonl", "failures.jsonl", "settings.json", ".journal.jsonl"
UNFINISHED = ".unfinished.json"
SHARD = re.compile(r"settings-(\d{1,9})-of-(\d{1,9})\.json")
AUDIT = "audit"
"""What settings of an audit say in place of an edit."""

WHOLE_LIMIT = 512 << 20
"""Bytes of a file of records that is read at once: settings, and what is unfinished."""

Key = tuple[str, str]
"""Source and edit."""

AllSettings = dict[str, dict[str, Any]]
"""The entries of settings.json by their id."""


@dataclass(frozen=True)
class Names:
    """The ledger's files; a shard has its own, so that machines may share an output folder."""

    receipts: str
    failures: str
    settings: str
    journal: str
    unfinished: str
    sheet: str
    report: str
    roots: str
    mark: str
    shard: tuple[int, int] | None

    @classmethod
    def of(cls, shard: tuple[int, int] | None) -> Self:
        """Plain names, or names with `-i-of-n`."""
        mark = f"-{shard[0]}-of-{shard[1]}" if shard else ""
        receipts, failures, settings = (name.replace(".", f"{mark}.") for name in (RECEIPTS, FAILURES, SETTINGS))
        journal, unfinished = JOURNAL.replace(".jsonl", f"{mark}.jsonl"), UNFINISHED.replace(".json", f"{mark}.json")
        pages = f"sheet{mark}.png", f"report{mark}.html"
        return cls(receipts, failures, settings, journal, unfinished, *pages, f".roots{mark}.json", mark, shard)


class Group(NamedTuple):
    """The receipts of one source under one edit: their settings, what was done, and where their lines lie.

    Attributes:
        output: name of the first output.
        sizes: bytes of every output.
    """

    settings: str
    source_sha256: str
    output: str
    sizes: "array[int]"
    file: str
    offset: int
    length: int

    @property
    def samples(self) -> int:
        """How many outputs there are."""
        return len(self.sizes)


class Begun(NamedTuple):
    """What a run was about to write of a source under an edit: while that is not recorded, these files may be its own.

    Attributes:
        settings: the id of its settings.
        outputs: names, in the order of samples.
    """

    settings: str
    outputs: tuple[str, ...]

    def within(self, done: Group) -> bool:
        """Whether a group plainly has all of them: it begins with the same output and has no fewer."""
        return self.outputs[:1] == (done.output,) and len(self.outputs) <= done.samples


def group_of(
    rows: Sequence[dict[str, Any]], settings: AllSettings, file: str, offset: int, length: int
) -> tuple[Key, Group]:
    """Index one group.

    Raises:
        ValueError, KeyError, TypeError: a row is no receipt, or its settings are unknown.
    """
    first = rows[0]
    edit = settings[first["settings"]]["edit"]
    outputs = [row["output"] for row in rows]
    hashes = [row["output_sha256"] for row in rows]
    if not all(isinstance(value, str) for value in (first["source"], first["source_sha256"], edit, *outputs, *hashes)):
        raise TypeError("a receipt without source or output")
    if any("\0" in name for name in outputs):
        raise ValueError("an output that no file can be called")
    sizes = array("Q", [row["output_bytes"] for row in rows])
    settings_id = sys.intern(first["settings"])
    return (first["source"], edit), Group(
        settings_id, first["source_sha256"], first["output"], sizes, file, offset, length
    )


def read_groups(folder: Path, name: str, settings: AllSettings) -> Iterator[tuple[Key, Group, list[bytes]]]:
    """The groups of a receipts file in the order in which they stand there, with their lines."""
    path = folder / name
    if not path.exists():
        return
    start = 0
    with open_plain(path) as file:
        pairs = ((line, json.loads(_ended(line))) for line in lines_of(file))
        for _, together in groupby(pairs, key=lambda pair: (pair[1]["source"], pair[1]["settings"])):
            lines, rows = zip(*together, strict=True)
            length = sum(map(len, lines))
            yield *group_of(rows, settings, name, start, length), list(lines)
            start += length


def read_journal(folder: Path, name: str, settings: AllSettings) -> Iterator[tuple[Key, Group | Begun | None, int]]:
    """The whole entries of a journal, each with the position after it; None stands for a group that was taken back.

    A kill cuts the last entry off, and a power cut may leave zeros behind it: there the journal ends.
    """
    path = folder / name
    if not path.exists():
        return
    with open_plain(path) as file:
        all_lines = lines_of(file)
        while _whole(head := next(all_lines, b"")):
            entry = json.loads(head)
            at = file.tell()
            lines = []
            for _ in range(entry["receipts"]):
                if not _whole(line := next(all_lines, b"")):
                    return
                lines.append(line)
            if lines:
                end = file.tell()
                yield *group_of([*map(json.loads, lines)], settings, name, at, end - at), end
            elif "outputs" in entry:
                yield *_begun(entry), at
            else:
                yield (entry["source"], entry["edit"]), None, at


def read_unfinished(folder: Path, name: str) -> dict[Key, Begun]:
    """What earlier runs have begun and none has recorded.

    Raises:
        ValueError, KeyError, TypeError: the file holds something else.
    """
    path = folder / name
    if not path.exists():
        return {}
    found = json.loads(read_plain(path, WHOLE_LIMIT))
    if not isinstance(found, list):
        raise TypeError(f"{name} is no list of outputs")
    return dict(map(_begun, found))


def begun_entry(key: Key, begun: Begun) -> dict[str, Any]:
    """How it is noted, in the journal and in the file of what is unfinished."""
    return {"source": key[0], "edit": key[1], "receipts": 0, "settings": begun.settings, "outputs": begun.outputs}


def _begun(entry: dict[str, Any]) -> tuple[Key, Begun]:
    named = (entry["source"], entry["edit"], entry["settings"], *entry["outputs"])
    if not all(isinstance(one, str) for one in named):
        raise TypeError("an output without a name")
    return (entry["source"], entry["edit"]), Begun(entry["settings"], tuple(entry["outputs"]))


def _ended(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise ValueError("its last line is cut off")
    return line


def _whole(line: bytes) -> bool:
    return line.endswith(b"\n") and b"\0" not in line


def read_failures(folder: Path, name: str) -> list[Failure]:
    """The failures of a file."""
    path = folder / name
    if not path.exists():
        return []
    with open_plain(path) as file:
        return [Failure(**json.loads(line.decode("ascii"))) for line in lines_of(file)]


def read_settings(folder: Path, name: str) -> AllSettings:
    """The entries of a settings file.

    Raises:
        ValueError: it has another form.
    """
    path = folder / name
    if not path.exists():
        return {}
    found = json.loads(read_plain(path, WHOLE_LIMIT).decode("ascii"))
    if not isinstance(found, dict) or not all(isinstance(entry, dict) and "edit" in entry for entry in found.values()):
        raise ValueError(f"{name} holds no settings")
    return found


def of_audit(settings: AllSettings) -> bool:
    """Whether the settings of a folder say that it holds an audit."""
    # a label may be called so, and be swapped
    return any(entry["edit"] == AUDIT and "feeding" in entry for entry in settings.values())


def settings_text(settings: AllSettings) -> bytes:
    """The bytes of settings.json."""
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode("ascii")


def order(key: Key) -> tuple[bytes, str]:
    """Where a group stands among others."""
    return os.fsencode(key[0]), key[1]


def parsed(line: bytes) -> Any:
    """A line of records. pydantic's parser takes a third of json's time; json's knows the surrogates of names that are
    not UTF-8.

    Raises:
        ValueError, RecursionError: it is none.
    """
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what is wrong with records into one line."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"{folder} holds records that are damaged or not ours ({error}); give another --out"
        ) from error
    except OSError as error:
        raise UsageError(f"the records in {folder} cannot be read: {error.strerror}; give another --out") from error
