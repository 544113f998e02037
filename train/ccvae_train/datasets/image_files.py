"""The image files that a list of a data set names: check that they are there, then decode them into the cache.

Reads the files, and writes to the cache folder only.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError, ImageError
from ccvae_deploy.images import decode, network_input, read_file
from ccvae_deploy.progress import progress
from ccvae_deploy.schema import ImageSpec

from ..cache import CachedImages, Images, Shape, cached_images

NAMED_FAILURES = 3
CHUNK = 64
"""Images per thread between two reports of progress."""


@dataclass(frozen=True)
class ImageFiles:
    """Images below a folder, in the order of the list that names them.

    Attributes:
        folder: what the names are relative to.
        names: with `/` between folders.
        listed: the text file that names them.
        lines: per name its line there, counted from 1 as editors do.
        remedy: what to do about a missing image.
    """

    folder: Path
    names: Sequence[str]
    listed: Path
    lines: Sequence[int]
    remedy: str

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> "ImageFiles":
        """The images at these positions."""
        names, lines = [self.names[row] for row in rows], [self.lines[row] for row in rows]
        return ImageFiles(self.folder, names, self.listed, lines, self.remedy)

    def where(self, row: int) -> str:
        """How a message names an image: its file, and where it is listed."""
        return f"{self.folder / self.names[row]} ({self.listed.name}, row {self.lines[row]})"

    def fingerprint(self) -> str:
        """sha256 over the folder and every file's name, size and time of change.

        Raises:
            DataError: an image is missing or is no file; names the first and says how many.
        """
        digest = hashlib.sha256(os.fsencode(self.folder.resolve()))
        place = os.fspath(self.folder)
        missing: list[int] = []
        for row, name in enumerate(self.names):
            try:
                status = os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118 — Path takes three times as long
            # a name that no file system takes is a ValueError
            except (OSError, ValueError):
                missing.append(row)
                continue
            if not stat.S_ISREG(status.st_mode):
                missing.append(row)
            digest.update(f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        if missing:
            which = "it alone" if len(missing) == 1 else f"and {len(missing) - 1:,} more"
            raise DataError(
                f"{self.where(missing[0])} is missing ({which} of {len(self):,} images in all); {self.remedy}"
            )
        return digest.hexdigest()


def decoded_images(kind: str, files: ImageFiles, spec: ImageSpec) -> CachedImages:
    """All images as the network sees them, from the cache, or decoded into it by as many threads as there are cores.

    Args:
        kind: names the entry of the cache and the progress bar.

    Raises:
        DataError: an image is missing or cannot be decoded (a training set must be whole), or no cache can be written.
    """
    key = f"{kind.replace(' ', '-')}-{spec.size}-{spec.mode.lower()}-{files.fingerprint()[:32]}"
    shape: Shape = (len(files), spec.size, spec.size, spec.channels)

    def fill(images: Images) -> None:
        failures: list[tuple[int, ImageError]] = []
        with progress(f"decode {kind}", len(files), "images") as bar:
            for row, pixels in enumerate(_decoded(files, spec)):
                if isinstance(pixels, ImageError):
                    failures.append((row, pixels))
                else:
                    images[row] = pixels
                bar.advance()
        if failures:
            raise DataError(_damaged(files, failures))

    return cached_images(key, shape, fill)


def _decoded(files: ImageFiles, spec: ImageSpec) -> Iterator[Images | ImageError]:
    """Every image in order, or why it cannot be decoded; bounded memory."""

    def one(name: str) -> Images | ImageError:
        try:
            seen = network_input(decode(read_file(files.folder / name)), spec)
        except ImageError as error:
            return error
        return np.rint(seen.transpose(1, 2, 0) * np.float32(255)).astype(np.uint8)

    threads = os.cpu_count() or 1
    names = iter(files.names)
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(names, CHUNK * threads)):
            yield from pool.map(one, chunk)


def _damaged(files: ImageFiles, failures: Sequence[tuple[int, ImageError]]) -> str:
    """One line on all images that cannot be decoded, so that they can be repaired in one go."""
    named = "; ".join(f"{files.where(row)}: {error}" for row, error in failures[:NAMED_FAILURES])
    more = f"; {len(failures) - NAMED_FAILURES:,} more" if len(failures) > NAMED_FAILURES else ""
    return f"{named}{more}; repair the files, or take their rows out of {files.listed.name}"
