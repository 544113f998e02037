"""labels.csv: what it means, and one line for what it cannot mean."""

import contextlib
import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccvae_deploy.errors import CCVAEError, DataError, LabelError, UsageError, WriteError
from ccvae_train.datasets import source
from ccvae_train.datasets.portraits import portraits
from ccvae_train.datasets.source import open_dataset
from ccvae_train.datasets.table import read_table
from ccvae_train.datasets.writer import write_portraits


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def image(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (10 * i, 20, 30)).save(path)


def test_numbers_blanks_and_class_names(tmp_path: Path) -> None:
    found = read_table(
        table(tmp_path, "file,smiling,hat,hair,size\na.png,1,yes,red,\nb.png,0,no,Black,s\nc.png,,yes,blond,l\n")
    )
    assert found.files == ["a.png", "b.png", "c.png"]
    assert found.values.tolist() == [[1, 1, 2, -1], [0, 0, 0, 1], [-1, 1, 1, 0]]
    assert [label.kind for label in found.labels] == ["binary", "binary", "categorical", "binary"]
    assert found.labels[1].classes == ("no", "yes")
    assert found.labels[2].classes == ("Black", "blond", "red")


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    path = table(tmp_path, "file,age,smiling,id\na.png,31,1,x,\n".replace("x,", "x") + "b.png,40.5,0,y\n")
    found = read_table(path, ["Smiling"])
    assert [label.name for label in found.labels] == ["smiling"]
    assert found.values.tolist() == [[1], [0]]
    with pytest.raises(DataError, match=r"column age: '31'; .*choose the columns to learn with --labels"):
        read_table(path)


def test_numbers_as_others_write_them(tmp_path: Path) -> None:
    """A column with gaps becomes floating in pandas; CelebA has -1 and 1."""
    path = table(tmp_path, "file,hat,smiling,split\na.png,1.0,-1,0\nb.png,,1,1\nc.png,0.0,1,2\n")
    found = read_table(path)
    assert found.values.tolist() == [[1, 0], [-1, 1], [0, 1]]
    assert [label.classes for label in found.labels] == [("0", "1")] * 2
    assert found.splits is not None
    assert found.splits.tolist() == [0, 1, 2]


def test_the_rows_of_the_test_split(tmp_path: Path) -> None:
    image(tmp_path, "a.png", "b.png", "c.png")
    table(tmp_path, "file,smiling,split\na.png,1,train\nb.png,0,valid\nc.png,1,test\n")
    asked = {"labels": ["smiling"], "size": 32, "channels": 3}
    found, first = source.test_partition(f"table:{tmp_path}", **asked)
    table(tmp_path, "file,smiling,split\na.png,1,train\nb.png,0,valid\nc.png,0,test\n")
    assert source.test_partition(f"table:{tmp_path}", **asked)[1] != first
    assert (found.labels.tolist(), int(found.images[0, 0, 0, 0])) == ([[1]], 20)
    table(tmp_path, "file,smiling\na.png,1\nb.png,0\n")
    with pytest.raises(DataError, match="has no row whose split is test"):
        source.test_partition(f"table:{tmp_path}", **asked)


def test_whole_numbers_are_classes_where_they_were_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, "file,grade\na.png,10.0\nb.png,2\nc.png,\nd.png,0\n")
    found = read_table(path, ["grade"])
    assert found.labels[0].classes == ("0", "2", "10")
    assert found.labels[0].kind == "categorical"
    assert found.values.ravel().tolist() == [2, 1, -1, 0]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("3", "2.5"), r"row 3, column grade: '2\.5'; expected class names, or whole numbers of 0 or more"),
        (("-2", "2"), r"row 2, column grade: '-2'; expected class names, or whole numbers of 0 or more"),
        (("3", "3"), "column grade: '3' is its only class"),
        (("-1", "-1"), "column grade: '-1'; expected class names"),
    ],
)
def test_numbers_that_are_no_classes(tmp_path: Path, cells: tuple[str, str], message: str) -> None:
    rows = "".join(f"{name}.png,{cell}\n" for name, cell in zip("ab", cells, strict=True))
    with pytest.raises(DataError, match=message):
        read_table(table(tmp_path, f"file,grade\n{rows}"), ["grade"])


