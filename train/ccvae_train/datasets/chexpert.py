"""`chexpert:DIR`: CheXpert in its official layout. Reads below DIR.

DIR, or a folder CheXpert-v1.0-small (or of another version) in it, holds
    train.csv, valid.csv             Path, Sex, Age, Frontal/Lateral, AP/PA, then 14 findings
    train/patient00001/study1/view1_frontal.jpg
or, as the full release comes, DIR holds the folders of its batches: the first has the lists and valid/, the others have
train/'s patients. Only frontal views are taken. valid.csv validates; where there is none, a tenth of the patients of
train.csv, drawn by seed. A finding is 1, 0, -1 (uncertain), or blank: not mentioned, by convention 0.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.errors import DataError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet

from ..cache import decoded_images
from ..config import Uncertain
from .dataset import MISSING, Dataset
from .listing import checked_paths, random_splits, read_rows
from .selection import select

DEFAULT_POLICY: Uncertain = "ignore"
IMAGE = ImageSpec(size=64, channels=1)
TRAIN, VALID = "train.csv", "valid.csv"
PATH, VIEW = "Path", "Frontal/Lateral"
BATCHES = "CheXpert-v1.0 batch *"

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
PAPER_LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five findings of the paper."""

PLACE = re.compile(r"(?:[^/\\]+/)?((?:train|valid)/(patient\d+)/study\d+/[^/\\\0]+\.(?:jpg|jpeg|png))")


@dataclass(frozen=True)
class Views:
    """The frontal views of a CSV file, row by row.

    Attributes:
        files: paths relative to the folder of the CSV file, or to that of the batches.
        patients: such as `patient00001`.
        values: (N, L): 0, 1, or -1 where the label is missing.
    """

    files: list[str]
    patients: list[str]
    values: NDArray[np.int8]

    def of(self, rows: NDArray[np.intp]) -> "Views":
        """Some of the rows."""
        return Views([self.files[row] for row in rows], [self.patients[row] for row in rows], self.values[rows])

    def moved(self, place: Callable[[str], str]) -> "Views":
        """These views with their files at other paths."""
        return Views([place(file) for file in self.files], self.patients, self.values)


def open_chexpert(
    source: str,
    folder: Path,
    labels: Sequence[str] | None,
    spec: ImageSpec,
    seed: int,
    uncertain: Uncertain,
) -> Dataset:
    """Read the lists, check that every image is there, decode into the cache.

    Raises:
        DataError: a file is missing, does not parse, or leads outside its folder.
        LabelError: an unknown label.
    """
    names = tuple(FINDINGS[index] for index in select(FINDINGS, labels or PAPER_LABELS))
    root, train, valid = read_chexpert(folder, names, seed, uncertain)
    paths = [root / file for part in (train, valid) for file in part.files]
    images, fingerprint = decoded_images("chexpert", root, paths, spec)
    label_set = LabelSet(labels=tuple(Label(name=name) for name in names))
    return Dataset.of(source, label_set, spec, images, [train.values, valid.values], fingerprint)


def read_chexpert(
    folder: Path, names: Sequence[str], seed: int = 0, uncertain: Uncertain = DEFAULT_POLICY
) -> tuple[Path, Views, Views]:
    """The folder below which the images lie, and the views that train and validate; every image is there.

    Raises:
        DataError: as `open_chexpert`.
    """
    lists = find_root(folder)
    root, place = _places_of_files(lists)
    train = read_views(lists / TRAIN, names, uncertain).moved(place)
    checked_paths(lists / TRAIN, train.files, root)
    if (lists / VALID).is_file():
        valid = read_views(lists / VALID, names, uncertain).moved(place)
        checked_paths(lists / VALID, valid.files, root)
        if both := set(train.patients) & set(valid.patients):
            raise DataError(f"{TRAIN} and {VALID} of {lists} both have views of {min(both)}; leave its rows out of one")
        return root, train, valid
    known, patient = np.unique(train.patients, return_inverse=True)
    if len(known) < 2:
        raise DataError(f"{lists / TRAIN} has views of one patient and {VALID} is missing; none is left to validate")
    splits = random_splits(len(known), seed)[patient]
    return root, train.of(np.flatnonzero(splits == 0)), train.of(np.flatnonzero(splits == 1))


