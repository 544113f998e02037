"""CelebA's official layout, its quirks, and every way in which its files can disagree."""

import contextlib
import time
import zipfile
from codecs import BOM_UTF8
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy.errors import CCVAEError, DataError, LabelError, UsageError
from ccvae_train.datasets import source
from ccvae_train.datasets.celeba import PAPER_LABELS, read_attributes, read_partitions
from ccvae_train.datasets.source import open_dataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")

ATTRIBUTES = b"3\r\nSmiling Young  Male \r\n000003.jpg -1  1 -1\r\n000007.jpg  1 -1 -1\r\n000009.jpg  1  1  1\r\n"
PARTITIONS = b"000003.jpg 0\r\n000007.jpg 1\r\n000009.jpg 2\r\n"


def layout(folder: Path, attributes: bytes = ATTRIBUTES, partitions: bytes = PARTITIONS) -> Path:
    (folder / "img_align_celeba").mkdir(parents=True)
    (folder / "list_attr_celeba.txt").write_bytes(attributes)
    (folder / "list_eval_partition.txt").write_bytes(partitions)
    for number in (3, 7):
        Image.new("RGB", (178, 218), (number, 0, 0)).save(folder / "img_align_celeba" / f"{number:06d}.jpg")
    return folder


@pytest.mark.parametrize("nested", ["", "celeba"])
def test_official_layout_with_its_quirks(tmp_path: Path, nested: str) -> None:
    layout(tmp_path / nested)
    data = open_dataset(f"celeba:{tmp_path}", labels=["male", "smiling"], size=32)
    assert data.labels.names == ("Male", "Smiling")
    assert data.train.labels.tolist() == [[0, 0]]
    assert data.valid.labels.tolist() == [[0, 1]]
    assert data.train.images.shape == (1, 32, 32, 3)
    assert abs(int(data.valid.images[0, 0, 0, 0]) - 7) <= 2


def test_the_test_partition_is_read_when_asked_for(tmp_path: Path) -> None:
    layout(tmp_path)
    asked = {"labels": ["Male"], "size": 32, "channels": 3}
    with pytest.raises(DataError, match=r"000009\.jpg is missing"):
        source.test_partition(f"celeba:{tmp_path}", **asked)
    Image.new("RGB", (178, 218), (9, 0, 0)).save(tmp_path / "img_align_celeba" / "000009.jpg")
    found, _ = source.test_partition(f"celeba:{tmp_path}", **asked)
    assert found.labels.tolist() == [[1]]
    assert abs(int(found.images[0, 0, 0, 0]) - 9) <= 2
    with pytest.raises(UsageError, match="portraits has no test partition"):
        source.test_partition("portraits", **asked)


def as_tables(folder: Path) -> Path:
    """The layout of copies on the web."""
    layout(folder / "img_align_celeba")
    heads = {"list_attr_celeba": b"image_id,Smiling,Young,Male\r\n", "list_eval_partition": b"image_id,partition\n"}
    for name, head in heads.items():
        text = folder / "img_align_celeba" / f"{name}.txt"
        rows = [line.split() for line in text.read_bytes().splitlines() if b".jpg" in line]
        (folder / f"{name}.csv").write_bytes(head + b"\n".join(b",".join(row) for row in rows) + b"\n")
        text.unlink()
    return folder


def test_lists_as_some_editors_write_them(tmp_path: Path) -> None:
    """With a mark before UTF-8, and in CSV with quotes around every cell."""
    tables = as_tables(tmp_path / "tables")
    for path in tables.glob("*.csv"):
        lines = path.read_bytes().splitlines()
        quoted = (b",".join(b'"%s"' % cell for cell in line.split(b",")) for line in lines)
        path.write_bytes(BOM_UTF8 + b"\r\n".join(quoted) + b"\r\n")
    layout(tmp_path / "text")
    for path in (tmp_path / "text").glob("*.txt"):
        path.write_bytes(BOM_UTF8 + path.read_bytes())
    for folder in (tables, tmp_path / "text"):
        data = open_dataset(f"celeba:{folder}", labels=["male", "smiling"], size=32)
        assert (data.train.labels.tolist(), data.valid.labels.tolist()) == ([[0, 0]], [[0, 1]])


