"""CheXpert's official layout, its uncertain values, and every way in which its files can be wrong."""

import contextlib
import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy.errors import DataError, LabelError, UsageError
from ccvae_train.datasets.chexpert import FINDINGS, PAPER_LABELS, read_views
from ccvae_train.datasets.source import open_dataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "nih-chestxray14-64"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")

NAME = "CheXpert-v1.0-small"
HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]


def row(place: str, view: str = "Frontal", **findings: str) -> list[str]:
    values = [findings.get(name.replace(" ", "_"), "") for name in FINDINGS]
    return [f"{NAME}/{place}", "Female", "61", view, "AP" if view == "Frontal" else "", *values]


TRAIN = [
    row("train/patient00001/study1/view1_frontal.jpg", Cardiomegaly="1.0", Edema="-1.0", No_Finding="0.0"),
    row("train/patient00001/study1/view2_lateral.jpg", "Lateral", Cardiomegaly="1.0"),
    row("train/patient00002/study1/view1_frontal.jpg", Pleural_Effusion="0.0", Fracture="1.0"),
    row("train/patient00002/study2/view1_frontal.jpg", Consolidation="-1.0", Atelectasis="1.0"),
]
VALID = [row("valid/patient64541/study1/view1_frontal.jpg", Edema="1.0")]


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    path.write_text(text.getvalue())


def layout(root: Path, train: Sequence[list[str]] = TRAIN, valid: Sequence[list[str]] | None = VALID) -> Path:
    """The lists, and for each frontal view a grey image as bright as its place in them."""
    for name, rows in (("train.csv", train), ("valid.csv", valid)):
        if rows is None:
            continue
        root.mkdir(parents=True, exist_ok=True)
        write_csv(root / name, rows)
        for number, cells in enumerate(rows):
            place = root / cells[0].partition("/")[2]
            if cells[3] == "Frontal":
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (40, 32), 20 * number % 256).save(place)
    return root


