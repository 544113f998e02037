"""Decoded images as memory-mapped uint8 arrays, built once per data set. Touches the cache folder only.

The folder is $CCVAE_CACHE, else $XDG_CACHE_HOME/ccvae-deploy, else ~/.cache/ccvae-deploy. An entry is built beside its
place and renamed into it, so an interrupted build leaves nothing that looks finished.
"""

import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError, ImageError
from ccvae_deploy.images import network_input
from ccvae_deploy.machine.resources import usable_cores
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.schema import ImageSpec
from ccvae_deploy.storage.places import cache_root
from ccvae_deploy.storage.room import take_room
from ccvae_deploy.storage.source_file import read_file
from ccvae_deploy.terminal.progress import progress

Images = NDArray[np.uint8]

LAYOUT_VERSION = 1
IMAGES = "images.npy"


def cached_images(key: str, shape: tuple[int, int, int, int], fill: Callable[[Images], None]) -> Images:
    """The array of a key, read-only and memory-mapped; `fill` makes it when it is not there or does not fit.

    Raises:
        DataError: the cache folder cannot be written, or the disk is full.
    """
    root = cache_root()
    place = root / f"{key}-v{LAYOUT_VERSION}" / IMAGES
    if (found := _open(place, shape)) is not None:
        return found
    beside = root / f".{place.parent.name}.{secrets.token_hex(8)}{_owner()}"
    try:
        _remove_dead_builds(root)
        beside.mkdir(parents=True)
        _refuse_full_disk(root, int(np.prod(shape)))
        array = np.lib.format.open_memmap(beside / IMAGES, mode="w+", dtype=np.uint8, shape=shape)
        with (beside / IMAGES).open("r+b") as file:
            take_room(file.fileno(), file.seek(0, os.SEEK_END))
        fill(array)
        array.flush()
        del array
        if place.parent.exists():
            # another process was quicker, or what is there is damaged
            if (found := _open(place, shape)) is not None:
                return found
            shutil.rmtree(place.parent)
        beside.replace(place.parent)
    except OSError as error:
        if (found := _open(place, shape)) is not None:
            return found
        raise DataError(
            f"cannot write the cache in {root}: {error.strerror or error}; make room or set CCVAE_CACHE"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    found = _open(place, shape)
    assert found is not None
    return found


def decoded_images(kind: str, root: Path, paths: Sequence[Path], spec: ImageSpec) -> tuple[Images, str]:
    """All images below a root as the network sees them, (N, S, S, C) uint8, and the fingerprint of their files.

    Raises:
        DataError: an image is missing or cannot be decoded; a training set must be whole.
    """
    fingerprint = files_fingerprint(root, paths)
    shape = (len(paths), spec.size, spec.size, spec.channels)

    def pixels_of(path: Path) -> Images:
        try:
            seen = network_input(decode(read_file(path)), spec)
        except ImageError as error:
            raise DataError(f"{path}: {error}; repair the file or take its row out of the labels") from error
        return np.rint(seen.transpose(1, 2, 0) * 255).astype(np.uint8)

    def fill(array: Images) -> None:
        workers = usable_cores()
        with ThreadPoolExecutor(workers) as pool, progress(f"decode {kind}", len(paths), "images") as bar:
            for start in range(0, len(paths), 64 * workers):
                chunk = paths[start : start + 64 * workers]
                for row, pixels in enumerate(pool.map(pixels_of, chunk), start):
                    array[row] = pixels
                bar.advance(len(chunk))

    key = f"{kind}-{spec.size}-{spec.mode.lower()}-{fingerprint[:24]}"
    return cached_images(key, shape, fill), fingerprint


def files_fingerprint(root: Path, paths: Sequence[Path]) -> str:
    """sha256 over every file's path below a root, size and time of change.

    Raises:
        DataError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: {(error.strerror or 'missing').lower()}") from error
        digest.update(os.fsencode(path.relative_to(root)) + b"\0%d\0%d\0" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def _open(place: Path, shape: tuple[int, ...]) -> Images | None:
    """The array when it is whole and of the right shape and type."""
    try:
        array = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _refuse_full_disk(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if free < size + (64 << 20):
        raise DataError(f"the cache needs {size >> 20:,} MiB, {free >> 20:,} MiB are free in {root}; set CCVAE_CACHE")


def _owner() -> str:
    """The end of the name of a build: machine and process, since machines may share a cache."""
    return f".{quote(platform.node(), safe='').replace('.', '%2E')}.{os.getpid()}"


def _remove_dead_builds(root: Path) -> None:
    """Unfinished builds of this machine whose process is gone."""
    machine = _owner().rpartition(".")[0]
    for folder in root.glob(".*.*"):
        rest, _, owner = folder.name.rpartition(".")
        if rest.endswith(machine) and owner.isdigit() and int(owner) != os.getpid() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
