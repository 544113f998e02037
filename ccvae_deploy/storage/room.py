"""Room on a disk, taken before it is written through memory: a full disk would be a fatal signal there."""

import errno
import os


def take_room(handle: int, length: int) -> None:
    """Make an open file so many bytes long, all of which the disk has.

    Raises:
        OSError: it has not.
    """
    try:
        os.posix_fallocate(handle, 0, length)
    except (AttributeError, OSError) as error:
        # where a system or its disk cannot take room, the file is made as long, which may be all that is needed
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(handle, length)
