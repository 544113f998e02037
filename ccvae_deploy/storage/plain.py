"""Read files that may come from strangers: plain files alone, and only so much of them. Reads, writes nothing.

A pipe would block for ever, a link to a device has no end, and one line may be as long as the file.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LINE_LIMIT = 8 << 20
"""Bytes; a receipt of 1,024 labels with names of 100 characters takes a thirtieth of it."""


def open_plain(path: Path) -> BinaryIO:
    """A plain file, open for reading.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_plain(path: Path, limit: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        OSError: it cannot be read, is something else, or is longer than `limit`.
    """
    with open_plain(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return data


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their ends.

    Raises:
        ValueError: one is longer than any that we write.
    """
    while line := file.readline(LINE_LIMIT + 1):
        if len(line) > LINE_LIMIT:
            raise ValueError(f"a line of more than {LINE_LIMIT:,} bytes")
        yield line
