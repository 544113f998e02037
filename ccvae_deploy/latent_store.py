"""Latents of a folder in one safetensors file, so that a folder is encoded once. Reads and writes that one file.

| tensor              | shape, type        | holds                                                      |
|---------------------|--------------------|------------------------------------------------------------|
| `z_loc`, `z_scale`  | (N, Z) float32     | q(z|x)                                                     |
| `before`            | (N, Y) float32     | label probabilities at the posterior mean                  |
| `control`           | (N,) float32       | mean |input - reconstruction|, in levels of 255            |
| `sha256`            | (N, 32) uint8      | of each source's bytes                                     |
| `size`              | (N, 2) int32       | width and height of each source, upright                   |
| `kind`              | (N, 2) uint8       | its channels, 1 or 3, and its place in `FORMATS`           |
| `paths`             | (P,) uint8         | all relative paths one after the other, as bytes           |
| `path_ends`         | (N,) int64         | where each path ends in `paths`                            |

Rows are in the order of the paths' bytes. Names stand in a tensor because a header of safetensors is bounded. The
header's metadata hold `format`, `schema_version` and `bundle`, the digest of the bundle that made the latents.
Version 1 had neither `size` nor `kind`.
"""

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .bundle import Bundle
from .composer import Composer, Encoded
from .errors import UsageError
from .images import MAX_SIDE, MOST_PIXELS, Format, Picture, frame
from .schema import LATENTS_FORMAT
from .storage.new_file import new_file
from .storage.remote import local_path

SCHEMA_VERSION = "2"
FORMATS: tuple[tuple[Format, bool], ...] = (
    *(("png", False), ("jpeg", False), ("webp", False), ("avif", False)),
    ("webp", True),
)
"""What `--format same` makes of a source, and whether without loss."""
STEP, MAX_PATH = 4096, 4096
TENSORS: dict[str, tuple[str, str]] = {
    "z_loc": ("F32", "<f4"),
    "z_scale": ("F32", "<f4"),
    "before": ("F32", "<f4"),
    "control": ("F32", "<f4"),
    "sha256": ("U8", "u1"),
    "size": ("I32", "<i4"),
    "kind": ("U8", "u1"),
    "paths": ("U8", "u1"),
    "path_ends": ("I64", "<i8"),
}


@dataclass(frozen=True)
class LatentRow:
    """What is stored of one source: z_loc and z_scale (Z,), label probabilities (Y,), the model's blur, its frame."""

    source: str
    source_sha256: str
    z_loc: Array
    z_scale: Array
    before: Array
    control: float
    frame: Picture


class LatentWriter:
    """Takes rows in the order of their paths; made by `LatentWriter.create`."""

    def __init__(self, spools: Mapping[str, IO[bytes]]) -> None:
        self._spools, self._count, self._end = spools, 0, 0

    @classmethod
    @contextmanager
    def create(cls, path: Path | str, bundle: Bundle, *, overwrite: bool = False) -> Iterator[Self]:
        """A file that appears at `path` when the block ends well. Rows wait on disk, so memory stays flat.

        Raises:
            WriteError: as `new_file`.
        """
        path, layout, labels = local_path(path), bundle.manifest.layout, bundle.manifest.labels
        with new_file(path, overwrite=overwrite) as stream, ExitStack() as opened:
            spools = {name: opened.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in TENSORS}
            writer = cls(spools)
            yield writer
            n = writer._count
            shapes: dict[str, tuple[int, ...]] = {
                **dict.fromkeys(("z_loc", "z_scale"), (n, layout.size)),
                "before": (n, labels.width),
                "control": (n,),
                "sha256": (n, 32),
                **dict.fromkeys(("size", "kind"), (n, 2)),
                "paths": (writer._end,),
                "path_ends": (n,),
            }
            stream.write(_header(bundle.digest, shapes))
            for name in _order():
                spools[name].seek(0)
                shutil.copyfileobj(spools[name], stream, 1 << 20)

    def add(self, row: LatentRow) -> None:
        """Append one row."""
        path, frame = os.fsencode(row.source), row.frame
        self._count, self._end = self._count + 1, self._end + len(path)
        for name, values in (
            ("z_loc", row.z_loc),
            ("z_scale", row.z_scale),
            ("before", row.before),
            ("control", row.control),
            ("size", frame.size),
            ("kind", (frame.channels, FORMATS.index((frame.format, frame.lossless)))),
            ("path_ends", self._end),
        ):
            self._spools[name].write(np.asarray(values, TENSORS[name][1]).tobytes())
        self._spools["sha256"].write(bytes.fromhex(row.source_sha256))
        self._spools["paths"].write(path)


