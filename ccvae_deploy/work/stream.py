"""Read images ahead of the work that needs them, in order, with bounded memory. Reads files, writes nothing."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import images
from ..errors import ImageError, UsageError
from ..folder import Source
from ..images import Picture
from ..machine.resources import usable_cores
from ..receipts import Failure
from ..schema import ImageSpec

T = TypeVar("T")

PIXELS_AHEAD = 16_000_000


class Room:
    """How many pictures may wait: two while they are large or nothing is known of them, up to `most` while small.

    Args:
        most: pictures of any size.
        pixels: of all that wait, were they all like the larger ones of late.
    """

    def __init__(self, most: int, pixels: int) -> None:
        self._most, self._pixels, self._large = most, pixels, pixels

    def saw(self, pixels: int) -> None:
        """Take note of a picture; a large one is forgotten over some dozens of small ones."""
        self._large = max(pixels, self._large * 15 // 16, 1)

    @property
    def count(self) -> int:
        """Pictures that may wait now."""
        return max(2, min(self._most, self._pixels // self._large))


@dataclass(frozen=True)
class Seen:
    """A source as the encoder sees it.

    Attributes:
        digest: sha256 of the file's bytes.
        pixels: float32 (C, S, S) in [0, 1].
        frame: size, mode and format of the picture.
    """

    source: Source
    digest: str
    pixels: NDArray[np.float32]
    frame: Picture


def see(source: Source, spec: ImageSpec, max_pixels: int = images.MAX_PIXELS) -> Seen:
    """Read one source for the encoder; the picture itself is let go.

    Raises:
        ImageError: it cannot be read as an image.
    """
    data = images.read_file(source.path)
    picture = images.decode(data, max_pixels=max_pixels)
    pixels = images.network_input(picture, spec)
    return Seen(source, hashlib.sha256(data).hexdigest(), pixels, images.frame_of(picture))


def read_ahead(
    sources: Iterable[Source],
    read: Callable[[Source], T],
    *,
    workers: int | None = None,
    weigh: Callable[[T], int] = lambda _: 0,
) -> Iterator[T | Failure]:
    """What `read` gives for each source, in order; a few dozen of them, or two per worker, wait at once.

    A source that cannot be read comes out as a `Failure` in its place.

    Args:
        weigh: pixels that are kept of what was read; large pictures are read ahead two at a time.
    """
    waiting: deque[tuple[Source, Future[T]]] = deque()
    todo = iter(sources)
    threads = workers or usable_cores()
    room = Room(max(32, 2 * threads), PIXELS_AHEAD)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(waiting) < room.count and (source := next(todo, None)) is not None:
                    waiting.append((source, pool.submit(read, source)))
                if not waiting:
                    return
                source, future = waiting.popleft()
                try:
                    result = future.result()
                except ImageError as error:
                    yield Failure.of(source.relative, error)
                    continue
                room.saw(weigh(result))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def chunks(items: Iterable[T], size: int, weigh: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter; one that weighs too many pixels closes early."""
    chunk: list[T] = []
    weight = 0
    for item in items:
        chunk.append(item)
        weight += weigh(item)
        if len(chunk) == size or weight > PIXELS_AHEAD:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def refuse_speed(batch_size: int = 16, workers: int | None = None) -> None:
    """Refuse a batch size or a number of workers that cannot work.

    Raises:
        UsageError: it is outside its range.
    """
    if not 1 <= batch_size <= 4096:
        raise UsageError(f"--batch-size {batch_size}: expected 1 to 4096")
    if workers is not None and not 1 <= workers <= 256:
        raise UsageError(f"--workers {workers}: expected 1 to 256")


def stack(seen: Sequence[Seen]) -> NDArray[np.float32]:
    """The network inputs of several sources, (N, C, S, S)."""
    return np.stack([one.pixels for one in seen])