def find_root(folder: Path) -> Path:
    """The folder that holds train.csv: DIR itself, or the one folder CheXpert… in it.

    Raises:
        DataError: none does, or more than one.
    """
    if (folder / TRAIN).is_file():
        return folder
    roots = sorted(path.parent for path in folder.glob(f"CheXpert*/{TRAIN}"))
    if len(roots) > 1:
        raise DataError(f"{folder} holds {' and '.join(root.name for root in roots)}; give one of them as DIR")
    if not roots:
        raise DataError(f"no {TRAIN} in {folder} or in a folder CheXpert-v1.0… in it; expected the official layout")
    return roots[0]


def _places_of_files(lists: Path) -> tuple[Path, Callable[[str], str]]:
    """The folder below which the files lie that the lists name, and where each lies there.

    The full release comes in batches: the first holds the lists and valid/, each other one some patients of train/.
    """
    first = lists.resolve()
    batches = [path for path in sorted(first.parent.glob(BATCHES)) if path != first and path.is_dir()]
    if (lists / "train").exists() or not batches:
        return lists, lambda file: file
    batch_of = {patient.name: batch.name for batch in batches for patient in batch.iterdir()}

    def place(file: str) -> str:
        part, patient, rest = file.split("/", 2)
        batch = batch_of.get(patient) if part == "train" else None
        return f"{batch}/{patient}/{rest}" if batch else f"{first.name}/{file}"

    return first.parent, place


def read_views(path: Path, names: Sequence[str], uncertain: Uncertain) -> Views:
    """Parse train.csv or valid.csv.

    Raises:
        DataError: names file, row, column and what was expected there.
    """
    rows = read_rows(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    for name in (PATH, VIEW, *names):
        if header.count(name) != 1:
            raise DataError(f"{path}, row 1: expected one column {name}, as the official file has it")
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: {len(row)} fields, the header has {len(header)}")
    view, place = header.index(VIEW), header.index(PATH)
    for number, row in rows[1:]:
        if row[view] not in ("Frontal", "Lateral"):
            raise DataError(f"{path}, row {number}, {VIEW}: {row[view][:40]!r}; expected Frontal or Lateral")
    frontal = [(number, row) for number, row in rows[1:] if row[view] == "Frontal"]
    if not frontal:
        raise DataError(f"{path} lists no frontal view")
    files, patients = _places(path, [(number, row[place]) for number, row in frontal])
    columns = [
        _finding(path, name, [(number, row[header.index(name)]) for number, row in frontal], uncertain)
        for name in names
    ]
    return Views(files, patients, np.stack(columns, axis=1))


def _places(path: Path, cells: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    """Files without the name of the release before them, and their patients."""
    first: dict[str, int] = {}
    patients = []
    for number, cell in cells:
        found = PLACE.fullmatch(cell)
        if found is None:
            raise DataError(
                f"{path}, row {number}: {cell[:80]!r}; expected a path such as "
                "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
            )
        if first.setdefault(found[1], number) != number:
            raise DataError(f"{path}, row {number}: {cell[:80]!r} stands in row {first[found[1]]} already; remove one")
        patients.append(found[2])
    return list(first), patients


def _finding(path: Path, name: str, cells: list[tuple[int, str]], uncertain: Uncertain) -> NDArray[np.int8]:
    counts_as = {"zeros": 0, "ones": 1, "ignore": MISSING}[uncertain]
    values = {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1, "-1.0": counts_as, "-1": counts_as}
    try:
        return np.array([values[cell] for _, cell in cells], np.int8)
    except KeyError:
        number, cell = next((number, cell) for number, cell in cells if cell not in values)
        raise DataError(f"{path}, row {number}, {name}: {cell[:40]!r}; expected 1.0, 0.0, -1.0 or blank") from None
