"""Room on a disk, taken before it is written through memory: a full disk would be a fatal signal there."""

import os


def take_room(handle: int, length: int) -> None:
    """Make an open file so many bytes long, all of which the disk has.

    Raises:
        OSError: it has not.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, length)
    else:
        os.ftruncate(handle, length)
