"""One run at a time in an output folder: locks that end with the process that holds them. Leaves no file behind.

The folder itself is locked, shared by shards and alone by everything else; a shard holds its own journal besides, which
other machines on a shared disk see too. Where the system has no flock, nothing is locked.
"""

import os
from pathlib import Path
from typing import Self

from ..errors import UsageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """A lock on an existing folder, until `release` or the end of the process.

    Args:
        shared: others may hold it so too.
        shown: how people call the folder.

    Raises:
        UsageError: another run holds it.
    """

    def __init__(self, folder: Path, *, shared: bool, shown: object = None) -> None:
        # a system without locks opens no folder either
        self._handle = os.open(folder, os.O_RDONLY) if fcntl else None
        if self._handle is not None and not take(self._handle, shared=shared):
            self.release()
            raise busy(shown or folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def lock_journal(handle: int, folder: Path) -> None:
    """Lock an open journal until it is closed.

    Raises:
        UsageError: another run holds it.
    """
    if not take(handle):
        raise busy(folder)


def take(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file or folder until it is closed; False where another process holds it. Without locks nobody does.

    Args:
        shared: others may hold it so too.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # some file systems have no locks, or none of folders
        return True
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; True where that cannot be told."""
    if fcntl is None:
        return True
    try:
        # NFS locks only what may be written
        with path.open("r+b") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def busy(folder: object) -> UsageError:
    """The error of a folder that another run holds."""
    return UsageError(f"another run writes to {folder}; wait for it, or give another --out")
