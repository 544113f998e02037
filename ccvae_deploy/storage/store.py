"""The output folder: files appear whole or not at all, and nothing outside it is touched. Writes below one root."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ..errors import ImageError, UsageError, WriteError
from ..storage.source_file import read_file

TEMPORARIES = ".ccvae-tmp"
"""The folder of temporaries, and the names in it that are ours."""
TEMPORARY = re.compile(r"[0-9a-f]{32}")

IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
UNNAMEABLE = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class Store:
    """Where one run writes. Its temporaries lie in one hidden folder per shard, empty at start and gone at the end.

    Use it as a context manager while the ledger is held: then no other run has the same temporaries.
    """

    def __init__(self, root: Path, mark: str = "") -> None:
        self.root = root
        self._temporaries = root / f"{TEMPORARIES}{mark}"
        self._inside: set[str] = set()
        self._free: set[Path] = set()

    def __enter__(self) -> Self:
        self._clean()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # a disk that refuses has been told of already
        with contextlib.suppress(WriteError) if kind else contextlib.nullcontext():
            self._clean()

    def write(self, relative: str, data: bytes | str) -> None:
        """Write a file so that it is whole or absent.

        Args:
            data: its bytes, or the name of a temporary of this store that holds them, see `set_down`.

        Raises:
            ImageError: the file system takes no such name.
            UsageError: the path leaves the root.
            WriteError: the disk is full or refuses.
        """
        try:
            self._make_folder(relative.rpartition("/")[0])
            beside = data if isinstance(data, str) else self._beside(relative, data)
            # os rather than Path: this process does nothing else for an output that a worker has made
            os.replace(f"{self._temporaries}/{beside}", f"{self.root}/{relative}")  # noqa: PTH105
        except OSError as error:
            if error.errno in UNNAMEABLE:
                raise ImageError(f"its results cannot be named: {(error.strerror or str(error)).lower()}") from error
            raise _full(self.root / relative, error) from error

    def write_all(self, files: Mapping[str, bytes | str]) -> None:
        """Write files one after the other; see `write`."""
        for relative, data in files.items():
            self.write(relative, data)

    def discard(self, data: bytes | str) -> None:
        """Remove what was set down of a file that is not written after all."""
        if isinstance(data, str):
            (self._temporaries / data).unlink(missing_ok=True)

    def temporaries(self) -> Path:
        """The folder of temporaries, absolute, made where it is not there.

        Raises:
            WriteError: it cannot be made.
        """
        try:
            self._temporaries.mkdir(exist_ok=True)
        except OSError as error:
            raise _full(self._temporaries, error) from error
        return self._temporaries.absolute()

    def remove(self, relative: str, sha256: str) -> None:
        """Remove an output of ours that has become stale; a file of other bytes is someone else's and stays."""
        target = self.root / relative
        try:
            if not inside(target.parent, self.root) or not target.is_file():
                return
            if hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
                target.unlink()
        except OSError as error:
            raise WriteError(f"cannot remove {target}: {error.strerror}; start the command again") from error

    def holds(self, names: Iterable[str], sizes: Iterable[int]) -> bool:
        """Whether all these files are there and have these sizes: none is missing, and none was cut off."""
        try:
            # os.stat rather than Path: this is asked of every output when a run is started again
            return all(os.stat(self.root / name).st_size == size for name, size in zip(names, sizes, strict=False))  # noqa: PTH116
        except OSError:
            return False

    def names(self, folder: str) -> Iterable[str]:
        """The names in a folder, which may be absent."""
        try:
            return os.listdir(self.root / folder)  # noqa: PTH208  (names are all that is wanted)
        except OSError:
            return ()

    def read(self, relative: str) -> bytes:
        """The bytes of a file.

        Raises:
            ImageError: as `read_file`.
        """
        return read_file(self.root / relative)

    def path(self, relative: str) -> Path:
        """Where a file lies."""
        return self.root / relative

    def refuse_blocked(self, folder: str) -> None:
        """Refuse a folder of results that cannot be made.

        Raises:
            UsageError: a link leads outside, or something that is no folder lies in its way.
        """
        target = self.root / folder
        if target in self._free:
            return
        self._refuse_outside(target)
        part = next((one for one in (target, *target.parents) if os.path.lexists(one)), target)
        if not part.is_dir():
            raise UsageError(f"{part} lies where a folder of results goes; move it, or give another --out")
        if len(self._free) < 10_000:
            self._free.add(target)

    def _refuse_outside(self, folder: Path) -> None:
        if not inside(folder, self.root):
            raise UsageError(f"{folder} leads outside {self.root}; remove the link or give another --out")

    def _beside(self, relative: str, data: bytes) -> str:
        """Bytes in the temporary of a file, and its name."""
        name = temporary(os.fsencode(relative))
        self._temporaries.mkdir(exist_ok=True)
        (self._temporaries / name).write_bytes(data)
        return name

    def _make_folder(self, folder: str) -> None:
        if folder in self._inside:
            return
        target = self.root / folder
        self._refuse_outside(target)
        target.mkdir(parents=True, exist_ok=True)
        if len(self._inside) < 10_000:
            self._inside.add(folder)

    def _clean(self) -> None:
        """Remove what writes that were cut off have left."""
        try:
            if self._temporaries.is_symlink():
                self._temporaries.unlink()
            elif self._temporaries.is_dir():
                for file in self._temporaries.iterdir():
                    if TEMPORARY.fullmatch(file.name):
                        file.unlink(missing_ok=True)
                self._temporaries.rmdir()
        except OSError as error:
            # files of others, or one that a worker of a killed run has just made
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return
            raise WriteError(f"cannot empty {self._temporaries}: {error.strerror}; remove it by hand") from error