def test_the_full_release_lies_in_batches(tmp_path: Path) -> None:
    lists = layout(tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")
    for number, patient in enumerate(("patient00001", "patient00002"), 2):
        batch = tmp_path / f"CheXpert-v1.0 batch {number} (train {number - 1})"
        batch.mkdir()
        (lists / "train" / patient).rename(batch / patient)
    (lists / "train").rmdir()
    (tmp_path / "link").symlink_to(lists)
    for folder in (tmp_path, lists, tmp_path / "link"):
        data = open_dataset(f"chexpert:{folder}")
        assert np.abs(data.train.images[:, 0, 0, 0] - np.array([0, 40, 60])).max() <= 2
        assert len(data.valid.images) == 1
    (batch / "patient00002/study2/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=r"batch 3 \(train 2\)/patient00002/study2.* is missing \(1 of 3 images"):
        open_dataset(f"chexpert:{tmp_path}")


@pytest.mark.parametrize("nested", ["", NAME, "CheXpert-v1.0"])
def test_the_paper_s_five_labels_of_frontal_views(tmp_path: Path, nested: str) -> None:
    layout(tmp_path / nested)
    data = open_dataset(f"chexpert:{tmp_path}")
    assert data.labels.names == PAPER_LABELS
    assert data.train.images.shape == (3, 64, 64, 1)
    assert np.abs(data.train.images[:, 0, 0, 0] - np.array([0, 40, 60])).max() <= 2
    assert data.train.labels.tolist() == [[1, -1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, -1, 1, 0]]
    assert data.valid.labels.tolist() == [[0, 1, 0, 0, 0]]
    assert data.train.labels.dtype == np.int8


@pytest.mark.parametrize(("policy", "value"), [("zeros", 0), ("ones", 1), ("ignore", -1)])
def test_uncertain_values(tmp_path: Path, policy: str, value: int) -> None:
    data = open_dataset(f"chexpert:{layout(tmp_path)}", uncertain=policy, labels=["edema", "consolidation"], size=32)
    assert data.train.labels.tolist() == [[value, 0], [0, 0], [0, value]]


def test_policies_differ_in_fingerprint(tmp_path: Path) -> None:
    layout(tmp_path)
    prints = {open_dataset(f"chexpert:{tmp_path}", uncertain=policy).fingerprint for policy in ("zeros", "ones", None)}
    assert len(prints) == 3


def test_colour_and_any_of_the_findings(tmp_path: Path) -> None:
    data = open_dataset(f"chexpert:{layout(tmp_path)}", labels=["fracture", "no finding"], channels=3, size=32)
    assert data.labels.names == ("Fracture", "No Finding")
    assert data.train.images.shape == (3, 32, 32, 3)
    assert data.train.labels.tolist() == [[0, 0], [1, 0], [0, 0]]
    with pytest.raises(LabelError, match="did you mean Pneumothorax"):
        open_dataset(f"chexpert:{tmp_path}", labels=["pneumotorax"])


def test_without_valid_csv_a_tenth_of_the_patients_validates_by_seed(tmp_path: Path) -> None:
    rows = [row(f"train/patient{i // 3:05d}/study{i % 3}/view1_frontal.jpg") for i in range(60)]
    layout(tmp_path, rows, None)
    first, again, other = (open_dataset(f"chexpert:{tmp_path}", size=32, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.valid)) == (54, 6)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_patients_are_on_one_side(tmp_path: Path) -> None:
    rows = [row(f"train/patient{i % 4:05d}/study{i}/view1_frontal.jpg") for i in range(12)]
    layout(tmp_path, rows, None)
    data = open_dataset(f"chexpert:{tmp_path}", size=32)
    sides = [{round(int(image[0, 0, 0]) / 20) % 4 for image in part.images} for part in (data.train, data.valid)]
    assert len(sides[0]) == 3
    assert len(sides[1]) == 1
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[0].__setitem__(0, f"{NAME}/train/../../secret.jpg"),
            r"row 2: .*secret\.jpg'; expected a path",
        ),
        (lambda rows: rows[0].__setitem__(0, "/etc/passwd"), "row 2: '/etc/passwd'; expected a path such as"),
        (lambda rows: rows[3].__setitem__(0, rows[2][0]), "row 5: .* stands in row 4 already"),
        (lambda rows: rows[2].__setitem__(3, "Back"), "row 4, Frontal/Lateral: 'Back'; expected Frontal or Lateral"),
        (lambda rows: rows[2].__setitem__(5 + 2, "maybe"), "row 4, Cardiomegaly: 'maybe'; expected 1.0, 0.0, -1.0"),
        (lambda rows: rows[2].pop(), "row 4: 18 fields, the header has 19"),
        (lambda rows: [cells.__setitem__(3, "Lateral") for cells in rows], "lists no frontal view"),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path: Path, change, message: str) -> None:
    layout(tmp_path)
    rows = [list(cells) for cells in TRAIN]
    change(rows)
    write_csv(tmp_path / "train.csv", rows)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"chexpert:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert "train.csv" in str(caught.value)


def test_a_patient_in_both_lists_is_refused(tmp_path: Path) -> None:
    layout(tmp_path, TRAIN, [*VALID, row("train/patient00002/study1/view1_frontal.jpg")])
    with pytest.raises(DataError, match=r"both have views of patient00002; leave its rows out of one"):
        open_dataset(f"chexpert:{tmp_path}")


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    root = layout(tmp_path / "data")
    secret = tmp_path / "secret.jpg"
    Image.new("L", (32, 32)).save(secret)
    view = root / "train/patient00002/study1/view1_frontal.jpg"
    view.unlink()
    view.symlink_to(secret)
    with pytest.raises(DataError, match="lies outside"):
        open_dataset(f"chexpert:{root}")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.csv in"):
        open_dataset(f"chexpert:{tmp_path}")
    layout(tmp_path / NAME)
    (tmp_path / NAME / "train/patient00002/study2/view1_frontal.jpg").unlink()
    with pytest.raises(DataError, match=r"study2/view1_frontal\.jpg' is missing \(1 of 3"):
        open_dataset(f"chexpert:{tmp_path}")
    layout(tmp_path / "CheXpert-v1.0")
    with pytest.raises(DataError, match=r"holds CheXpert-v1\.0 and CheXpert-v1.0-small; give one"):
        open_dataset(f"chexpert:{tmp_path}")
    (tmp_path / "CheXpert-v1.0" / "train.csv").write_text("Path,Frontal/Lateral,Edema\n")
    with pytest.raises(DataError, match="row 1: expected one column Cardiomegaly"):
        open_dataset(f"chexpert:{tmp_path / 'CheXpert-v1.0'}")


def test_one_patient_leaves_none_to_validate(tmp_path: Path) -> None:
    layout(tmp_path, TRAIN[:1], None)
    with pytest.raises(DataError, match="one patient"):
        open_dataset(f"chexpert:{tmp_path}")


def test_other_sets_have_no_uncertain_labels() -> None:
    with pytest.raises(UsageError, match="--uncertain zeros: portraits has no uncertain labels"):
        open_dataset("portraits", uncertain="zeros")


CELLS = st.sampled_from(
    ["Frontal", "Lateral", "1.0", "-1.0", "", "nan", "train/patient1/study1/a.jpg", "../a.jpg", "é"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.lists(st.lists(CELLS, min_size=2, max_size=4).map(",".join), max_size=4).map(
        lambda rows: "\n".join(["Path,Frontal/Lateral,Edema", *rows]).encode()
    )
)
def test_any_bytes_end_in_views_or_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        views = read_views(path, ["Edema"], "ignore")
        assert views.values.shape == (len(views.files), 1)
        assert set(views.files) == {"train/patient1/study1/a.jpg"}


@needs_data
def test_real_radiographs_in_the_official_layout(tmp_path: Path) -> None:
    """NIH ChestX-ray14 laid out as CheXpert, since CheXpert itself may not be passed on."""
    with zipfile.ZipFile(DATA / "images.zip") as archive, (DATA / "labels.csv").open(newline="") as table:
        lists: dict[str, list[list[str]]] = {"train": [], "valid": []}
        for cells in csv.DictReader(table):
            part = "train" if cells["split"] == "train" else "valid"
            patient, view = cells["file"].removesuffix(".png").split("_")
            place = f"{part}/patient{patient[-5:]}/study{view}/view1_frontal.png"
            known = {name: cells["Effusion" if name == "Pleural Effusion" else name] for name in PAPER_LABELS}
            findings = {name.replace(" ", "_"): "1.0" if value == "1" else "" for name, value in known.items()}
            lists[part].append(row(place, **findings))
            path = tmp_path / NAME / place
            path.parent.mkdir(parents=True)
            path.write_bytes(archive.read(cells["file"]))
    for part, rows in lists.items():
        write_csv(tmp_path / NAME / f"{part}.csv", rows)
    data = open_dataset(f"chexpert:{tmp_path}")
    assert (len(data.train), len(data.valid)) == (603, 397)
    totals = data.train.labels.sum(axis=0) + data.valid.labels.sum(axis=0)
    assert dict(zip(data.labels.names, totals.tolist(), strict=True)) == {
        "Cardiomegaly": 83,
        "Edema": 31,
        "Consolidation": 42,
        "Atelectasis": 95,
        "Pleural Effusion": 170,
    }
    assert 60 < data.train.images.mean() < 190
