"""Writing: whole or absent, never outside the root, never over what is someone else's."""

import errno
import hashlib
import io
import os
import resource
import stat
from pathlib import Path

import pytest

from ccvae_deploy.errors import ImageError, UsageError, WriteError
from ccvae_deploy.storage import plain
from ccvae_deploy.storage.new_file import new_file
from ccvae_deploy.storage.plain import lines_of, read_plain
from ccvae_deploy.storage.store import TEMPORARIES, Store, refuse_file, refuse_output, replace_file, set_down, temporary

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
    with Store(root) as store:
        store.write("folder/a.png", b"x")
        with pytest.raises(UsageError, match="leads outside"):
            store.write("link/b.png", b"x")
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


def test_a_disk_that_fills_while_something_is_set_down(root: Path) -> None:
    """A limit on the file's size stands in for it: the write is cut short, then refused."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(WriteError, match="make room"):
            set_down(root, b"x" * 150)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_root_that_is_a_link_is_like_any_other(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    with Store(tmp_path / "link") as store:
        store.write("a/b.png", b"x")
        store.refuse_blocked("a")
    store.remove("a/b.png", hashlib.sha256(b"x").hexdigest())
    assert names(root) == ["a"]


def test_files_of_others_stay_where_temporaries_lie(root: Path) -> None:
    for name in (".tmp/thesis.txt", f".ccvae-tmp/{HALF}", ".ccvae-tmp/deep/thesis.txt", ".ccvae-tmp/thesis.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"words")
    with Store(root) as store:
        store.write("a.png", b"x")
    left = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert sorted(left) == [".ccvae-tmp/deep/thesis.txt", ".ccvae-tmp/thesis.txt", ".tmp/thesis.txt", "a.png"]


def full(_: Path, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_store_that_cannot_be_emptied_says_so_unless_it_ends_by_an_error(root: Path, monkeypatch) -> None:
    store = Store(root)
    store.write("a.png", b"x")
    monkeypatch.setattr(Path, "rmdir", full)
    with pytest.raises(WriteError, match=r"^cannot empty .*\.ccvae-tmp: Input/output error; remove it by hand$"):
        store.__exit__(None)
    store.__exit__(ValueError)


def test_what_cannot_be_removed_is_an_error_of_one_line(root: Path, monkeypatch) -> None:
    (root / "a.png").write_bytes(b"ours")
    monkeypatch.setattr(Path, "unlink", full)
    with pytest.raises(WriteError, match=r"^cannot remove .*a\.png: Input/output error; start the command again$"):
        Store(root).remove("a.png", hashlib.sha256(b"ours").hexdigest())


def test_holds_looks_at_sizes(root: Path) -> None:
    (root / "a").write_bytes(b"123")
    store = Store(root)
    assert store.holds(["a"], [3])
    assert not store.holds(["a"], [4])
    assert not store.holds(["a"], [2])
    assert not store.holds(["a", "b"], [3, 3])


def test_a_name_the_file_system_does_not_take_is_the_images_fault(root: Path) -> None:
    with Store(root) as store, pytest.raises(ImageError, match="cannot be named: file name too long"):
        store.write("/".join(["x" * 200] * 25), b"x")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EIO, "make room"),
        (errno.EROFS, "see that it may be written"),
        (errno.EACCES, "see that it may be written"),
        (errno.EPERM, "see that it may be written"),
        (errno.ENOTEMPTY, "move what lies there"),
        (errno.ENOTDIR, "move what lies there"),
        (errno.ENOENT, "see that nothing removes folders there"),
    ],
)
def test_a_disk_that_refuses_leaves_the_old_file(root: Path, monkeypatch, number: int, remedy: str) -> None:
    told = f"{os.strerror(number)}; {remedy} and start the command again$"
    with Store(root) as store:
        store.write("a", b"old")
        with monkeypatch.context() as patch:
            for owner in (os, Path):
                patch.setattr(owner, "replace", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
            with pytest.raises(WriteError, match=told):
                store.write("a", b"new")
            with pytest.raises(WriteError, match=told):
                replace_file(root / "a", [b"new"])
    assert (root / "a").read_bytes() == b"old"
    assert names(root) == ["a"]


def written_anew(path: Path) -> None:
    with new_file(path) as stream:
        stream.write(b"data")


def written_where_none_was(path: Path) -> None:
    with new_file(path, overwrite=False) as stream:
        stream.write(b"data")


def written_in_place(path: Path) -> None:
    replace_file(path, [b"da", b"ta"])


@pytest.mark.parametrize("write", [written_in_place, written_anew, written_where_none_was])
def test_after_a_power_cut_a_name_has_its_bytes(tmp_path: Path, monkeypatch, write) -> None:
    """They are on the disk before the file gets its name, and the name is when the call ends."""
    events: list[tuple[str, int, int]] = []

    def note(what: str, status: os.stat_result) -> None:
        events.append((what, status.st_ino, status.st_size))

    for name in ("replace", "link"):
        move = getattr(os, name)
        monkeypatch.setattr(os, name, lambda a, b, move=move: (note("named", Path(a).stat()), move(a, b)))
    monkeypatch.setattr(os, "fsync", lambda handle: note("on disk", os.fstat(handle)))
    write(tmp_path / "a")
    file = (tmp_path / "a").stat()
    assert events[:2] == [("on disk", file.st_ino, 4), ("named", file.st_ino, 4)]
    assert [(what, place) for what, place, _ in events[2:]] == [("on disk", tmp_path.stat().st_ino)]


def test_folders_that_cannot_be_synced_hinder_no_file(tmp_path: Path, monkeypatch) -> None:
    def refused(number: int) -> None:
        raise OSError(number, os.strerror(number))

    sync, is_folder = os.fsync, lambda handle: stat.S_ISDIR(os.fstat(handle).st_mode)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: refused(errno.EINVAL) if is_folder(handle) else sync(handle))
        replace_file(tmp_path / "a", [b"one"])
    # as Windows, which opens no folder
    monkeypatch.setattr(os, "open", lambda *_: refused(errno.EACCES))
    replace_file(tmp_path / "a", [b"two"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]


def test_plain_files_alone_are_read_and_only_so_much(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    free = os.dup(0)
    os.close(free)
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(OSError, match="not a regular file"):
            read_plain(tmp_path / name, 10)
    # nothing stays open
    with open(os.dup(0)) as file:  # noqa: PTH123  (a number)
        assert file.fileno() == free
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


def test_places_where_a_file_cannot_go(tmp_path: Path) -> None:
    for name in ("a.png", "notes.txt", "there.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to("gone")
    (tmp_path / "same.png").hardlink_to(tmp_path / "a.png")

    def told(name: str, overwrite: bool = False) -> str:
        with pytest.raises(UsageError) as caught:
            refuse_output(tmp_path / name, tmp_path / "a.png", (".png", ".gif"), overwrite)
        return str(caught.value)

    assert "expected a name that ends in .png or .gif" in told("new.jpg")
    assert "add --overwrite to replace a file" in told("there.png")
    assert "add --overwrite to replace a file" in told("nowhere.png")
    assert "is there already" in told("folder.png", overwrite=True)
    assert "is the image itself" in told("same.png", overwrite=True)
    assert "notes.txt cannot be written" in told("notes.txt/new.png")
    for name, overwrite in (("new.png", False), ("deep/er/NEW.GIF", False), ("there.png", True)):
        refuse_output(tmp_path / name, tmp_path / "a.png", (".png", ".gif"), overwrite)

    for name, overwrite, message in (
        ("folder.png", True, "is a folder; give a file"),
        ("there.png", False, "is there; add --overwrite"),
        ("nowhere.png", False, "is there; add --overwrite"),
        ("notes.txt/new.png", True, r"notes\.txt cannot be written"),
    ):
        with pytest.raises(UsageError, match=message):
            refuse_file(tmp_path / name, overwrite)
    refuse_file(tmp_path / "deep/er/new.csv", overwrite=False)
    refuse_file(tmp_path / "there.png", overwrite=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "full"), WriteError), (BrokenPipeError(), BrokenPipeError)],
)
def test_a_file_that_is_not_written_to_its_end_leaves_nothing(tmp_path: Path, error, told) -> None:
    with pytest.raises(told), new_file(tmp_path / "deep" / "labels.csv"):
        raise error
    assert names(tmp_path) == ["deep"]
