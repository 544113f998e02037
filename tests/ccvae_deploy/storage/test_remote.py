"""Places behind URLs: what a store there keeps, removes, cleans and refuses, and what one place is."""

import hashlib
from pathlib import Path

import pytest

from ccvae_deploy.errors import ImageError, UsageError, WriteError
from ccvae_deploy.folder import check_out, scan
from ccvae_deploy.records.remote_ledger import RemoteLedger
from ccvae_deploy.storage import remote, remote_store
from ccvae_deploy.storage.remote import Remote
from ccvae_deploy.storage.store import temporary

fsspec = pytest.importorskip("fsspec")
from ..far_places import stored  # noqa: E402


@pytest.mark.parametrize("name", ["a/../../b.png", "a//b.png", "a/./b.png", "a\0b.png"])
def test_names_that_lead_elsewhere_are_refused(name, monkeypatch) -> None:
    monkeypatch.setattr(Remote, "walk", lambda self: iter([Remote(self.root, name)]))
    monkeypatch.setattr(Remote, "is_dir", lambda self: True)
    with pytest.raises(UsageError, match="is no name that a folder could hold"):
        scan([Remote("memory://x")])


def test_names_that_no_store_takes_are_failures(memory, tmp_path) -> None:
    store = remote_store.RemoteStore(Remote(memory))
    with pytest.raises(ImageError, match="not UTF-8"):
        store.write("na\udcefve.png", b"x")
    with pytest.raises(ImageError, match="the limit is 1,024"):
        store.write("a" * 1100, b"x")
    with pytest.raises(UsageError, match="leads outside"):
        store.write("a/../../b.png", b"x")
    with pytest.raises(UsageError, match="leads outside"):
        store.write("a//b.png", b"x")
    assert stored(memory) == {}
    longest = "a" * (1024 - len(f"/{memory.removeprefix('memory://')}/"))
    store.write(longest, b"x")
    assert stored(memory) == {longest: b"x"}


def test_paths_on_a_disk_may_be_longer_than_keys(disk) -> None:
    name = "/".join(["x" * 200] * 6)
    remote_store.RemoteStore(Remote(disk)).write(name, b"x")
    assert stored(disk) == {name: b"x"}


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_only_a_file_of_the_recorded_bytes_is_removed(request, kind) -> None:
    place = request.getfixturevalue(kind)
    store = remote_store.RemoteStore(Remote(place))
    store.write("a.png", b"ours")
    store.remove("a.png", hashlib.sha256(b"other").hexdigest())
    assert stored(place) == {"a.png": b"ours"}
    for _ in range(2):
        store.remove("a.png", hashlib.sha256(b"ours").hexdigest())
        assert stored(place) == {}


def test_a_place_has_one_canonical_text_however_its_url_is_written(memory) -> None:
    name = memory.removeprefix("memory://")
    assert Remote(memory, "a.png").canonical() == Remote(f"memory:///{name}/a.png").canonical()
    assert Remote(memory).canonical() != Remote(f"{memory}x").canonical()
    assert RemoteLedger(Remote(memory), []).out == RemoteLedger(Remote(f"memory:///{name}"), []).out


def test_who_asks_makes_no_other_place_and_no_secret_is_part_of_it(memory, monkeypatch) -> None:
    texts = set()
    for token in ("secret-a", "secret-b"):
        monkeypatch.setitem(fsspec.config.conf, "memory", {"token": token})
        remote._canonical.cache_clear()
        texts.add(Remote(memory).canonical())
    (text,) = texts
    assert "secret" not in text
    assert Remote("ftp://ann:pass@host/x").canonical() == Remote("ftp://bob@host/x").canonical()
    assert Remote("ftp://host/x").canonical() != Remote("ftp://other/x").canonical()


