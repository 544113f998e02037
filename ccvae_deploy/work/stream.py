"""Read images ahead of the work that needs them, in order, with bounded memory. Reads files, writes nothing."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import images
from ..composer import Composer
from ..errors import ImageError
from ..folder import Source
from ..images import Picture
from ..machine.resources import usable_cores
from ..pictures.decoding import decode
from ..receipts import Failure
from ..storage.source_file import read_file

T = TypeVar("T")
Item = TypeVar("Item")

PIXELS_AHEAD = 24_000_000
"""Pixels that may wait, read."""
MOST_AHEAD = 32
"""Pictures that may wait, of any size."""
CHUNK = 16_000_000
"""Pixels that close a chunk."""


@dataclass(frozen=True)
class Seen:
    """A source as the encoder sees it.

    Attributes:
        digest: sha256 of the file's bytes.
        pixels: float32 (C, S, S) in [0, 1].
        picture: at its own size, or the frame of one that is let go.
    """

    source: Source
    digest: str
    pixels: NDArray[np.float32]
    picture: Picture


def see(composer: Composer, source: Source, data: bytes) -> Seen:
    """A source decoded; `data` are its bytes.

    Raises:
        ImageError: it cannot be read as an image.
    """
    picture = decode(data, max_pixels=composer.max_pixels)
    pixels = images.network_input(picture, composer.bundle.manifest.image)
    return Seen(source, hashlib.sha256(data).hexdigest(), pixels, picture)


def area_of(one: object) -> int:
    """Pixels that are kept of what was read: none of a source that is passed over or has failed."""
    return one.picture.area if isinstance(one, Seen) else 0


def by_batches(
    composer: Composer,
    sources: Iterable[Source],
    of: Callable[[Composer, Sequence[Seen]], Sequence[T]],
    *,
    workers: int | None,
) -> Iterator[T | Failure]:
    """What is made of each source by its pixels alone, or why it cannot be read, in order, a batch in memory at a time.

    Args:
        of: makes it of a batch of sources, at least one.
    """

    def read(source: Source) -> Seen:
        seen = see(composer, source, read_file(source.path))
        return replace(seen, picture=images.frame_of(seen.picture))

    for group in chunks(read_ahead(sources, read, workers=workers), composer.batch_size):
        good = [one for one in group if isinstance(one, Seen)]
        made = iter(of(composer, good) if good else ())
        for one in group:
            yield one if isinstance(one, Failure) else next(made)


def read_ahead(
    sources: Iterable[Source],
    read: Callable[[Source], T],
    *,
    workers: int | None = None,
    weigh: Callable[[T], int] | None = None,
) -> Iterator[T | Failure]:
    """What `read` gives for each source, in order, read by threads of their own; see `each_read`.

    A source that cannot be read comes out as a `Failure` in its place.
    """
    threads = workers or usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for source, found in each_read(sources, read, pool, threads, weigh=weigh):
                yield Failure.of(source.relative, found) if isinstance(found, ImageError) else found
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def each_read(
    items: Iterable[Item],
    read: Callable[[Item], T],
    pool: ThreadPoolExecutor,
    threads: int,
    *,
    weigh: Callable[[T], int] | None,
) -> Iterator[tuple[Item, T | ImageError]]:
    """Each item with what `read` gives for it, or why it gives nothing, in order and read ahead.

    Args:
        threads: of the pool.
        weigh: pixels that are kept of what was read; None where it keeps no picture.
    """
    waiting: deque[tuple[Item, Future[T]]] = deque()
    todo, room = iter(items), Room(threads, weigh)
    while True:
        while room.for_one_more([future for _, future in waiting]) and (item := next(todo, None)) is not None:
            waiting.append((item, pool.submit(read, item)))
        if not waiting:
            return
        item, future = waiting.popleft()
        found = _result(future)
        room.saw(found)
        yield item, found


def _result(future: Future[T]) -> T | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error


class Room(Generic[T]):
    """How much may be read ahead: two pictures while they are large or nothing is known of them, many while small.

    Of pictures that are kept few may be in reading at once, since any of them may turn out to be large.
    """

    def __init__(self, threads: int, weigh: Callable[[T], int] | None) -> None:
        self._most = max(MOST_AHEAD, 2 * threads)
        self._weigh, self._unread = weigh, 4 * threads if weigh else self._most
        self._large = PIXELS_AHEAD if weigh else 0

    def saw(self, found: T | ImageError) -> None:
        """Take note of what was read; a large picture is forgotten over some dozens of small ones."""
        if self._weigh and not isinstance(found, ImageError):
            self._large = max(self._weigh(found), self._large * 15 // 16)

    def for_one_more(self, waiting: Sequence[Future[T]]) -> bool:
        """Whether another item may be read, were it like the larger ones of late."""
        if len(waiting) < 2 or len(waiting) >= self._most:
            return len(waiting) < 2
        unread = sum(not future.done() for future in waiting)
        kept = sum(map(self._kept, waiting))
        return unread < self._unread and kept + (unread + 1) * self._large <= PIXELS_AHEAD

    def _kept(self, future: Future[T]) -> int:
        if self._weigh is None or not future.done() or future.exception() is not None:
            return 0
        return self._weigh(future.result())


def chunks(items: Iterable[T], size: int, weigh: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter; one that weighs too many pixels closes early."""
    chunk: list[T] = []
    weight = 0
    for item in items:
        chunk.append(item)
        weight += weigh(item)
        if len(chunk) == size or weight > CHUNK:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def stack(seen: Sequence[Seen]) -> NDArray[np.float32]:
    """The network inputs of several sources, (N, C, S, S)."""
    return np.stack([one.pixels for one in seen])