def test_lists_as_csv_and_a_folder_more(tmp_path: Path) -> None:
    data = open_dataset(f"celeba:{as_tables(tmp_path)}", labels=["male", "smiling"], size=32)
    assert data.labels.names == ("Male", "Smiling")
    assert (data.train.labels.tolist(), data.valid.labels.tolist()) == ([[0, 0]], [[0, 1]])
    assert abs(int(data.valid.images[0, 0, 0, 0]) - 7) <= 2
    table = tmp_path / "list_attr_celeba.csv"
    for old, new, message in (
        (b"000007.jpg,1,-1,-1", b"000007.jpg,1,0,-1", r"list_attr_celeba\.csv, line 3, Young: '0'; expected 1 or -1"),
        (b"000007.jpg,1,-1,-1", b"000007.jpg,1,-1", r"list_attr_celeba\.csv, line 3: 3 fields"),
    ):
        whole = table.read_bytes()
        table.write_bytes(whole.replace(old, new))
        with pytest.raises(DataError, match=message):
            open_dataset(f"celeba:{tmp_path}", labels=["Smiling", "Young"], size=32)
        table.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"3\r\n", b"4\r\n", "line 1 says 4 images, 3 rows follow"),
        (b"3\r\n", b"three\r\n", "line 1: 'three'"),
        (b"000007.jpg  1 -1 -1", b"000007.jpg  1 -1", "line 4: 3 fields"),
        (b"000007.jpg  1 -1 -1", b"000007.jpg  1 0 -1", "line 4, Young: '0'; expected 1 or -1"),
        (b"000007.jpg", b"../007.jpg", r"line 4: '\.\./007\.jpg' is no plain file name"),
        (b"000007.jpg", b"000003.jpg", "names an image twice"),
        (b"000007.jpg", b"000008.jpg", "name different images"),
    ],
)
def test_attribute_files_that_do_not_agree(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    layout(tmp_path, ATTRIBUTES.replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"celeba:{tmp_path}", labels=["Smiling", "Young"], size=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        (b"000003.jpg 0\n000007.jpg 3\n000009.jpg 2\n", "line 2: expected a file name and a partition"),
        (b"000003.jpg 0\n000007.jpg 1\n", "name different images, such as 000009"),
        (b"000003.jpg 0\n000007.jpg 0\n000009.jpg 2\n", "names no validation image"),
        (b"000003.jpg 1\n000007.jpg 1\n000009.jpg 2\n", "names no training image"),
        (b"000003.jpg 0\n000007.jpg 1\n000009.jpg 0\n", r"000009\.jpg is missing \(row 3; 1 images in all"),
    ],
)
def test_partition_files_that_do_not_agree(tmp_path: Path, partitions: bytes, message: str) -> None:
    layout(tmp_path, partitions=partitions)
    with pytest.raises(DataError, match=message):
        open_dataset(f"celeba:{tmp_path}", labels=["Smiling"], size=32)


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no list_attr_celeba\.txt in"):
        open_dataset(f"celeba:{tmp_path}")
    (tmp_path / "list_attr_celeba.txt").write_bytes(ATTRIBUTES)
    with pytest.raises(DataError, match=r"list_eval_partition\.txt is missing"):
        open_dataset(f"celeba:{tmp_path}")


def test_unknown_attribute(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="did you mean Smiling"):
        open_dataset(f"celeba:{layout(tmp_path)}", labels=["smile"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60) | st.from_regex(rb"[0-3]\n(A|B|C| ){1,6}\n(a\.jpg|b\.jpg| |1|-1|\n){0,20}", fullmatch=True)
)
def test_any_bytes_end_in_labels_or_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "list_attr_celeba.txt"
    path.write_bytes(data)
    with contextlib.suppress(CCVAEError):
        found = read_attributes(path, ["A"])
        assert found.values.shape == (len(found.files), 1)
    with contextlib.suppress(CCVAEError):
        read_partitions(path, ["a.jpg"])


@needs_data
def test_the_whole_official_annotation_parses_in_two_seconds(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "celeba-annotations-full.zip") as archive:
        archive.extractall(tmp_path)
    (attributes,), (partitions,) = tmp_path.rglob("list_attr_celeba.txt"), tmp_path.rglob("list_eval_partition.txt")
    times = []
    for _ in range(3):
        began = time.process_time()
        found = read_attributes(attributes, PAPER_LABELS)
        numbers = read_partitions(partitions, found.files)
        times.append(time.process_time() - began)
    assert min(times) < 2
    assert np.bincount(numbers).tolist() == [162_770, 19_867, 19_962]
    train = found.values[numbers == 0].mean(axis=0)
    assert train[PAPER_LABELS.index("Smiling")] == pytest.approx(0.4797, abs=1e-4)
    assert train[PAPER_LABELS.index("Pale_Skin")] == pytest.approx(0.0430, abs=1e-4)


@needs_data
def test_real_faces_in_the_official_layout(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "celeba-sample.zip") as archive:
        archive.extractall(tmp_path)
    data = open_dataset(f"celeba:{tmp_path}", size=64)
    assert (len(data.train), len(data.valid)) == (400, 100)
    assert data.labels.names == PAPER_LABELS
    whole = read_attributes(tmp_path / "celeba" / "list_attr_celeba.txt", ["Smiling", "Eyeglasses", "Young"])
    assert whole.values.sum(axis=0).tolist() == [288, 45, 464]
    assert 60 < data.train.images.mean() < 190
