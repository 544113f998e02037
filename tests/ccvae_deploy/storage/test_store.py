"""Writing: whole or absent, never outside the root, never over what is someone else's."""

import errno
import hashlib
import io
import os
from pathlib import Path

import pytest

from ccvae_deploy.errors import ImageError, UsageError, WriteError
from ccvae_deploy.storage import plain
from ccvae_deploy.storage.new_file import new_file
from ccvae_deploy.storage.plain import lines_of, read_plain
from ccvae_deploy.storage.store import TEMPORARIES, Store, replace_file, set_down, temporary

HALF = temporary(b"half")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_writing_is_atomic_and_leaves_nothing_beside(root: Path) -> None:
    with Store(root) as store:
        store.write("a/b.png", b"one")
        store.write("a/b.png", b"two")
    assert (root / "a/b.png").read_bytes() == b"two"
    assert names(root) == ["a", "a/b.png"]


def test_links_that_lead_outside_are_refused(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_bytes(b"mine")
    (root / "link").symlink_to(other, target_is_directory=True)
    (root / ".ccvae-tmp").symlink_to(other, target_is_directory=True)
    with Store(root) as store, pytest.raises(UsageError, match="leads outside"):
        store.write("link/b.png", b"x")
    store.remove("link/mine", hashlib.sha256(b"mine").hexdigest())
    store.remove("../other/mine", hashlib.sha256(b"mine").hexdigest())
    store.remove(str(other / "mine"), hashlib.sha256(b"mine").hexdigest())
    assert names(other) == ["mine"]


def test_only_a_file_of_the_recorded_bytes_is_removed(root: Path) -> None:
    store = Store(root)
    (root / "a.png").write_bytes(b"ours")
    store.remove("a.png", hashlib.sha256(b"other").hexdigest())
    assert names(root) == ["a.png"]
    store.remove("a.png", hashlib.sha256(b"ours").hexdigest())
    store.remove("a.png", hashlib.sha256(b"ours").hexdigest())
    assert names(root) == []


def test_what_a_kill_left_is_cleaned_by_the_same_shard_only(root: Path) -> None:
    for mark in ("", "-0-of-2", "-1-of-2"):
        (root / f".ccvae-tmp{mark}").mkdir()
        (root / f".ccvae-tmp{mark}" / HALF).write_bytes(b"x")
    with Store(root, "-0-of-2"):
        others = (".ccvae-tmp", ".ccvae-tmp-1-of-2")
        assert names(root) == sorted([*others, *(f"{folder}/{HALF}" for folder in others)])


def test_what_was_set_down_is_moved(root: Path) -> None:
    with Store(root) as store:
        file = set_down(store.temporaries(), b"data")
        assert (root / TEMPORARIES / file).read_bytes() == b"data"
        store.write_all({"sub/a.png": file, "b.png": b"bytes"})
        assert not (root / TEMPORARIES / file).exists()
        dropped = set_down(store.temporaries(), b"dropped")
        store.discard(dropped)
        assert not (root / TEMPORARIES / dropped).exists()
        set_down(store.temporaries(), b"left")
    assert ((root / "sub/a.png").read_bytes(), (root / "b.png").read_bytes()) == (b"data", b"bytes")
    assert not (root / TEMPORARIES).exists()
    with pytest.raises(WriteError, match=f"^cannot write {root / TEMPORARIES}/[0-9a-f]{{32}}: No such file"):
        set_down(root / TEMPORARIES, b"")


def test_files_of_others_stay_where_temporaries_lie(root: Path) -> None:
    for name in (".tmp/thesis.txt", f".ccvae-tmp/{HALF}", ".ccvae-tmp/deep/thesis.txt", ".ccvae-tmp/thesis.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"words")
    with Store(root) as store:
        store.write("a.png", b"x")
    left = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert sorted(left) == [".ccvae-tmp/deep/thesis.txt", ".ccvae-tmp/thesis.txt", ".tmp/thesis.txt", "a.png"]


def test_holds_looks_at_sizes(root: Path) -> None:
    (root / "a").write_bytes(b"123")
    store = Store(root)
    assert store.holds(["a"], [3])
    assert not store.holds(["a"], [4])
    assert not store.holds(["a", "b"], [3, 3])


def test_a_name_the_file_system_does_not_take_is_the_images_fault(root: Path) -> None:
    with Store(root) as store, pytest.raises(ImageError, match="cannot be named: file name too long"):
        store.write("/".join(["x" * 200] * 25), b"x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_refuses_leaves_the_old_file(root: Path, monkeypatch, number: int) -> None:
    with Store(root) as store:
        store.write("a", b"old")
        with monkeypatch.context() as patch:
            for owner in (os, Path):
                patch.setattr(owner, "replace", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
            with pytest.raises(WriteError, match=os.strerror(number)):
                store.write("a", b"new")
            with pytest.raises(WriteError, match=os.strerror(number)):
                replace_file(root / "a", [b"new"])
    assert (root / "a").read_bytes() == b"old"
    assert names(root) == ["a"]


def test_plain_files_alone_are_read_and_only_so_much(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_plain(tmp_path / name, 10)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_plain(tmp_path / "long", 10)
    assert read_plain(tmp_path / "long", 11) == b"x" * 11


def test_a_line_without_an_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "LINE_LIMIT", 4)
    with io.BytesIO(b"abc\nabcd\n") as file, pytest.raises(ValueError, match="a line of more than 4 bytes"):
        list(lines_of(file))
    with io.BytesIO(b"abc\nab") as file:
        assert list(lines_of(file)) == [b"abc\n", b"ab"]


def test_a_killed_table_is_removed_by_the_next_and_a_running_one_is_not(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    left = table.with_name(f".{temporary(b'labels.csv')}-{'0' * 8}.new")
    left.write_bytes(b"half")
    other = tmp_path / f".{temporary(b'other.csv')}-{'0' * 8}.new"
    other.write_bytes(b"of another table")
    with new_file(table) as running:
        assert not left.exists()
        with new_file(table) as second:
            second.write(b"second")
        running.write(b"first")
    assert table.read_bytes() == b"first"
    assert other.exists()


@pytest.mark.parametrize("links", [True, False])
def test_what_has_come_to_lie_there_since_the_start_is_not_replaced(tmp_path, monkeypatch, links) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    table = tmp_path / "labels.csv"
    with new_file(table, overwrite=False) as stream:
        stream.write(b"first")
    assert [table.read_bytes(), len(list(tmp_path.iterdir()))] == [b"first", 1]
    told = pytest.raises(WriteError, match=r"is there by now, so what was to be it is .*labels-[0-9a-f]{8}\.csv")
    with told, new_file(table, overwrite=False) as stream:
        stream.write(b"second")
    assert sorted(one.read_bytes() for one in tmp_path.iterdir()) == [b"first", b"second"]
