"""Memory of pictures: in strips of rows, and on disk where a picture is large. Touches nameless temporary files only.

A large picture is decoded, changed and encoded strip by strip; its pixels lie in a temporary file, and only Pillow's
own copy, 4 bytes per pixel, is ever whole in memory, one at a time in all workers of a run.
"""

import contextlib
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..storage.room import take_room

if sys.platform != "win32":
    import fcntl

LARGE = 16_000_000
"""Pixels from which on a picture is large."""

STRIP = 1_000_000
"""Pixels of a strip of a large picture, or a single row where that has more."""


LARGE_AT_ONCE = 3
"""Large pictures in work at once in all processes of a run, from the source to its last output."""

_turn = threading.Lock()
_shared: list[int] = []
"""The open file on whose bytes the processes of a run lock places, where there are such processes."""


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
            take_room(file.fileno(), length)
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
    """Share these limits among processes that hold this open file, which is used for locks only."""
    _shared[:] = [handle]


@contextlib.contextmanager
def one_at_a_time(size: tuple[int, int]) -> Iterator[None]:
    """Held while Pillow has a whole large picture in memory, so that workers do not add them up."""
    if not is_large(size):
        yield
        return
    with _turn, _place(0, 1):
        yield


@contextlib.contextmanager
def few_at_a_time(sizes: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Held by a process while a large picture and its outputs are in work."""
    with _place(1, LARGE_AT_ONCE) if any(map(is_large, sizes)) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _place(first: int, count: int) -> Iterator[None]:
    """One of `count` places that processes share, where they share a file and the system can lock it."""
    taken: int | None = None
    with contextlib.suppress(OSError):
        taken = _taken(first, count)
    try:
        yield
    finally:
        if taken is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(_shared[0], fcntl.LOCK_UN, 1, taken)


def _taken(first: int, count: int) -> int | None:
    if not _shared or sys.platform == "win32":
        return None
    for place in range(first, first + count):
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.lockf(_shared[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return place
    place = first + os.getpid() % count
    fcntl.lockf(_shared[0], fcntl.LOCK_EX, 1, place)
    return place
