"""Reading ahead: in order, many small pictures at once and few large ones, whatever came before."""

import threading
from pathlib import Path

import pytest

from ccvae_deploy.errors import ImageError
from ccvae_deploy.folder import Source
from ccvae_deploy.receipts import Failure
from ccvae_deploy.work.stream import PIXELS_AHEAD, Room, read_ahead

LARGE = 100_000_000


def test_room_is_for_two_until_small_pictures_are_seen_and_again_after_a_large_one() -> None:
    room = Room(32, 24_000_000)
    assert room.count == 2
    for _ in range(200):
        room.saw(64 * 64)
    assert room.count == 32
    room.saw(LARGE)
    assert room.count == 2
    for _ in range(200):
        room.saw(64 * 64)
    assert room.count == 32
    for _ in range(200):
        room.saw(3_000_000)
    assert room.count == 8


@pytest.mark.parametrize(("pixels", "most"), [(LARGE, 2), (PIXELS_AHEAD // 4, 4), (0, 40)])
def test_large_pictures_wait_two_at_a_time(pixels: int, most: int) -> None:
    begun, lock = [0], threading.Lock()

    def read(source: Source) -> int:
        with lock:
            begun[0] += 1
        return int(source.relative)

    sources = [Source(Path(str(i)), str(i)) for i in range(300)]
    waiting = []
    for taken, found in enumerate(read_ahead(sources, read, workers=20, weigh=lambda _: pixels)):
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
