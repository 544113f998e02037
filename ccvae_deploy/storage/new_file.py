"""One file that appears whole or not at all. Writes that file and nothing else."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import WriteError
from .lock import is_held, take
from .store import temporary


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends well, and is gone when it does not.

    What a process that was killed has left of the same file is removed first.

    Raises:
        WriteError: the disk is full or refuses.
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
        beside.replace(path)
    except BrokenPipeError:
        raise  # of a terminal that has closed, not of a file
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; make room and start again") from error
    finally:
        beside.unlink(missing_ok=True)