def temporary(relative: bytes) -> str:
    """What a file is called until it is whole."""
    return hashlib.sha256(relative).hexdigest()[:32]


def set_down(temporaries: Path, data: bytes) -> str:
    """Bytes in a temporary that nobody else writes, for the process that holds the store to put in its place; its name.

    Raises:
        WriteError: the disk is full or refuses.
    """
    name = secrets.token_hex(16)
    try:
        with open(f"{temporaries}/{name}", "xb", buffering=0) as file:  # noqa: PTH123  (hot path)
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        raise _full(temporaries / name, error) from error
    return name


def inside(path: Path, root: Path) -> bool:
    """Whether a path, all links followed, is a folder or lies below it."""
    # unlike Path.resolve, realpath gives a loop of links back
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def replace_file(path: Path, lines: Iterable[bytes]) -> None:
    """Put a file in its place so that, after a power cut too, the old one is there or the new one.

    Raises:
        WriteError: the disk is full or refuses.
    """
    beside = path.with_name(f".{temporary(os.fsencode(path.name))}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _full(path, error) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def refuse_output(out: Path, source: Path, endings: Sequence[str], overwrite: bool) -> None:
    """Refuse a file to write beside one that is read, before any work.

    Raises:
        UsageError: another ending, a file that is there without `overwrite`, or the source itself.
    """
    if out.suffix.lower() not in endings:
        raise UsageError(f"--out {out}: expected a name that ends in {' or '.join(endings)}")
    if os.path.lexists(out) and (not overwrite or not out.is_file()):
        raise UsageError(f"{out} is there already; add --overwrite to replace a file, or give another --out")
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"--out {out} is the image itself; give another --out")
    refuse_unwritable(out.parent)


def refuse_file(path: Path, overwrite: bool) -> None:
    """Refuse a place where a file cannot go, before any work.

    Raises:
        UsageError: a folder, a file that is there without `overwrite`, or its folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file with --out")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} is there; add --overwrite to replace it, or give another --out")
    refuse_unwritable(path.parent)


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that nothing can be written into; one that is not there is looked for above.

    Raises:
        UsageError: it cannot be written.
    """
    if not writable(folder):
        raise UsageError(f"{_existing(folder)} cannot be written; give another --out")


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it is not there."""
    return os.access(_existing(folder), os.W_OK | os.X_OK)


def _existing(folder: Path) -> Path:
    resolved = folder.resolve()
    return next(one for one in (resolved, *resolved.parents) if one.exists())


def _full(path: Path, error: OSError) -> WriteError:
    if error.errno in IN_THE_WAY:
        remedy = "move what lies there"
    elif error.errno in REFUSED:
        remedy = "see that it may be written"
    elif error.errno == errno.ENOENT:
        remedy = "see that nothing removes folders there"
    else:
        remedy = "make room"
    return WriteError(f"cannot write {path}: {error.strerror}; {remedy} and start the command again")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last; where folders cannot be synced, nothing is done."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
