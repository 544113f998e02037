"""`mnist:DIR` and `fashion-mnist:DIR`: the four official idx files. Reads below DIR.

They lie in DIR, or where torchvision lays them: DIR/MNIST/raw and DIR/FashionMNIST/raw; plain or .gz, with `-` or `.`
before `idx`. Images of 28x28 are padded with black to 32x32. The 60,000 of the train files train; the 10,000 test
images validate, since those are what the paper reports on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError, UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet

from ..cache import cached_images, files_fingerprint
from .dataset import Dataset
from .idx import read_idx
from .selection import select

SIDE, PADDING = 28, 2
IMAGE = ImageSpec(size=32, channels=1)
PARTS = ("train", "t10k")
FILES = tuple(f"{part}-{what}-ubyte" for part in PARTS for what in ("images-idx3", "labels-idx1"))


@dataclass(frozen=True)
class IdxSet:
    """A data set of four idx files.

    Attributes:
        kind: as in SOURCE.
        folder: torchvision's name of it.
        label: the one label.
        home: where its files are given away.
    """

    kind: str
    folder: str
    label: Label
    home: str


MNIST = IdxSet(
    kind="mnist",
    folder="MNIST",
    label=Label(name="digit", kind="categorical", classes=tuple("0123456789")),
    home="https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MNIST = IdxSet(
    kind="fashion-mnist",
    folder="FashionMNIST",
    label=Label(
        name="garment",
        kind="categorical",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    home="https://github.com/zalandoresearch/fashion-mnist",
)


def open_idx_set(which: IdxSet, source: str, folder: Path, labels: Sequence[str] | None, spec: ImageSpec) -> Dataset:
    """Read the four files, and bring the images into the cache.

    Raises:
        DataError: a file is missing, does not parse, or does not agree with another.
        LabelError: an unknown label.
        UsageError: another image than 32x32 in grey was asked for.
    """
    if spec.size != IMAGE.size:
        raise UsageError(f"--image-size {spec.size}: {which.kind} has images of 28x28, padded to 32; leave it out")
    if spec.channels != IMAGE.channels:
        raise UsageError(f"--channels {spec.channels}: {which.kind} is grey; leave it out")
    if labels:
        select([which.label.name], labels)
    files = _all_files(which, folder)
    values = [read_labels(files[f"{part}-labels-idx1-ubyte"], which.label)[:, None] for part in PARTS]
    images, fingerprint = _images(which, [files[f"{part}-images-idx3-ubyte"] for part in PARTS], values)
    return Dataset.of(source, LabelSet(labels=(which.label,)), spec, images, values, fingerprint)


def locate(which: IdxSet, folder: Path) -> tuple[Path, dict[str, Path]]:
    """The folder that holds the files, and those of the four that are there, by official name.

    Where none is there, the folder is torchvision's.
    """
    raw = folder / which.folder / "raw"
    for root in (folder, raw):
        found = {}
        for name in FILES:
            spellings = (name, name.replace("-idx", ".idx"))
            places = (root / f"{spelling}{packed}" for packed in ("", ".gz") for spelling in spellings)
            if place := next(filter(Path.is_file, places), None):
                found[name] = place
        if found:
            return root, found
    return raw, {}


def read_labels(path: Path, label: Label) -> NDArray[np.int8]:
    """The class of each image, (N,).

    Raises:
        DataError: the file does not parse, or holds a number that is no class.
    """
    values = read_idx(path)
    if (values >= len(label.classes)).any():
        row = int(np.argmax(values >= len(label.classes)))
        raise DataError(f"{path}, item {row}: class {values[row]}; expected 0 to {len(label.classes) - 1}")
    return values.astype(np.int8)


def _all_files(which: IdxSet, folder: Path) -> dict[str, Path]:
    root, files = locate(which, folder)
    missing = [name for name in FILES if name not in files]
    if not files:
        raise DataError(
            f"no {FILES[0]}[.gz] in {folder} or {root}; expected the four official files: "
            f"`ccvae-deploy data {which.kind} {folder}` fetches them"
        )
    if missing:
        raise DataError(
            f"{root / missing[0]}[.gz] is missing ({len(missing)} of 4 files); "
            f"`ccvae-deploy data {which.kind} {folder}` fetches what is missing"
        )
    return files


def _images(which: IdxSet, paths: Sequence[Path], labels: Sequence[NDArray[np.int8]]) -> tuple[NDArray[np.uint8], str]:
    """Training, then validation images, (N, 32, 32, 1), and a fingerprint of their files."""
    fingerprint = files_fingerprint(paths[0].parent, paths)
    inside = slice(PADDING, PADDING + SIDE)

    def fill(array: NDArray[np.uint8]) -> None:
        start = 0
        for path, of in zip(paths, labels, strict=True):
            found = read_idx(path, SIDE, SIDE)
            if len(found) != len(of):
                raise DataError(
                    f"{path} holds {len(found):,} images for {len(of):,} labels; fetch the four files again"
                )
            # the array of a new file is black where nothing is written
            array[start : start + len(found), inside, inside, 0] = found
            start += len(found)

    shape = (sum(map(len, labels)), IMAGE.size, IMAGE.size, IMAGE.channels)
    return cached_images(f"{which.kind}-{fingerprint[:24]}", shape, fill), fingerprint
