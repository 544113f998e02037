"""The bytes of one image file, of this machine or behind a URL. Reads that file, writes nothing."""

import os

from ..errors import ImageError
from .plain import open_plain
from .remote import Place, Remote

MAX_BYTES = 512 << 20


def read_file(path: Place) -> bytes:
    """The bytes of a regular file, or of one behind a URL, of at most 512 MiB.

    Raises:
        ImageError: it cannot be read, is no regular file, is empty or is longer.
    """
    if isinstance(path, Remote):
        return path.read(MAX_BYTES)
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(f"{size:,} bytes, the limit is {MAX_BYTES:,}")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"unreadable: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        # a name with a zero byte
        raise ImageError(f"unreadable: {error}") from error
    if not data:
        raise ImageError("empty file")
    return data
