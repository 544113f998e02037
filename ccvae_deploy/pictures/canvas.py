"""Memory of pictures: in strips of rows, and on disk where a picture is large. Touches nameless temporary files only.

A large picture is decoded, changed and encoded strip by strip; its pixels lie in a temporary file, and only Pillow's
own copy, 4 bytes per pixel, is ever whole in memory, one at a time in all workers of a run.
"""

import contextlib
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

LARGE = 16_000_000
"""Pixels from which on a picture is large."""

STRIP = 1_000_000
"""Pixels of a strip of a large picture, or a single row where that has more."""


class _Turn:
    """Held by one thread of a process and, where processes share a file, by one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.shared: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self._lock_file("LOCK_EX")

    def __exit__(self, *_: object) -> None:
        self._lock_file("LOCK_UN")
        self._lock.release()

    def _lock_file(self, how: str) -> None:
        if self.shared is not None:
            # not everywhere, but neither are such processes
            import fcntl

            fcntl.lockf(self.shared, getattr(fcntl, how))


_turn = _Turn()


def is_large(size: tuple[int, int]) -> bool:
    """Whether a picture of this width and height is large."""
    return size[0] * size[1] >= LARGE


def strips(size: tuple[int, int]) -> list[tuple[int, int]]:
    """First and last row (exclusive) of each strip: one for an ordinary picture."""
    width, height = size
    rows = max(1, STRIP // width) if is_large(size) else height
    return [(top, min(height, top + rows)) for top in range(0, height, rows)]


def blank(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A new array of bytes (H, W) or (H, W, C), on disk where the picture is large.

    Raises:
        ImageError: the disk has no room for it.
    """
    if not is_large((shape[1], shape[0])):
        return np.empty(shape, np.uint8)
    length = int(np.prod(shape))
    try:
        with tempfile.TemporaryFile() as file:
            # room is taken now: a full disk would be a fatal signal later
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)
            return np.frombuffer(mmap.mmap(file.fileno(), length), np.uint8).reshape(shape)
    except OSError as error:
        raise ImageError(f"no room for a large picture in {tempfile.gettempdir()}: {error.strerror}") from error


def leave(*arrays: NDArray[np.uint8] | None) -> None:
    """Let go of the memory that strips of arrays on disk have taken; ordinary arrays are left alone."""
    for array in arrays:
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        inner = base.obj if isinstance(base, memoryview) else base
        if isinstance(inner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            inner.madvise(mmap.MADV_DONTNEED)


def take_turns(handle: int) -> None:
    """Let `one_at_a_time` hold for all processes that are given this open file, which has no other use."""
    _turn.shared = handle


@contextlib.contextmanager
def one_at_a_time(size: tuple[int, int]) -> Iterator[None]:
    """Held while Pillow has a whole large picture in memory, so that workers do not add them up."""
    with _turn if is_large(size) else contextlib.nullcontext():
        yield