def test_of_a_listing_that_names_other_places_what_lies_below_is_taken_once(memory, monkeypatch) -> None:
    """As of web pages, which link to themselves, to each other and elsewhere, and may say no size."""
    base = f"/{memory.removeprefix('memory://')}"
    listing = [
        *({"name": f"{base}{end}", "type": "directory"} for end in ("", "/", "/deep", "/deep/", "-other")),
        *({"name": f"{base}{end}", "type": "file", "size": None} for end in ("/deep/a.png", "-other/b.png")),
    ]
    asked = []

    def listed(_, path: str, **__: object) -> list[dict]:
        asked.append(path)
        return listing if len(asked) < 9 else []

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", listed)
    assert {(one.relative, one.size) for one in Remote(memory).walk()} == {("deep/a.png", 0)}
    assert len(asked) == 2


def test_a_file_is_read_up_to_a_limit(memory) -> None:
    files, base = fsspec.url_to_fs(memory)
    files.pipe({f"{base}/four": b"1234", f"{base}/empty": b""})
    assert Remote(memory, "four").read(4) == b"1234"
    for name, told in (
        ("four", "^more than the limit of 3 bytes"),
        ("empty", "^empty file"),
        ("gone", "^unreadable: "),
    ):
        with pytest.raises(ImageError, match=told):
            Remote(memory, name).read(3)


def test_results_in_the_whole_of_a_store_are_inside_it(memory) -> None:
    with pytest.raises(UsageError, match="lies inside the input"):
        check_out(Remote(memory), [Remote("memory://")])
    check_out(Remote(f"{memory}2"), [Remote(memory)])


def test_an_error_without_words_is_told_by_its_name(memory, monkeypatch) -> None:
    def refuse(*_, **__) -> None:
        raise TimeoutError

    place, store = Remote(memory), remote_store.RemoteStore(Remote(memory))
    with monkeypatch.context() as patch:
        for name in ("exists", "cat_file", "pipe"):
            patch.setattr(type(fsspec.filesystem("memory")), name, refuse)
        for error, told, ask in (
            (UsageError, r"cannot be read: TimeoutError$", place.exists),
            (ImageError, r"unreadable: TimeoutError$", lambda: place.read(9)),
            (WriteError, r"/a: TimeoutError; start the command again$", lambda: store.write("a", b"")),
        ):
            with pytest.raises(error, match=told):
                ask()
        patch.setattr("fsspec.core.url_to_fs", refuse)
        with pytest.raises(UsageError, match=r"cannot be opened: TimeoutError$"):
            place.exists()


def test_what_a_kill_left_on_a_disk_is_cleaned_by_the_same_shard_only(disk, tmp_path) -> None:
    half = temporary(b"half")
    own, others = f".ccvae-tmp-0-of-2/{half}", {f".ccvae-tmp/{half}", f".ccvae-tmp-1-of-2/{half}"}
    every = remote_store.RemoteStore(Remote(disk))
    every.write_all(dict.fromkeys((own, *others), b"x"))
    with remote_store.RemoteStore(Remote(disk), "-0-of-2"):
        assert set(stored(disk)) == others
        every.write(own, b"x")
    assert set(stored(disk)) == others
    assert not (tmp_path / "disk/.ccvae-tmp-0-of-2").exists()
    every.write(".ccvae-tmp/thesis.txt", b"words")
    with every:
        pass
    assert set(stored(disk)) == {".ccvae-tmp/thesis.txt", f".ccvae-tmp-1-of-2/{half}"}


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_folders_are_no_files_of_a_store(request, kind) -> None:
    place = request.getfixturevalue(kind)
    remote_store.RemoteStore(Remote(place)).write("deep/a.png", b"x")
    store = remote_store.RemoteStore(Remote(place))
    size = Path(place.removeprefix("disk://"), "deep").stat().st_size if kind == "disk" else 0
    assert (list(store.names("")), list(store.names("deep")), list(store.names("gone"))) == ([], ["a.png"], [])
    assert (store.holds(["deep"], [size]), store.holds(["deep/a.png"], [1]), store.holds(["deep/a.png"], [2])) == (
        False,
        True,
        False,
    )


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_is_fetched_replaces_a_file_and_what_is_gone_removes_it(request, kind, tmp_path) -> None:
    store = remote_store.RemoteStore(Remote(request.getfixturevalue(kind)))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    store.write("sub/a", b"new")
    store.get("sub/a", folder / "a")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"new"}
    store.get("gone", folder / "a")
    assert not list(folder.iterdir())