class LatentStore:
    """An open file of latents, checked; rows are read when they are asked for.

    >>> store = LatentStore.open("latents.safetensors", composer.bundle)          # doctest: +SKIP
    >>> row = store.row("anna.jpg")                                             # doctest: +SKIP
    """

    def __init__(self, file: Any, count: int) -> None:
        self._tensors = {name: file.get_slice(name) for name in TENSORS}
        self._count = count

    def __len__(self) -> int:
        return self._count

    @classmethod
    def open(cls, path: Path | str, bundle: Bundle) -> Self:
        """Open and verify latents that a bundle has made.

        Raises:
            UsageError: no such file, other tensors, shapes or types, values that are not finite, paths out of order,
                or latents of another bundle.
        """
        path = local_path(path)
        file, count = _opened(path, bundle)
        store = cls(file, count)
        try:
            store._verify()
        except ValueError as error:
            raise UsageError(f"{path} is damaged: {error}; encode again") from error
        return store

    def row(self, relative: str) -> LatentRow | None:
        """What is stored of a source, or None."""
        wanted, low, high = os.fsencode(relative), 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._path(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return self._row(low) if low < self._count and self._path(low) == wanted else None

    @property
    def paths(self) -> Iterator[str]:
        """The sources' relative paths, in order."""
        return (os.fsdecode(self._path(index)) for index in range(self._count))

    def __iter__(self) -> Iterator[LatentRow]:
        """All rows, in the order of their paths."""
        return (self._row(index) for index in range(self._count))

    def _row(self, index: int) -> LatentRow:
        at = {name: self._tensors[name][index : index + 1][0] for name in TENSORS if name != "paths"}
        return LatentRow(
            source=os.fsdecode(self._path(index)),
            source_sha256=bytes(at["sha256"]).hex(),
            z_loc=at["z_loc"],
            z_scale=at["z_scale"],
            before=at["before"],
            control=float(at["control"]),
            frame=_frame(at["size"].tolist(), at["kind"].tolist()),
        )

    def _path(self, index: int) -> bytes:
        ends = self._tensors["path_ends"][max(index - 1, 0) : index + 1]
        first = int(ends[0]) if index else 0
        return bytes(self._tensors["paths"][first : int(ends[-1])])

    def _verify(self) -> None:
        """Go through the values once, a few thousand rows at a time.

        Raises:
            ValueError: something in them cannot be.
        """
        last, end = b"", 0
        total = self._tensors["paths"].get_shape()[0]
        for start in range(0, self._count, STEP):
            stop = min(start + STEP, self._count)
            part = {name: self._tensors[name][start:stop] for name in TENSORS if name != "paths"}
            _refuse_values(part)
            ends: NDArray[np.int64] = part["path_ends"]
            if ends.min() < 0 or ends.max() > total:
                raise ValueError("path ends outside the paths")
            lengths = np.diff(ends, prepend=end)
            if lengths.min() < 1 or lengths.max() > MAX_PATH:
                raise ValueError(f"paths that are not of 1 to {MAX_PATH:,} bytes")
            text = bytes(self._tensors["paths"][end : int(ends[-1])])
            for first, after in pairwise([0, *(ends - end).tolist()]):
                path = text[first:after]
                if path <= last or b"\0" in path or not {b"", b".", b".."}.isdisjoint(path.split(b"/")):
                    raise ValueError("paths that are not relative or not in order")
                last = path
            end = int(ends[-1])
        if end != total:
            raise ValueError(f"{total - end:,} bytes of paths that belong to no row")


def encoded_rows(composer: Composer, rows: Sequence[LatentRow]) -> Encoded:
    """What `Composer.encode` gives of these sources, by the decoder alone; the same bits."""
    z = np.stack([row.z_loc for row in rows])
    return Encoded(
        z=z,
        before=np.stack([row.before for row in rows]),
        decoded=composer.batched(composer.bundle.decode, z),
        control=np.array([row.control for row in rows], np.float32),
    )


def _opened(path: Path, bundle: Bundle) -> tuple[Any, int]:
    """The file and its number of rows, its tensors' names, shapes and types as they must be."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        out = path if path.suffix.lower() == ".safetensors" else "latents.safetensors"
        raise UsageError(f"no latents at {path}; make them with `ccvae-deploy encode IMAGES --out {out}`")
    try:
        file: Any = safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no safetensors file ({error}); encode again") from error
    metadata = file.metadata() or {}
    if metadata.get("format") != LATENTS_FORMAT:
        raise UsageError(f"{path} holds no latents of `ccvae-deploy encode`; give a file that it made")
    if metadata.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{path} has another schema version than {SCHEMA_VERSION}; encode again")
    if set(file.keys()) != set(TENSORS):
        raise UsageError(f"{path} holds no latents of `ccvae-deploy encode`; give a file that it made")
    if metadata.get("bundle") != bundle.digest:
        raise UsageError(f"{path} was made with another bundle; encode again with this one")
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in TENSORS}
    types = {name: file.get_slice(name).get_dtype() for name in TENSORS}
    n, layout = shapes["control"][0] if shapes["control"] else -1, bundle.manifest.layout
    expected = {"z_loc": (n, layout.size), "z_scale": (n, layout.size), "before": (n, bundle.manifest.labels.width)}
    expected |= {"control": (n,), "path_ends": (n,), "paths": shapes["paths"][:1]}  # type: ignore[dict-item]
    expected |= {"sha256": (n, 32), "size": (n, 2), "kind": (n, 2)}
    if shapes != expected or types != {name: kind for name, (kind, _) in TENSORS.items()} or n < 1:
        raise UsageError(f"{path} holds tensors of other shapes or types than this bundle's latents; encode again")
    return file, n


def _refuse_values(part: dict[str, Any]) -> None:
    for name in ("z_loc", "z_scale", "before", "control"):
        if not np.isfinite(part[name]).all():
            raise ValueError(f"{name} has values that are not finite")
    if (part["z_scale"] <= 0).any():
        raise ValueError("z_scale has values that are not positive")
    if (part["before"] < 0).any() or (part["before"] > 1).any():
        raise ValueError("before has values that are no probabilities")
    size, kind = part["size"].astype(np.int64), part["kind"]
    if size.min() < 1 or size.max() > MAX_SIDE or size.prod(axis=1).max() > MOST_PIXELS:
        raise ValueError("size has values that no picture has")
    if not np.isin(kind[:, 0], (1, 3)).all() or kind[:, 1].max() >= len(FORMATS):
        raise ValueError("kind has values that no picture has")


def _frame(size: Sequence[int], kind: Sequence[int]) -> Picture:
    return frame((size[0], size[1]), kind[0], *FORMATS[kind[1]])


def _order() -> list[str]:
    """Tensors as they lie in the file: the widest type first, so that each is aligned."""
    return sorted(TENSORS, key=lambda name: -int(TENSORS[name][1][-1]))


def _header(digest: str, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The head of a safetensors file: its length in 8 bytes, then JSON, padded with blanks to a multiple of 8."""
    content: dict[str, Any] = {
        "__metadata__": {"format": LATENTS_FORMAT, "schema_version": SCHEMA_VERSION, "bundle": digest},
    }
    at = 0
    for name in _order():
        kind, code = TENSORS[name]
        size = int(np.prod(shapes[name], dtype=np.int64)) * np.dtype(code).itemsize
        content[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(content, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
