"""One file that appears whole or not at all. Writes that file and nothing else."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import WriteError
from .lock import is_held, take
from .store import sync_folder, temporary


@contextmanager
def new_file(path: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends well, and is gone when it does not.

    What a process that was killed has left of the same file is removed first.

    Args:
        overwrite: whether a file that has come to lie at `path` since the start is replaced.

    Raises:
        WriteError: the disk is full or refuses; or `path` is taken by now: then the content lies beside it, and the
            message says where.
    """
    of_this = f".{temporary(os.fsencode(path.name))}"
    # of no other run, whatever its name and its process
    beside = path.with_name(f"{of_this}-{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{of_this}-*.new"):
            if not is_held(left):
                left.unlink(missing_ok=True)
        with beside.open("xb") as stream:
            take(stream.fileno())
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            beside.replace(path)
        else:
            _put_new(beside, path)
        sync_folder(path.parent)
    except BrokenPipeError:
        raise  # of a terminal that has closed, not of a file
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; make room and start again") from error
    finally:
        beside.unlink(missing_ok=True)


def _put_new(beside: Path, path: Path) -> None:
    """Put a file in a place where none may be."""
    try:
        os.link(beside, path)
    except OSError:
        # it is there, or this file system has no links
        if not os.path.lexists(path):
            beside.replace(path)
            return
        kept = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        beside.replace(kept)
        raise WriteError(f"{path} is there by now, so what was to be it is {kept}; move one of them") from None
