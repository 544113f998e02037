"""`celeba:DIR`: CelebA in its official layout and partitions. Reads below DIR.

DIR/img_align_celeba/NNNNNN.jpg
DIR/list_attr_celeba.txt         count, the names of 40 attributes, then `NNNNNN.jpg -1 1 …`
DIR/list_eval_partition.txt      `NNNNNN.jpg 0`: 0 train, 1 validation, 2 test

Copies on the web hold the lists as CSV instead, with a header and no count, and the images in a folder more of the same
name; they are read too.
"""

import os
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_deploy.storage.plain import read_plain

from ..cache import decoded_images
from .dataset import Dataset, Partition, fingerprint_of
from .selection import select

SIZE_LIMIT = 256 << 20
"""Bytes of a list; the official ones have 27 million at most."""
ATTRIBUTES, PARTITIONS, IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"

PAPER_LABELS = (
    "Arched_Eyebrows",
    "Bags_Under_Eyes",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Eyeglasses",
    "Heavy_Makeup",
    "Male",
    "No_Beard",
    "Pale_Skin",
    "Receding_Hairline",
    "Smiling",
    "Wavy_Hair",
    "Wearing_Necktie",
    "Young",
)
"""The 18 attributes of the paper."""


@dataclass(frozen=True)
class Attributes:
    """The parsed attribute file.

    Attributes:
        files: the image names, in file order.
        names: the chosen attributes.
        values: (N, L) of 0 and 1.
    """

    files: list[str]
    names: tuple[str, ...]
    values: NDArray[np.int8]


def open_celeba(source: str, folder: Path, labels: Sequence[str] | None, spec: ImageSpec) -> Dataset:
    """Read labels and partitions, check that every image is there, decode into the cache.

    Raises:
        DataError: a file is missing, does not parse, or does not agree with another.
        LabelError: an unknown label.
    """
    root, attributes, parts = read_celeba(folder, labels or PAPER_LABELS)
    place = images_of(root)
    paths = [place / attributes.files[row] for rows in parts for row in rows]
    images, fingerprint = decoded_images("celeba", place, paths, spec)
    label_set = LabelSet(labels=tuple(Label(name=name) for name in attributes.names))
    return Dataset.of(source, label_set, spec, images, [attributes.values[rows] for rows in parts], fingerprint)


def celeba_test(folder: Path, labels: Sequence[str] | None, spec: ImageSpec) -> tuple[Partition, str]:
    """The official test partition and its fingerprint; see `open_celeba` for arguments and errors."""
    root, attributes, (rows,) = read_celeba(folder, labels or PAPER_LABELS, (2,))
    place = images_of(root)
    images, fingerprint = decoded_images("celeba", place, [place / attributes.files[row] for row in rows], spec)
    values = attributes.values[rows]
    return Partition(images, values), fingerprint_of(fingerprint, attributes.names, values)


def read_celeba(
    folder: Path, labels: Sequence[str], numbers: Sequence[int] = (0, 1)
) -> tuple[Path, Attributes, list[NDArray[np.intp]]]:
    """The folder of the attribute file, what it says, and the rows of some partitions; every image of those is there.

    Args:
        numbers: 0 trains, 1 validates, 2 tests.

    Raises:
        DataError: as `open_celeba`.
        LabelError: an unknown label.
    """
    root = find_root(folder)
    attributes = read_attributes(_list(root, ATTRIBUTES), labels)
    partitions = _list(root, PARTITIONS)
    partition = read_partitions(partitions, attributes.files)
    _refuse_missing(images_of(root), attributes.files, np.isin(partition, numbers))
    parts = [np.flatnonzero(partition == number) for number in numbers]
    for rows, number in zip(parts, numbers, strict=True):
        if not len(rows):
            name = ("training", "validation", "test")[number]
            raise DataError(f"{partitions} names no {name} image (partition {number})")
    return root, attributes, parts


def find_root(folder: Path) -> Path:
    """The folder that holds the attribute file: DIR itself, or DIR/celeba.

    Raises:
        DataError: neither does; the message says what was looked for.
    """
    for root in (folder, folder / "celeba"):
        if _list(root, ATTRIBUTES).is_file():
            for path in (_list(root, PARTITIONS), root / IMAGES):
                if not path.exists():
                    raise DataError(f"{path} is missing; the official CelebA layout has it beside {ATTRIBUTES}")
            return root
    raise DataError(f"no {ATTRIBUTES} in {folder} or {folder / 'celeba'}; expected the official CelebA layout")


def _list(root: Path, name: str) -> Path:
    """One of the two lists: as text, or as CSV where that alone is there."""
    text, table = root / name, (root / name).with_suffix(".csv")
    return table if table.is_file() and not text.exists() else text


def images_of(root: Path) -> Path:
    """The folder that holds the images."""
    place = root / IMAGES
    return place / IMAGES if (place / IMAGES).is_dir() else place


