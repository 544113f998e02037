"""idx files: their layouts, and one line for whatever is none."""

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ccvae_deploy.errors import DataError, LabelError, UsageError
from ccvae_train.datasets import idx
from ccvae_train.datasets.idx import read_idx
from ccvae_train.datasets.source import open_dataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_set(root: Path, *, packed: bool = False, dot: bool = False, train: int = 12, test: int = 5) -> None:
    """Four files; image i is grey 10 i, its class i mod 10."""
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        number = np.arange(count)
        images = np.broadcast_to((10 * number)[:, None, None], (count, 28, 28))
        for what, array in (("images-idx3", images), ("labels-idx1", number % 10)):
            name = f"{part}-{what}-ubyte".replace("-idx", ".idx" if dot else "-idx") + (".gz" if packed else "")
            data = idx_bytes(array)
            (root / name).write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("kind", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(("packed", "dot", "nested"), [(False, False, True), (True, False, False), (True, True, True)])
def test_layouts(tmp_path: Path, kind: str, packed: bool, dot: bool, nested: bool) -> None:
    raw = tmp_path / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[kind] / "raw"
    write_set(raw if nested else tmp_path, packed=packed, dot=dot)
    data = open_dataset(f"{kind}:{tmp_path}")
    assert (data.image.size, data.image.channels) == (32, 1)
    assert data.train.images.shape == (12, 32, 32, 1)
    assert data.train.labels.tolist() == [[i % 10] for i in range(12)]
    assert data.train.labels.dtype == data.valid.labels.dtype == np.int8
    assert data.valid.labels.tolist() == [[0], [1], [2], [3], [4]]
    assert data.train.images[11, 2:30, 2:30].min() == data.train.images[11].max() == 110
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    assert not data.train.images[:, border].any()
    (label,) = data.labels.labels
    assert (label.kind, len(label.classes)) == ("categorical", 10)


def test_class_names(tmp_path: Path) -> None:
    write_set(tmp_path)
    garment, digit = (open_dataset(f"{kind}:{tmp_path}").labels.labels[0] for kind in ("fashion-mnist", "mnist"))
    assert (garment.name, garment.classes[0], garment.classes[9]) == ("garment", "T-shirt/top", "Ankle boot")
    assert (digit.name, digit.classes) == ("digit", tuple("0123456789"))


def test_the_cache_is_used_and_changed_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path)
    first = open_dataset(f"mnist:{tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(
            "ccvae_train.datasets.mnist.read_idx", lambda path, *sides: read_idx(path) if not sides else 1 / 0
        )
        again = open_dataset(f"mnist:{tmp_path}", labels=["Digit"])
    assert first.fingerprint == again.fingerprint
    write_set(tmp_path, train=13)
    assert open_dataset(f"mnist:{tmp_path}").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 64}, UsageError, "--image-size 64: mnist has images of 28x28, padded to 32"),
        ({"channels": 3}, UsageError, "--channels 3: mnist is grey"),
        ({"labels": ["digits"]}, LabelError, "did you mean digit"),
        ({"uncertain": "ones"}, UsageError, "--uncertain ones: mnist has no uncertain labels"),
    ],
)
def test_what_mnist_cannot_be(tmp_path: Path, options: dict, error: type, message: str) -> None:
    write_set(tmp_path)
    with pytest.raises(error, match=message):
        open_dataset(f"mnist:{tmp_path}", **options)


def test_missing_files_are_named_with_the_command_that_fetches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\[\.gz\] in .* or .*MNIST/raw; .*data mnist"):
        open_dataset(f"mnist:{tmp_path}")
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\[\.gz\] is missing \(1 of 4 files\)"):
        open_dataset(f"mnist:{tmp_path}")


def test_files_that_do_not_agree(tmp_path: Path) -> None:
    write_set(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.arange(11) % 10))
    with pytest.raises(DataError, match="12 images for 11 labels"):
        open_dataset(f"mnist:{tmp_path}")
    labels.write_bytes(idx_bytes(np.array([3, 10] + 10 * [0])))
    with pytest.raises(DataError, match="item 1: class 10; expected 0 to 9"):
        open_dataset(f"mnist:{tmp_path}")


LABELS = idx_bytes(np.arange(7))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with nothing; expected 00000801"),
        (b"\x00\x00\x09\x01" + LABELS[4:], "begins with 00000901"),
        (idx_bytes(np.zeros((2, 28, 28))), "begins with 00000803"),
        (LABELS[:6], "ends in its header, after 6 bytes"),
        (LABELS[:-1], "6 bytes follow a header that says 7"),
        (LABELS + b"\0", "more bytes follow a header that says 7"),
        (idx_bytes(np.zeros(0)), "says it holds 0 items"),
        (struct.pack(">HBBI", 0, 8, 1, 2**32 - 1), "4,294,967,295 items; expected 1 to 268,435,456"),
        (gzip.compress(LABELS, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(LABELS, mtime=0)[:12] + b"\xff" * 20, "begins with"),
        (gzip.compress(LABELS + bytes(1 << 24), mtime=0), "more bytes follow"),
    ],
)
def test_what_is_no_idx_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_items_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(idx_bytes(np.zeros((3, 32, 32))))
    with pytest.raises(DataError, match="items of 32x32; expected 28x28"):
        read_idx(tmp_path / "f", 28, 28)
    with pytest.raises(DataError, match="cannot be read: no such file"):
        read_idx(tmp_path / "absent", 28, 28)


def test_a_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Counted(gzip.GzipFile):
        def read(self, size: int = -1) -> bytes:
            read.append(size)
            return super().read(size)

    (tmp_path / "bomb").write_bytes(gzip.compress(LABELS + bytes(50 << 20)))
    monkeypatch.setattr(idx.gzip, "open", Counted)
    with pytest.raises(DataError, match="more bytes follow"):
        read_idx(tmp_path / "bomb")
    assert read == [8, 8]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.binary(max_size=60).map(gzip.compress)
    | st.binary(max_size=60).map(lambda tail: b"\x1f\x8b\x08" + tail)
    | st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=40)).map(
        lambda made: struct.pack(">HBBI", 0, 8, 1, made[0]) + made[1]
    ),
    st.sampled_from([(), (2, 2), (28, 28)]),
)
@example(LABELS, ())
@example(gzip.compress(idx_bytes(np.ones((3, 2, 2)))), (2, 2))
def test_any_bytes_end_in_an_array_or_one_line(tmp_path: Path, data: bytes, sides: tuple[int, ...]) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        found = read_idx(path, *sides)
        content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        assert idx_bytes(found) == content


@needs_data
@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion-mnist", [6000] * 10),
    ],
)
def test_the_real_files(kind: str, counts: list[int]) -> None:
    data = open_dataset(f"{kind}:{DATA / kind}")
    assert (len(data.train), len(data.valid)) == (60_000, 10_000)
    assert np.bincount(data.train.labels[:, 0]).tolist() == counts
    assert data.train.images.mean() * (32 / 28) ** 2 / 255 == pytest.approx(
        {"mnist": 0.1307, "fashion-mnist": 0.2860}[kind], abs=1e-4
    )
