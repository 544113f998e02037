"""Reading ahead: in order, many small pictures at once and few large ones, whatever came before."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from ccvae_deploy.errors import ImageError
from ccvae_deploy.folder import Source
from ccvae_deploy.receipts import Failure
from ccvae_deploy.work.stream import CHUNK, PIXELS_AHEAD, Room, chunks, read_ahead

LARGE = 100_000_000


def futures(*pixels: int | None) -> list[Future[int]]:
    """Reads that have ended with pictures of so many pixels, or have not."""
    found = []
    for one in pixels:
        found.append(Future())
        if one is not None:
            found[-1].set_result(one)
    return found


def test_room_is_for_two_until_small_pictures_are_seen_and_again_after_a_large_one() -> None:
    def count() -> int:
        return next(n for n in range(100) if not room.for_one_more(futures(*[None] * n)))

    room = Room(8, lambda pixels: pixels)
    assert count() == 2
    for _ in range(300):
        room.saw(64 * 64)
    assert count() == 32
    room.saw(LARGE)
    assert count() == 2
    for _ in range(300):
        room.saw(3_000_000)
    assert count() == PIXELS_AHEAD // 3_000_000


def test_large_pictures_behind_small_ones_do_not_add_up() -> None:
    """What waits unread may be of any size, so it is little; and what has been read counts with its own size."""
    room = Room(2, lambda pixels: pixels)
    for _ in range(300):
        room.saw(64 * 64)
    small = [64 * 64] * 20
    assert room.for_one_more(futures(*small, *[None] * 7))
    assert not room.for_one_more(futures(*small, *[None] * 8))
    assert room.for_one_more(futures(12_000_000, *small))
    assert not room.for_one_more(futures(12_000_000, 12_000_000, *small))


@pytest.mark.parametrize(("pixels", "most"), [(LARGE, 2), (PIXELS_AHEAD // 4, 4), (0, 40), (None, 40)])
def test_large_pictures_wait_two_at_a_time(pixels: int | None, most: int) -> None:
    begun, lock = [0], threading.Lock()

    def read(source: Source) -> int:
        with lock:
            begun[0] += 1
        return int(source.relative)

    sources = [Source(Path(str(i)), str(i)) for i in range(300)]
    waiting = []
    for taken, found in enumerate(
        read_ahead(sources, read, workers=20, weigh=pixels if pixels is None else lambda _: pixels)
    ):
        assert found == taken
        waiting.append(begun[0] - taken)
    assert max(waiting) <= most + 1


def test_what_cannot_be_read_stands_in_its_place() -> None:
    def read(source: Source) -> str:
        if source.relative == "2":
            raise ImageError("no image")
        return source.relative

    found = list(read_ahead([Source(Path(str(i)), str(i)) for i in range(4)], read))
    assert [one for one in found if isinstance(one, str)] == ["0", "1", "3"]
    assert isinstance(found[2], Failure)
    assert found[2].reason == "no image"


def test_what_has_failed_already_takes_no_room() -> None:
    room = Room(8, lambda pixels: pixels)
    failed: Future[int] = Future()
    failed.set_exception(ImageError("no image"))
    room.saw(ImageError("no image"))
    room.saw(PIXELS_AHEAD // 4)
    for _ in range(300):
        room.saw(64 * 64)
    assert room.for_one_more([failed, failed, *futures(PIXELS_AHEAD // 2)])
    assert not room.for_one_more([failed, *futures(PIXELS_AHEAD)])


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_are_read_at_once_than_there_are_workers(workers: int) -> None:
    lock, at_once, most = threading.Lock(), [0], [0]

    def read(_: Source) -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.002)
        with lock:
            at_once[0] -= 1

    list(read_ahead([Source(Path(str(i)), str(i)) for i in range(20)], read, workers=workers))
    assert most[0] <= workers


def test_chunks_close_when_they_are_full_or_heavy() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
    weights = [CHUNK, 1, CHUNK // 2, CHUNK // 2, CHUNK + 1, 1]
    assert list(chunks(weights, 3, lambda weight: weight)) == [weights[:2], weights[2:5], weights[5:]]
