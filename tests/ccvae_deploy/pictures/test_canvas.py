"""Strips cover a picture once; arrays on disk are arrays like others."""

import errno
import itertools
import os
import threading

import numpy as np
import pytest

from ccvae_deploy.errors import ImageError
from ccvae_deploy.pictures import canvas


def test_an_ordinary_picture_is_one_strip_in_memory() -> None:
    assert canvas.strips((4000, 3000)) == [(0, 3000)]
    assert canvas.blank((3, 4)).base is None


@pytest.mark.parametrize("size", [(10_000, 10_000), (20_000_000, 1), (1, 20_000_000), (5000, 3201)])
def test_strips_cover_a_large_picture_once(size: tuple[int, int]) -> None:
    found = canvas.strips(size)
    assert found[0][0] == 0
    assert found[-1][1] == size[1]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert all((end - top) * size[0] <= max(canvas.STRIP, size[0]) for top, end in found)


def test_a_large_array_keeps_what_is_written_when_its_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "LARGE", 10)
    array = canvas.blank((50, 40, 3))
    assert array.shape == (50, 40, 3)
    values = np.random.default_rng(0).integers(0, 256, array.shape, dtype=np.uint8)
    array[:] = values
    canvas.leave(array[3:9], None, values)
    assert (array == values).all()


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(canvas, "LARGE", 10)
    monkeypatch.setattr(canvas.os, "posix_fallocate", full)
    with pytest.raises(ImageError, match="no room for a large picture"):
        canvas.blank((50, 40))


def test_large_pictures_take_turns_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()

    def enter(size: tuple[int, int]) -> threading.Thread:
        def body() -> None:
            with canvas.one_at_a_time(size):
                entered.set()

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    large, small = (10_000, 10_000), (10, 10)
    with canvas.one_at_a_time(large):
        enter(small).join(5)
        assert entered.is_set()
        entered.clear()
        waiting = enter(large)
        assert not entered.wait(0.05)
    waiting.join(5)
    assert entered.is_set()