def read_attributes(path: Path, labels: Sequence[str]) -> Attributes:
    """Parse `list_attr_celeba.txt`, or the same as CSV.

    Raises:
        DataError: names file, line and what was expected there.
        LabelError: an attribute that the file does not have.
    """
    data, is_table = _read(path), path.suffix == ".csv"
    lines = data.split(b"\n", 1 if is_table else 2)
    if not is_table and (len(lines) < 3 or not lines[0].strip().isdigit()):
        raise DataError(f"{path}, line 1: {_shown(lines[0])}; expected the number of images, then names, then rows")
    body, first_line = lines[-1], len(lines)
    if is_table:
        body = body.replace(b",", b" ")
        known = [_text(name.strip(), path, 1) for name in lines[0].split(b",")[1:]]
    else:
        known = [_text(name, path, 2) for name in lines[1].split()]
    chosen = select(known, labels)
    text, starts = _tokens(body)
    width = len(known) + 1
    # values hold no dot and file names do, so a row that is too long or too short cannot hide
    files = [] if not known or len(starts) % width else _words(text, starts[::width])
    if not files or not all(b"." in name for name in files):
        _refuse_ragged(path, body, width, first_line)
    if not is_table and len(files) != int(lines[0]):
        raise DataError(
            f"{path}: line 1 says {int(lines[0]):,} images, {len(files):,} rows follow; restore the whole file"
        )
    values = np.empty((len(files), len(chosen)), np.int8)
    for column, index in enumerate(chosen):
        at = starts[1 + index :: width]
        negative = text[at] == ord("-")
        digit = at + negative
        good = (text[digit] == ord("1")) & (text[digit + 1] <= ord(" "))
        if not good.all():
            row = int(np.argmin(good))
            seen = _shown(_words(text, at[[row]])[0])
            raise DataError(f"{path}, line {row + first_line}, {known[index]}: {seen}; expected 1 or -1")
        values[:, column] = ~negative
    return Attributes(_file_names(path, files, first_line), tuple(known[index] for index in chosen), values)


def read_partitions(path: Path, files: Sequence[str]) -> NDArray[np.int8]:
    """The partition of every file, 0, 1 or 2, in the order of `files`.

    Raises:
        DataError: a row that does not parse, or names that differ from those of the attribute file.
    """
    data, first_line = _read(path), 1
    if path.suffix == ".csv":
        data, first_line = data.partition(b"\n")[2].replace(b",", b" "), 2
    tokens = data.split()
    names, numbers = tokens[::2], tokens[1::2]
    if len(names) != len(numbers) or not set(numbers) <= {b"0", b"1", b"2"}:
        row = next((i for i, n in enumerate(numbers) if n not in (b"0", b"1", b"2")), len(numbers))
        raise DataError(f"{path}, line {row + first_line}: expected a file name and a partition of 0, 1 or 2")
    place = dict(zip(_file_names(path, names, first_line), numbers, strict=True))
    missing = [name for name in files if name not in place]
    if missing or len(place) != len(files):
        what = (missing or sorted(place.keys() - set(files)))[0]
        raise DataError(
            f"{path} and the attribute file name different images, such as {what}; take both from the same release"
        )
    return np.array([place[name] for name in files]).astype(np.int8)


def _tokens(body: bytes) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The bytes, ended by blanks, and where each word begins. Words are found by comparing whole arrays: the official
    file has eight million of them.
    """
    text = np.frombuffer(b" " + body + b"  ", np.uint8)
    inside = text > ord(" ")
    return text, np.flatnonzero(inside[1:] & ~inside[:-1]) + 1


def _words(text: NDArray[np.uint8], starts: NDArray[np.intp]) -> list[bytes]:
    """The words that begin at `starts`."""
    data = text.tobytes()
    return [data[start : start + 120].split(None, 1)[0] for start in starts]


def _refuse_missing(place: Path, files: Sequence[str], needed: NDArray[np.bool_]) -> None:
    present = {entry.name for entry in os.scandir(place)}
    missing = [row for row, name in enumerate(files) if needed[row] and name not in present]
    if missing:
        raise DataError(
            f"{place / files[missing[0]]} is missing (row {missing[0] + 1}; {len(missing):,} images in all); "
            "unpack img_align_celeba again"
        )


def _refuse_ragged(path: Path, body: bytes, width: int, first_line: int) -> None:
    for number, line in enumerate(body.splitlines(), start=first_line):
        cells = line.split()
        if cells and (len(cells) != width or b"." not in cells[0]):
            raise DataError(f"{path}, line {number}: {len(cells)} fields; expected a file name and {width - 1} values")
    raise DataError(f"{path}: no rows of a file name and {width - 1} values")


def _file_names(path: Path, names: Sequence[bytes], first_line: int) -> list[str]:
    """Names as text; one with a folder in it, or one given twice, is refused."""
    try:
        text = b"\n".join(names).decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a file name that is not ASCII; expected names such as 000001.jpg") from error
    decoded = text.split("\n") if names else []
    if "/" in text or "\\" in text or ".." in text:
        row = next(i for i, name in enumerate(decoded) if "/" in name or "\\" in name or ".." in name)
        raise DataError(f"{path}, line {row + first_line}: {decoded[row]!r} is no plain file name")
    if len(set(decoded)) != len(decoded):
        raise DataError(f"{path} names an image twice; take the file from the official release")
    return decoded


def _read(path: Path) -> bytes:
    """A list without the mark that some editors put before UTF-8, and without the quotes of CSV; no name holds one."""
    try:
        data = read_plain(path, SIZE_LIMIT).removeprefix(BOM_UTF8)
        return data.replace(b'"', b"") if path.suffix == ".csv" else data
    except OSError as error:
        raise DataError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _text(name: bytes, path: Path, line: int) -> str:
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {line}: {_shown(name)} is no attribute name") from error


def _shown(value: bytes) -> str:
    return repr(value[:40].decode("ascii", "replace").strip())
