"""What a path or a URL that a user gives means; needs no fsspec."""

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from ccvae_deploy.errors import UsageError
from ccvae_deploy.storage import remote
from ccvae_deploy.storage.remote import Remote, local_path, location, paths


def test_what_is_no_path_is_one_line() -> None:
    for given in (None, 3, b"imgs"):
        with pytest.raises(UsageError, match="is no path; give a text or a Path"):
            location(given)
    with pytest.raises(UsageError, match="is no path: no file can be called so"):
        location("\ud800/x")
    with pytest.raises(UsageError, match="chained URLs are not taken"):
        location("zip::memory://a")
    with pytest.raises(UsageError, match="None is no path; give one, or several"):
        paths(None)
    with pytest.raises(UsageError, match="no file has a name of more than 255 bytes"):
        location("imgs/" + "ü" * 128)
    assert location("ü" * 127 + "x").name == "ü" * 127 + "x"


def test_a_long_path_of_windows_is_no_long_name() -> None:
    long = "C:\\imgs\\" + "\\".join(["folder"] * 50)
    assert remote._longest_name(PureWindowsPath(long)) == len("folder")
    assert remote._longest_name(PureWindowsPath("imgs\\" + "ü" * 128)) == 256
    assert remote._longest_name(PurePosixPath(long)) == len(long)
    assert location(".") == Path()


@pytest.mark.parametrize(
    ("path", "system", "expected"),
    [
        ("/C:/imgs", "nt", "C:/imgs"),
        ("C:/imgs", "nt", "C:/imgs"),
        ("/imgs/a%20b", "nt", "/imgs/a%20b"),
        ("/C:/imgs", "posix", "/C:/imgs"),
    ],
)
def test_the_path_in_a_file_url(path: str, system: str, expected: str) -> None:
    assert remote._of_file_url(path, system) == expected


def test_places() -> None:
    assert location("s3://bucket/imgs//") == Remote("s3://bucket/imgs")
    assert location("memory://") == Remote("memory://")
    assert location("file:///x/y") == location("FILE:///x/y") == Path("/x/y")
    assert location("C:\\x") == Path("C:\\x")
    assert location(Path("imgs")) == Path("imgs")
    assert str(Remote("s3://bucket/imgs", "a b.png")) == "s3://bucket/imgs/a b.png"
    assert Remote("s3://bucket/imgs").name == Remote("s3://bucket/imgs/").name == "imgs"


def test_a_folder_may_be_called_as_a_url_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^s3://bucket/imgs: a URL, which only images and --out"):
        local_path(Path("s3://bucket/imgs"))
    Path("s3:").mkdir()
    assert local_path(Path("s3:/bucket/imgs")) == Path("s3:/bucket/imgs")
