"""Where the sources of an output folder lie, so that another image of the same name is told from a changed one.

A ledger knows a source by its relative path. `.roots.json` keeps below which folders the sources of its runs lay, by
the part of the path that `scan` has put before. Reads that file and asks whether images are there; writes nothing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError
from ..storage.plain import read_plain
from ..storage.remote import location

LIMIT = 1 << 20
"""Bytes, and so some ten thousand folders."""


class Roots:
    """Those of a run, `now`, beside those of earlier runs.

    Args:
        now: as `folder.roots` gives them.
    """

    def __init__(self, now: Mapping[str, str]) -> None:
        self.now, self.known = now, dict[str, list[str]]()

    def read(self, out: Path, name: str) -> None:
        """Take those of earlier runs, beside what was read before.

        Raises:
            ValueError, TypeError, OSError: the file holds something else.
        """
        found = json.loads(read_plain(out / name, LIMIT)) if (out / name).exists() else {}
        if not isinstance(found, dict) or not all(
            isinstance(one, list) and all(isinstance(root, str) for root in one) for one in found.values()
        ):
            raise TypeError(f"{name} is no list of folders")
        for before, some in found.items():
            self.known[before] = list(dict.fromkeys([*self.known.get(before, []), *some]))

    def add(self) -> bool:
        """Take those of this run, of which something is about to be recorded; True where one is new."""
        return self._take(self.now)

    def moved(self) -> bool:
        """Take those of this run, of which something was found done, where none that is known is there any more; True
        where one is new.
        """
        gone = {key: not any(map(_is_there, self.known.get(_before(key), []))) for key in self.now}
        return self._take({key: root for key, root in self.now.items() if gone[key]})

    def _take(self, now: Mapping[str, str]) -> bool:
        new = [(key, root) for key, root in now.items() if root not in self.known.get(_before(key), [])]
        for key, root in new:
            self.known.setdefault(_before(key), []).append(root)
        return bool(new)

    def text(self) -> bytes:
        """The bytes of the file."""
        return (json.dumps(self.known, sort_keys=True) + "\n").encode("ascii")

    def elsewhere(self, source: str) -> str | None:
        """Another image that has the name of this source, below a folder of which there are results here too."""
        first = source.partition("/")[0] + "/"
        key = next((key for key in (source, first, "") if key in self.now), None)
        if key is None:
            return None
        relative = source.removeprefix(_before(key))
        for root in self.known.get(_before(key), []):
            if root != self.now[key] and _is_there(os.path.join(root, relative)):  # noqa: PTH118  (or a URL)
                return f"{root}/{relative}"
        return None


def _is_there(image: str) -> bool:
    """Whether an image lies there; what cannot be told counts as there."""
    try:
        return location(image).exists()
    except UsageError:
        return True


def _before(key: str) -> str:
    """What stands before the paths below a root: single images lie at the top."""
    return key if key.endswith("/") else ""
