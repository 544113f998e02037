"""The output folder behind a URL: what `Store` is for a local one. Writes below one root.

Object stores put a file whole or not at all. Elsewhere it is written beside, into a hidden folder, and moved.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Self

from ..errors import ImageError, UsageError, WriteError
from ..storage.source_file import MAX_BYTES
from .remote import Remote, reason, unreadable
from .store import TEMPORARIES, TEMPORARY, temporary

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
"""Protocols whose puts are atomic."""

KEY_LIMIT = 1024
"""Bytes of an object's name on all of them."""


class RemoteStore:
    """Where one run writes, behind a URL; see `Store`."""

    def __init__(self, root: Remote, mark: str = "") -> None:
        self.root = root
        self._files, self._base = root.file_system()
        self._base = self._base.rstrip("/")
        protocol = self._files.protocol
        self._whole = not WHOLE.isdisjoint({protocol} if isinstance(protocol, str) else protocol)
        self._temporaries = f"{TEMPORARIES}{mark}"
        self._listing = lru_cache(maxsize=4)(self._list)

    def __enter__(self) -> Self:
        self._clean()
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    def write(self, relative: str, data: bytes) -> None:
        """Write a file so that it is whole or absent; see `write_all`."""
        self.write_all({relative: data})

    def write_all(self, files: Mapping[str, bytes | str]) -> None:
        """Write files, given as bytes since nothing is set down here, many at a time where the store can.

        Raises:
            ImageError: the store takes no such name.
            WriteError: it refuses.
        """
        paths = {self._path(relative): data for relative, data in files.items()}
        with self._writing(next(iter(files), "")):
            if self._whole:
                self._files.pipe(paths)
                return
            for path, data in paths.items():
                with self._beside(path) as beside:
                    self._files.pipe_file(beside, data)

    def put(self, relative: str, file: Path) -> None:
        """Write a local file so that it is whole or absent.

        Raises:
            WriteError: the store refuses.
        """
        path = self._path(relative)
        with self._writing(relative), self._beside(path) as beside:
            self._files.put_file(str(file), beside)

    def get(self, relative: str, file: Path) -> None:
        """Replace a local file by one of the store, or remove it where the store has none.

        Raises:
            UsageError: it cannot be read.
        """
        beside = file.with_name(f".{file.name}.part")
        try:
            self._files.get_file(self._path(relative), str(beside))
        except FileNotFoundError:
            beside.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        except Exception as error:
            raise unreadable(Remote(self.root.root, relative), error) from error
        else:
            beside.replace(file)

    def remove(self, relative: str, sha256: str) -> None:
        """Remove an output of ours that has become stale; a file of other bytes is someone else's and stays."""
        path = self._path(relative)
        with self._writing(relative):
            try:
                data = self._files.cat_file(path)
            except FileNotFoundError:
                return
            if hashlib.sha256(data).hexdigest() == sha256:
                self._files.rm_file(path)

    def holds(self, names: Iterable[str], sizes: Iterable[int]) -> bool:
        """Whether all these files are there and have these sizes, by listings of their folders."""
        return all(
            self._listing(folder).get(name) == size
            for (folder, _, name), size in zip((full.rpartition("/") for full in names), sizes, strict=False)
        )

    def names(self, folder: str) -> Iterable[str]:
        """The names in a folder, which may be absent."""
        return self._listing(folder).keys()

    def read(self, relative: str) -> bytes:
        """The bytes of a file.

        Raises:
            ImageError: as `read_file`.
        """
        return Remote(self.root.root, relative).read(MAX_BYTES)

    def path(self, relative: str) -> str:
        """How people call a file."""
        return f"{self.root}/{relative}"

    def _path(self, relative: str) -> str:
        try:
            size = len(f"{self._base}/{relative}".encode())
        except UnicodeEncodeError as error:
            raise ImageError("its results cannot be named: the name is not UTF-8") from error
        if self._whole and size > KEY_LIMIT:
            raise ImageError(f"its results cannot be named: {size:,} bytes, the limit is {KEY_LIMIT:,}")
        if any(part in ("", ".", "..") for part in relative.split("/")):
            raise UsageError(f"{relative} leads outside {self.root}; give another --out")
        return f"{self._base}/{relative}"

    @contextmanager
    def _beside(self, path: str) -> Iterator[str]:
        """Where to write what is to become a file."""
        if self._whole:
            yield path
            return
        beside = self._path(f"{self._temporaries}/{temporary(path.encode())}")
        for one in (beside, path):
            self._files.makedirs(one.rpartition("/")[0], exist_ok=True)
        yield beside
        self._files.mv(beside, path)

    def _list(self, folder: str) -> dict[str, int]:
        path = f"{self._base}/{folder}".rstrip("/")
        try:
            found = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise unreadable(Remote(self.root.root, folder), error) from error
        return {info["name"].rpartition("/")[2]: info["size"] for info in found if info["type"] == "file"}

    def refuse_blocked(self, folder: str) -> None:
        """Nothing lies in the way of a folder of an object store."""

    def _clean(self) -> None:
        """Remove what writes that were cut off have left."""
        if self._whole:
            return
        with self._writing(self._temporaries):
            path = self._path(self._temporaries)
            if not self._files.exists(path):
                return
            names = [found.rpartition("/")[2] for found in self._files.ls(path, detail=False)]
            ours = [name for name in names if TEMPORARY.fullmatch(name)]
            for name in ours:
                self._files.rm_file(f"{path}/{name}")
            if len(ours) == len(names):
                self._files.rmdir(path)

    @contextmanager
    def _writing(self, relative: str) -> Iterator[None]:
        """Turn what a store says into one line."""
        try:
            yield
        except Exception as error:  # each kind of store has errors of its own
            told = f"cannot write {self.root}/{relative}: {reason(error)}; start the command again"
            raise WriteError(told) from error
