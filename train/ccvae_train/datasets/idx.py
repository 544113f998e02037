"""idx files, plain or gzip: the arrays of bytes that MNIST and its kin come in. Reads the named file only."""

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError

UNSIGNED_BYTES = 8
SIZE_LIMIT = 1 << 28
"""Bytes of one array; the greatest official one has 47 million."""


def read_idx(path: Path, *sides: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, (N, *sides), read-only.

    The header is two zero bytes, the type, the number of dimensions, then each dimension as a big-endian 32-bit number.
    No more is read, or unpacked, than the header announces.

    Args:
        sides: the dimensions after the first, such as 28 and 28.

    Raises:
        DataError: no file, no idx file, other dimensions, or more or fewer bytes than its header says.
    """
    dimensions = 1 + len(sides)
    try:
        with _opened(path) as file:
            header = file.read(4 + 4 * dimensions)
            shape = _shape(path, header, sides)
            size = math.prod(shape)
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read: {reason.lower()}; fetch the file again") from error
    if len(body) != size:
        seen = "more" if len(body) > size else f"{len(body):,}"
        raise DataError(f"{path}: {seen} bytes follow a header that says {size:,}; fetch the file again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _opened(path: Path) -> BufferedIOBase:
    """The file, unpacked where its first bytes say that it is gzip, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _shape(path: Path, header: bytes, sides: tuple[int, ...]) -> tuple[int, ...]:
    expected = bytes((0, 0, UNSIGNED_BYTES, 1 + len(sides)))
    if header[:4] != expected:
        raise DataError(
            f"{path} begins with {header[:4].hex() or 'nothing'}; expected {expected.hex()}, an idx file of bytes "
            f"with {1 + len(sides)} dimension{'s' if sides else ''}"
        )
    if len(header) < 8 + 4 * len(sides):
        raise DataError(f"{path} ends in its header, after {len(header)} bytes; fetch the file again")
    count, *found = (int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
    if tuple(found) != sides:
        raise DataError(f"{path} holds items of {'x'.join(map(str, found))}; expected {'x'.join(map(str, sides))}")
    if not 1 <= count * math.prod(sides) <= SIZE_LIMIT:
        raise DataError(f"{path} says it holds {count:,} items; expected 1 to {SIZE_LIMIT // math.prod(sides):,}")
    return (count, *sides)
