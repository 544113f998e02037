"""One run at a time in an output folder: locks that end with the process that holds them. Leaves no file behind.

The folder itself is locked, shared by shards and alone by everything else; a shard holds its own journal besides, which
other machines on a shared disk see too. Where the system has no flock, nothing is locked.
"""

import os
from pathlib import Path
from typing import Self

from ..errors import UsageError


class FolderLock:
    """A lock on an existing folder, until `release` or the end of the process.

    Args:
        shared: others may hold it so too.
        shown: how people call the folder.

    Raises:
        UsageError: another run holds it.
    """

    def __init__(self, folder: Path, *, shared: bool, shown: object = None) -> None:
        self._handle: int | None = None
        try:
            import fcntl
        except ImportError:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise busy(shown or folder) from error
        except OSError:
            # some network file systems lock files only
            os.close(handle)
            return
        self._handle = handle

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


def take(handle: int) -> bool:
    """Lock an open file until it is closed; False where another process holds it. Without locks nobody does."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # the file system has no locks
        return True
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; True where that cannot be told."""
    try:
        import fcntl
    except ImportError:
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