@pytest.mark.parametrize("header", ["smiling,Image", "smiling,path", "smiling,FILENAME"])
def test_the_file_column_may_stand_anywhere(tmp_path: Path, header: str) -> None:
    assert read_table(table(tmp_path, f"{header}\n1,a.png\n0,b.png\n")).files == ["a.png", "b.png"]


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, b'\xef\xbb\xbffile,smiling\r\n"a, b.png",1\r\n\r\n c.png , 0 \r\n'))
    assert found.files == ["a, b.png", "c.png"]
    assert found.values.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file,smiling\n", "a header and no rows"),
        ("file,hair=red\na.png,1\nb.png,0\n", "'hair=red' has = or a comma"),
        ("file\na.png\n", "header of file and one or more label names"),
        ("file;a\na.png;1\n", "row 1: 'file;a'; expected a header .* with commas between"),
        (",file,a\n0,a.png,1\n", "row 1: ',file,a'; expected a header .*, none of them blank"),
        ("file,split\na.png,train\n", "no label column"),
        ("file,a,A\na.png,1,0\n", "'a' and 'A' have one name"),
        ("file,a\na.png,1\nb.png\n", "row 3: 1 fields, the header has 2"),
        ("file,a\na.png,1\nb.png,2\n", r"row 3, column a: '2'"),
        ("file,a\na.png,1\nb.png,maybe\n", r"row 3, column a: 'maybe'; expected 0, 1 or blank"),
        ("file,a\na.png,nan\nb.png,1\n", r"row 2, column a: 'nan'"),
        ("file,a\na.png,1\nb.png,inf\n", r"row 3, column a: 'inf'"),
        ("file,a\na.png,yes\nb.png,NaN\n", r"row 3, column a: 'NaN'"),
        ("file,a\na.png,\nb.png,\n", "column a: every cell is blank"),
        ("file,a\na.png,yes\nb.png,yes\n", "'yes' is its only class"),
        ("file,a\na.png,\nb.png,yes\n", "'yes' is its only class"),
        ("file,a,a\na.png,1,0\n", "'a' and 'a' have one name"),
        ("file,a\na.png,1\na.png,0\n", "row 3: 'a.png' stands in row 2 already"),
        ("file,a\na.png,1\n./a.png,0\n", "row 3: './a.png' stands in row 2 already"),
        ("file,a\na.png,cat\nb.png,dog\nc.png,NA\n", "row 4, column a: 'NA'; leave the cell of a missing value blank"),
        ("file,a\n,1\n", "row 2: no file name"),
        ("file,a,split\na.png,1,later\n", "split 'later'; expected train, valid or test"),
        ("file,a,partition,split\na.png,1,0,train\n", "columns split and partition both say what validates"),
        (b"file,a\n\xff.png,1\n", "is not UTF-8"),
        (b"file,a\n\0,1\n", "NUL"),
        ('file,a\n"a.png,1\n', "row"),
    ],
)
def test_what_a_table_cannot_mean(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(table(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.from_regex(rb'(file|a|b|,|\n|"|1|0|yes|no|\.png| ){1,40}', fullmatch=True))
def test_any_bytes_end_in_a_table_or_one_line(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(DataError):
        found = read_table(table(tmp_path, data))
        assert found.values.shape == (len(found.files), len(found.labels))


def test_partitions_and_chosen_labels(tmp_path: Path) -> None:
    image(tmp_path, "a.png", "deep/b.png", "c.png", "d.png")
    table(tmp_path, "file,x,y,split\na.png,1,0,train\ndeep/b.png,0,,val\nc.png,1,1,train\nd.png,1,1,test\n")
    data = open_dataset(f"table:{tmp_path}", labels=["Y", "x"], size=32)
    assert data.labels.names == ("y", "x")
    assert data.train.labels.tolist() == [[0, 1], [1, 1]]
    assert data.valid.labels.tolist() == [[-1, 0]]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 20]
    assert data.valid.images[0, 0, 0].tolist() == [10, 20, 30]


def test_without_a_split_a_tenth_validates_by_seed(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(30)]
    image(tmp_path, *names)
    table(tmp_path, "file,x\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names)))
    first, again, other = (open_dataset(f"table:{tmp_path}", size=32, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.valid)) == (27, 3)
    assert (first.valid.images == again.valid.images).all()
    assert first.fingerprint == again.fingerprint
    assert (first.valid.images != other.valid.images).any()


@pytest.mark.parametrize("name", ["../secret.png", "deep/../../secret.png", "link/secret.png"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    image(tmp_path, "secret.png", "data/a.png")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    table(folder, f"file,x\na.png,1\n{name},0\n")
    with pytest.raises(DataError, match="lies outside"):
        open_dataset(f"table:{folder}", size=32)


def test_whole_paths_are_refused_as_such(tmp_path: Path) -> None:
    """Those of the folder's own images too, which do not lie outside."""
    image(tmp_path, "a.png", "b.png")
    for name in (tmp_path / "b.png", "/etc/passwd"):
        table(tmp_path, f"file,x\na.png,1\n{name},0\n")
        with pytest.raises(DataError, match=f"'{name}' is a whole path; expected paths relative to"):
            open_dataset(f"table:{tmp_path}", size=32)


def test_missing_and_damaged_images_are_named(tmp_path: Path) -> None:
    image(tmp_path, "a.png", "b.png")
    table(tmp_path, "file,x\na.png,1\nb.png,0\nc.png,0\n")
    with pytest.raises(DataError, match=r"'c\.png' is missing \(1 of 3"):
        open_dataset(f"table:{tmp_path}", size=32)
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(DataError, match=r"c\.png: not an image"):
        open_dataset(f"table:{tmp_path}", size=32)


def test_unknown_and_repeated_labels(tmp_path: Path) -> None:
    image(tmp_path, "a.png", "b.png")
    table(tmp_path, "file,smiling,young\na.png,1,0\nb.png,0,1\n")
    for labels, message in ((["smilling"], "did you mean smiling"), (["young", "Young"], "given twice")):
        with pytest.raises(LabelError, match=message):
            open_dataset(f"table:{tmp_path}", labels=labels, size=32)


def test_categorical_and_binary_columns_in_one_set(tmp_path: Path) -> None:
    image(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = "a.png,red,1,train\nb.png,black,0,train\nc.png,blond,,valid\nd.png,,1,train\n"
    table(tmp_path, "file,hair,smiling,split\n" + rows)
    data = open_dataset(f"table:{tmp_path}", size=32)
    assert [label.kind for label in data.labels.labels] == ["categorical", "binary"]
    assert data.labels.labels[0].classes == ("black", "blond", "red")
    told = {int(picture[0, 0, 0]): label.tolist() for picture, label in zip(*vars(data.train).values(), strict=True)}
    assert told == {0: [2, 1], 10: [0, 0], 30: [-1, 1]}
    assert data.valid.labels.tolist() == [[1, -1]]
    assert data.train.labels.dtype == np.int8


def test_a_table_in_the_order_of_its_classes_is_mixed(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(25)]
    image(tmp_path, *names)
    rows = "".join(f"{name},{'ab'[i > 12]},{'valid' if i % 2 else 'train'}\n" for i, name in enumerate(names))
    table(tmp_path, "file,kind,split\n" + rows)
    data = open_dataset(f"table:{tmp_path}", size=32)
    for part in (data.train, data.valid):
        kinds = part.labels[:, 0].tolist()
        assert kinds != sorted(kinds)
        assert [int(level > 120) for level in part.images[:, 0, 0, 0]] == kinds


def test_portraits_are_written_and_read_back_bit_for_bit(tmp_path: Path) -> None:
    write_portraits(tmp_path / "made", 30, seed=4, size=64)
    images, labels = portraits(30, seed=4, workers=1)
    found = read_table(tmp_path / "made" / "labels.csv")
    assert (found.values == labels).all()
    for name, expected in zip(found.files, images, strict=True):
        with Image.open(tmp_path / "made" / name) as picture:
            assert (np.asarray(picture) == expected).all()
    data = open_dataset(f"table:{tmp_path / 'made'}")
    held = np.concatenate([data.train.images, data.valid.images])
    assert sorted(image.tobytes() for image in held) == sorted(image.tobytes() for image in images)


def test_more_labels_than_a_model_takes_are_refused_in_one_line(tmp_path: Path) -> None:
    write_portraits(tmp_path / "d", 12)
    table = tmp_path / "d" / "labels.csv"
    head, *rows = table.read_text().splitlines()
    wide = [f"{head},{','.join(f'x{i}' for i in range(1100))}", *(f"{row}{',0' * 1100}" for row in rows)]
    table.write_text("\n".join(wide))
    with pytest.raises(DataError, match=r"labels\.csv: .*; choose some with --labels$"):
        open_dataset(f"table:{tmp_path / 'd'}")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("words")
    with pytest.raises(UsageError, match="is not empty"):
        write_portraits(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("ending", "told"),
    [(OSError(errno.ENOSPC, "No space left on device"), WriteError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_portraits_that_are_cut_off_can_be_written_again_into_the_same_folder(
    ending: BaseException, told: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, saved = Image.Image.save, []

    def save(image: Image.Image, place: Path, **options) -> None:
        saved.append(place)
        kept(image, place, **options)
        if len(saved) == 3:
            raise ending

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(told):
        write_portraits(tmp_path / "made", 5)
    assert len(saved) == 3
    assert list((tmp_path / "made").iterdir()) == []
    write_portraits(tmp_path / "made", 5)
    assert len(read_table(tmp_path / "made" / "labels.csv").files) == 5


@pytest.mark.parametrize("numbers", [{"count": 0}, {"count": "5"}, {"count": 2.0}, {"count": 2, "size": 15}])
def test_portraits_of_other_numbers_are_refused(numbers: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--(count|size) "):
        write_portraits(tmp_path / "made", **numbers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["", "tabel:x", "table", "table:", "portraits:x", "celeba"])
def test_sources_that_are_none(source: str) -> None:
    with pytest.raises(CCVAEError, match="--data"):
        open_dataset(source)
