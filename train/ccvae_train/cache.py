"""Decoded images as memory-mapped uint8 arrays, built once per data set. Touches the cache folder only.

The folder is $CCVAE_CACHE, else $XDG_CACHE_HOME/ccvae-deploy, else ~/.cache/ccvae-deploy. An entry is a folder of
images.npy and index.json; it is built beside its place and renamed into it, so an interrupted build leaves nothing
that looks finished.
"""

import errno
import hashlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ccvae_deploy.errors import DataError
from ccvae_deploy.schema import Frozen, Sha256

Images = NDArray[np.uint8]
Shape = tuple[int, int, int, int]

IMAGES, INDEX = "images.npy", "index.json"
BUILDING = ".ccvae-building-"
ABANDONED_SECONDS = 24 * 3600.0
"""A build writes all the time, so one untouched for a day is dead wherever its process ran."""
HASHED_BYTES = 64 << 20


class Index(Frozen):
    """index.json: what images.npy must be, and the sha256 of its pixels in order."""

    version: Literal[1] = 1
    shape: Shape
    sha256: Sha256


@dataclass(frozen=True)
class CachedImages:
    """A whole entry of the cache.

    Attributes:
        images: (N, S, S, C) uint8, read-only and memory-mapped.
        sha256: of the pixels in order; two entries with the same value hold the same images.
    """

    images: Images
    sha256: str


def cache_root() -> Path:
    """Where caches lie.

    Raises:
        DataError: nothing names a folder and the user has no home.
    """
    if named := os.environ.get("CCVAE_CACHE"):
        return Path(named).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # the XDG rules say that a relative path is to be ignored
        return (base if base.is_absolute() else Path.home() / ".cache") / "ccvae-deploy"
    except RuntimeError as error:
        raise DataError("no home folder to keep decoded images in; set CCVAE_CACHE to a folder") from error


def cached_images(key: str, shape: Shape, fill: Callable[[Images], None]) -> CachedImages:
    """The entry of a key; `fill` makes its images when they are not there, not whole or of another shape.

    Raises:
        DataError: the cache folder cannot be written, or the disk is full. What `fill` raises passes through.
    """
    root = cache_root()
    place = root / key
    if found := _open(place, shape):
        return found
    with _one_line(root), _build_folder(root) as building:
        images = _reserve(building / IMAGES, shape)
        fill(images)
        images.flush()
        index = Index(shape=shape, sha256=_sha256(images))
        del images
        (building / INDEX).write_text(index.model_dump_json(), "utf-8")
        _install(building, place, shape)
    if found := _open(place, shape):
        return found
    raise DataError(f"{place} was changed while it was built; run again, or set CCVAE_CACHE to a folder of your own")


def _install(building: Path, place: Path, shape: Shape) -> None:
    """Put a finished build in its place, unless another process was quicker."""
    if _open(place, shape):
        return
    shutil.rmtree(place, ignore_errors=True)
    try:
        building.rename(place)
    except OSError:
        if not _open(place, shape):
            raise


def _open(place: Path, shape: Shape) -> CachedImages | None:
    """The entry when it is whole and what it is said to be."""
    try:
        index = Index.model_validate_json((place / INDEX).read_bytes())
        images = np.load(place / IMAGES, mmap_mode="r", allow_pickle=False)
    # a file cut short makes numpy raise ValueError or EOFError; pydantic's ValidationError is a ValueError too
    except (OSError, ValueError, EOFError, ValidationError):
        return None
    whole = index.shape == shape == images.shape and images.dtype == np.uint8
    return CachedImages(images, index.sha256) if whole else None


def _reserve(path: Path, shape: Shape) -> Images:
    """A writable array on disk with its space taken now: a memory-map that meets a full disk kills the process."""
    size = int(np.prod(shape))
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{size >> 20:,} MiB are needed, {free >> 20:,} MiB are free")
    images: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return images


def _sha256(images: Images) -> str:
    digest, flat = hashlib.sha256(), images.reshape(-1)
    for start in range(0, len(flat), HASHED_BYTES):
        digest.update(flat[start : start + HASHED_BYTES])
    return digest.hexdigest()


@contextmanager
def _one_line(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"decoded images cannot be cached in {root}: {reason}; make room, or set CCVAE_CACHE to another folder"
        ) from error


@contextmanager
def _build_folder(root: Path) -> Iterator[Path]:
    """A folder to build in, named after this machine and process; gone afterwards, as are those of dead processes."""
    root.mkdir(parents=True, exist_ok=True)
    _remove_dead_builds(root)
    building = root / f"{BUILDING}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _remove_dead_builds(root: Path) -> None:
    for folder in root.glob(f"{BUILDING}*"):
        host, _, process = folder.name.removeprefix(BUILDING).rpartition("-")[0].rpartition("-")
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except OSError:
            continue
        here = host == socket.gethostname() and process.isdigit()
        if (here and not _alive(int(process))) or time.time() - newest > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        # elsewhere than on posix os.kill would end it
        if os.name == "posix":
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
