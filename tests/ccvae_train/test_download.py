"""`data`: what is fetched and what is only checked. No test uses a network: torchvision's classes are stood in for."""

import gzip
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.errors import DataError, FetchError, UsageError, WriteError
from ccvae_train.datasets.download import fetch
from ccvae_train.datasets.mnist import FASHION_MNIST, FILES, MNIST
from ccvae_train.datasets.source import open_dataset

from .test_celeba import layout as celeba_layout
from .test_chexpert import NAME as CHEXPERT_NAME
from .test_chexpert import layout as chexpert_layout
from .test_mnist import write_set


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchvision's two classes lay made files where theirs would lie, packed and unpacked, and talk on stdout."""
    from torchvision import datasets

    made: list[str] = []

    def stand_in(name: str):
        def download(root: str, download: bool) -> None:
            assert download
            print("Downloading")
            raw = Path(root) / name / "raw"
            write_set(raw)
            for file in FILES:
                (raw / f"{file}.gz").write_bytes(gzip.compress((raw / file).read_bytes()))
            made.append(name)

        return download

    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(datasets, name, stand_in(name))
    return made


@pytest.mark.parametrize(("which", "kind"), [(MNIST, "mnist"), (FASHION_MNIST, "fashion-mnist")])
def test_files_lie_where_torchvision_lays_them(tmp_path: Path, downloads: list[str], which, kind: str) -> None:
    folder = tmp_path / "new" / "data"
    fetched = fetch(folder, which)
    assert sorted(path.name for path in fetched) == sorted(FILES)
    assert [path.name for path in folder.iterdir()] == [which.folder]
    assert len(open_dataset(f"{kind}:{folder}").train) == 12
    assert fetch(folder, which) == []
    assert downloads == [which.folder]


def test_whole_files_are_kept_and_only_missing_ones_come(tmp_path: Path, downloads: list[str]) -> None:
    write_set(tmp_path, packed=True, dot=True)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert fetch(tmp_path, MNIST) == []
    lost = tmp_path / "t10k-images.idx3-ubyte.gz"
    del kept[lost]
    lost.unlink()
    assert fetch(tmp_path, MNIST) == [tmp_path / "t10k-images-idx3-ubyte"]
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list(tmp_path.iterdir())) == 4
    assert len(open_dataset(f"mnist:{tmp_path}").valid) == 5


def test_a_damaged_file_is_the_user_s_to_remove(tmp_path: Path, downloads: list[str]) -> None:
    write_set(tmp_path)
    (tmp_path / FILES[0]).write_bytes(b"mine")
    with pytest.raises(DataError, match=f"{FILES[0]} begins with"):
        fetch(tmp_path, MNIST)
    assert (tmp_path / FILES[0]).read_bytes() == b"mine"
    assert downloads == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            RuntimeError("Error downloading\ntrain-images"),
            FetchError,
            r"could not be fetched \(Error downloading train",
        ),
        (
            URLError("no route to host"),
            FetchError,
            r"no route to host.*; get train-images-idx3-ubyte\.gz, .* from https://ossci.*MNIST/raw",
        ),
        (TimeoutError("timed out"), FetchError, "timed out"),
        (OSError(28, "No space left on device"), WriteError, "No space left on device; make room"),
    ],
)
def test_what_the_network_and_the_disk_refuse(tmp_path: Path, monkeypatch, error, kind, message: str) -> None:
    from torchvision import datasets

    def failing(root: str, download: bool) -> None:
        (Path(root) / "half").write_text("half a file")
        raise error

    monkeypatch.setattr(datasets, "MNIST", failing)
    with pytest.raises(kind, match=message) as caught:
        fetch(tmp_path, MNIST)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert not any(tmp_path.iterdir())


def test_what_comes_is_checked(tmp_path: Path, monkeypatch) -> None:
    from torchvision import datasets

    def damaged(root: str, download: bool) -> None:
        write_set(Path(root) / "MNIST/raw")
        (Path(root) / "MNIST/raw" / FILES[1]).write_bytes(b"")

    monkeypatch.setattr(datasets, "MNIST", damaged)
    with pytest.raises(FetchError, match="what came is damaged"):
        fetch(tmp_path, MNIST)
    monkeypatch.setattr(datasets, "MNIST", lambda root, download: None)
    with pytest.raises(FetchError, match="came without train-images"):
        fetch(tmp_path, MNIST)
    assert not any(tmp_path.iterdir())


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("words")
    with pytest.raises(UsageError, match="cannot make"):
        fetch(tmp_path / "f", MNIST)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["mnist", "fashion-mnist"])
def test_the_command_says_what_comes_next(tmp_path: Path, downloads: list[str], kind: str) -> None:
    result = invoke("data", kind, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"next: ccvae-deploy train --data {kind}:{tmp_path}\n")
    assert "Downloading" not in result.stdout


def test_celeba_is_explained_and_checked(tmp_path: Path) -> None:
    result = invoke("data", "celeba", tmp_path / "absent")
    assert result.exit_code == 2
    assert "non-commercial research" in result.stdout
    assert "https://mmlab" in result.stdout
    assert result.stderr.startswith("error: ")
    assert "absent is no folder" in result.stderr
    celeba_layout(tmp_path / "celeba", paper_attributes())
    whole = invoke("data", "celeba", tmp_path)
    assert whole.exit_code == 0, whole.stderr
    assert "is whole: 1 training and 1 validation images" in whole.stdout
    (tmp_path / "celeba/img_align_celeba/000007.jpg").unlink()
    lacking = invoke("data", "celeba", tmp_path)
    assert lacking.exit_code == 2
    assert "000007.jpg is missing (row 2; 1 images in all)" in lacking.stderr


def paper_attributes() -> bytes:
    from ccvae_train.datasets.celeba import PAPER_LABELS

    rows = [f"{number:06d}.jpg" + " -1" * len(PAPER_LABELS) for number in (3, 7, 9)]
    return "\n".join(["3", " ".join(PAPER_LABELS), *rows, ""]).encode()


def test_chexpert_is_explained_and_checked(tmp_path: Path) -> None:
    layout = chexpert_layout(tmp_path / CHEXPERT_NAME)
    whole = invoke("data", "chexpert", tmp_path)
    assert whole.exit_code == 0, whole.stderr
    assert "https://aimi.stanford.edu" in whole.stdout
    assert "is whole: 3 training and 1 validation images" in whole.stdout
    shutil.rmtree(layout / "valid")
    lacking = invoke("data", "chexpert", tmp_path)
    assert lacking.exit_code == 2
    assert "is missing (1 of 1 images in all)" in lacking.stderr
