"""One file that appears whole or not at all. Writes that file and nothing else."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import WriteError


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends well, and is gone when it does not.

    Raises:
        WriteError: the disk is full or refuses.
    """
    # of no other run, whatever its name and its process
    beside = path.with_name(f".{secrets.token_hex(16)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as stream:
            yield stream
        beside.replace(path)
    except BrokenPipeError:
        raise  # of a terminal that has closed, not of a file
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; make room and start again") from error
    finally:
        beside.unlink(missing_ok=True)
