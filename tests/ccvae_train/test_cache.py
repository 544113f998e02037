"""The cache: built once, whole or absent, rebuilt when it does not fit."""

import errno
import os
import platform
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy.errors import DataError
from ccvae_deploy.images import network_input
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.schema import ImageSpec
from ccvae_train import cache
from ccvae_train.cache import cached_images, decoded_images
from ccvae_train.datasets import embedded
from ccvae_train.datasets.source import open_dataset

HERE = quote(platform.node(), safe="").replace(".", "%2E")
SHAPE = (3, 2, 2, 3)


def test_fills_once_and_gives_a_read_only_map(own_cache: Path) -> None:
    calls = []

    def fill(array) -> None:
        calls.append(1)
        array[:] = 7

    for _ in range(2):
        found = cached_images("key", SHAPE, fill)
        assert isinstance(found, np.memmap)
        assert (found == 7).all()
        assert not found.flags.writeable
    assert len(calls) == 1


def test_an_interrupted_build_leaves_nothing(own_cache: Path) -> None:
    def fill(array) -> None:
        array[0] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_images("key", SHAPE, fill)
    assert not any(own_cache.iterdir())


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_cache_is_built_again(own_cache: Path, damage: bytes | None) -> None:
    cached_images("key", SHAPE, lambda array: array.fill(1))
    (path,) = own_cache.rglob("images.npy")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert (cached_images("key", SHAPE, lambda array: array.fill(2)) == 2).all()
    assert (cached_images("key", (1, 2, 2, 3), lambda array: array.fill(3)) == 3).all()


def test_a_cache_of_another_version_is_built_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_images("key", SHAPE, lambda array: array.fill(1))
    monkeypatch.setattr(cache, "LAYOUT_VERSION", cache.LAYOUT_VERSION + 1)
    assert (cached_images("key", SHAPE, lambda array: array.fill(2)) == 2).all()
    assert len(list(own_cache.rglob("images.npy"))) == 2


def test_builds_of_dead_processes_are_removed(own_cache: Path) -> None:
    dead, elsewhere = (own_cache / f".other-v1.abc.{machine}.999999999" for machine in (HERE, f"not-{HERE}"))
    dead.mkdir()
    elsewhere.mkdir()
    cached_images("key", SHAPE, lambda array: array.fill(1))
    assert not dead.exists()
    assert elsewhere.exists()


def test_a_process_of_the_same_number_on_another_machine_is_in_nobodys_way(own_cache: Path) -> None:
    def fill(array) -> None:
        (beside,) = own_cache.glob(".key-*")
        assert beside.name.endswith(f".{HERE}.{os.getpid()}")
        inner = cached_images("key", SHAPE, lambda twin: twin.fill(2))
        assert (inner == 2).all()
        assert beside.is_dir()
        array.fill(1)

    assert (cached_images("key", SHAPE, fill) == 2).all()


def test_a_full_disk_is_one_line(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"MiB are free in .*set CCVAE_CACHE"):
        cached_images("key", SHAPE, lambda array: array.fill(1))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot take room")
def test_a_disk_that_fills_up_later_than_asked_is_one_line_too(own_cache: Path, monkeypatch) -> None:
    """Writing through memory would end in a fatal signal, so the room is taken first."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot write the cache in .*: No space left on device; make room"):
        cached_images("key", SHAPE, lambda _: pytest.fail("nothing is written"))
    assert not list(own_cache.rglob("*.npy"))


def test_images_are_cached_as_the_network_sees_them(tmp_path: Path, own_cache: Path) -> None:
    rng = np.random.default_rng(0)
    exact = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(exact).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "b.png")
    spec = ImageSpec(size=32)
    images, fingerprint = decoded_images("made", tmp_path, [tmp_path / "a.png", tmp_path / "b.png"], spec)
    assert (images[0] == exact).all()
    seen = network_input(decode((tmp_path / "b.png").read_bytes()), spec)
    assert np.abs(images[1] / 255 - seen.transpose(1, 2, 0)).max() < 1e-6
    Image.fromarray(exact[::-1]).save(tmp_path / "a.png")
    again, other = decoded_images("made", tmp_path, [tmp_path / "a.png", tmp_path / "b.png"], spec)
    assert other != fingerprint
    assert (again[0] == exact[::-1]).all()


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path, own_cache: Path) -> None:
    paths = [tmp_path / folder / "0.bmp" for folder in ("dark", "light")]
    for level, path in zip((10, 240), paths, strict=True):
        path.parent.mkdir()
        Image.new("RGB", (32, 32), (level,) * 3).save(path)
        os.utime(path, (1, 1))
    for order, levels in ((paths, [10, 240]), (paths[::-1], [240, 10])):
        images, _ = decoded_images("made", tmp_path, order, ImageSpec(size=32))
        assert images[:, 0, 0, 0].tolist() == levels


def test_portraits_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "TRAINING", 60)
    monkeypatch.setattr(embedded, "VALIDATION", 20)
    data = open_dataset("portraits", labels=["young", "smiling"])
    assert (len(data.train), len(data.valid)) == (60, 20)
    assert data.labels.names == ("young", "smiling")
    monkeypatch.setattr(embedded, "portraits", None)
    again = open_dataset("portraits", labels=["young", "smiling"])
    assert (again.valid.images == data.valid.images).all()
    assert again.fingerprint == data.fingerprint
