"""URLs as inputs and outputs: the bytes of local folders, resumed, moved to another machine, and nothing outside."""

import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ccvae_deploy import pipeline
from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.errors import ImageError, UsageError, WriteError
from ccvae_deploy.folder import check_out, scan
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.receipts import Noted, Settings
from ccvae_deploy.records import remote_ledger
from ccvae_deploy.records.remote_ledger import RemoteLedger
from ccvae_deploy.storage import remote, remote_store
from ccvae_deploy.storage.lock import FolderLock
from ccvae_deploy.storage.remote import Remote, location
from ccvae_deploy.storage.store import temporary

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402


class Disk(LocalFileSystem):
    """A file system that moves files, unlike an object store; `disk://` as a server's disk would be."""

    protocol = "disk"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("disk://"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """This machine's cache; another folder is another machine."""
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory():
    """An empty place in memory."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    files = fsspec.filesystem("memory")
    if files.exists(url):
        files.rm(url, recursive=True)


@pytest.fixture
def disk(tmp_path) -> str:
    fsspec.register_implementation("disk", Disk, clobber=True)
    (tmp_path / "disk").mkdir()
    return f"disk://{tmp_path}/disk"


@pytest.fixture
def go(tiny_bundle):
    """The edit of `run`, with any inputs."""

    def edit(inputs, out, **options):
        options = {"set": ["smiling=1"], "samples": 3, "provider": "cpu"} | options
        return edit_folder([inputs], bundle=tiny_bundle, out=out, **options)

    return edit


def settings(seed: int = 0) -> Settings:
    return Settings(
        bundle="b" * 64,
        asked={"smiling": 1.0},
        seed=seed,
        mode="sample",
        strength=1.0,
        confidence=0.9,
        compose="residual",
        format="png",
        edit="smiling=1",
    )


def receipts(source: str, count: int, made_with: Settings) -> list[Noted]:
    rows = [
        {"source": source, "source_sha256": "a", "output": f"{source}{k}.png", "output_bytes": 0, "output_sha256": ""}
        for k in range(count)
    ]
    lines = [(json.dumps({**row, "settings": made_with.id}) + "\n").encode() for row in rows]
    return [Noted(line, made_with.id, "a", row["output"], 0) for line, row in zip(lines, rows, strict=True)]


def upload(folder: Path, url: str) -> str:
    files, base = fsspec.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            target = f"{base}/{path.relative_to(folder).as_posix()}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.pipe_file(target, path.read_bytes())
    return url


def stored(url: str) -> dict[str, bytes]:
    files, base = fsspec.url_to_fs(url)
    return {path.removeprefix(f"{base}/"): files.cat_file(path) for path in files.find(base)}


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_same_bytes_from_url_to_url(request, kind, pictures, expected, go) -> None:
    place = request.getfixturevalue(kind)
    (pictures / ".hidden").mkdir()
    shutil.copy(pictures / "a.png", pictures / ".hidden/a.png")
    (pictures / "notes.txt").write_text("no image")
    summary = go(upload(pictures, f"{place}/imgs"), f"{place}/edited/")
    assert stored(f"{place}/edited") == expected
    assert (summary.written, summary.ignored, str(summary.out)) == (27, 1, f"{place}/edited")
    assert summary.sheet == f"{place}/edited/sheet.png"
    found = scan([location(f"{place}/edited")])
    assert (len(found.sources), found.ignored) == (27, 4)
    again = go(f"{place}/imgs", f"{place}/edited")
    assert (again.written, again.skipped, again.receipts) == (0, 9, 27)
    assert stored(f"{place}/edited") == expected


def test_mixed_and_file_urls(memory, pictures, expected, go, tmp_path, tree) -> None:
    go(upload(pictures, f"{memory}/imgs"), tmp_path / "down")
    go(pictures, f"{memory}/up")
    go(f"file://{pictures}", f"file://{tmp_path}/file")
    assert tree(tmp_path / "down") == expected == stored(f"{memory}/up") == tree(tmp_path / "file")


def test_the_command_line(memory, pictures, expected, tiny_bundle) -> None:
    from typer.testing import CliRunner

    from ccvae_deploy.cli import app

    options = ["--bundle", str(tiny_bundle), "--set", "smiling=1", "--samples", "3", "--provider", "cpu"]
    done = CliRunner().invoke(app, ["edit", upload(pictures, f"{memory}/imgs"), *options, "--out", f"{memory}/edited"])
    assert done.exit_code == 0, done.output
    assert f"{memory}/edited/sheet.png" in done.output.replace("\n", "")
    assert stored(f"{memory}/edited") == expected


def test_a_failure_and_a_changed_source(memory, pictures, go, tmp_path, tree) -> None:
    (pictures / "b.jpg").write_bytes(b"no image")
    go(upload(pictures, f"{memory}/imgs"), f"{memory}/out", format="png")
    assert b"b.jpg" in stored(f"{memory}/out")["failures.jsonl"]
    for name in ("b.jpg", "a.png"):
        shutil.copy(pictures / "deep/e.jpg", pictures / name)
    summary = go(upload(pictures, f"{memory}/imgs"), f"{memory}/out", samples=2, format="png")
    assert (summary.written, summary.failed) == (4, 0)
    # the third sample of the source as it was is gone
    assert "a__smiling=1__02.png" not in stored(f"{memory}/out")
    assert "g__smiling=1__02.png" in stored(f"{memory}/out")


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize(("owner", "name", "after", "skipped"), [
    (pipeline, "_write", 4, 4),
    (remote_ledger.RemoteLedger, "finish", 0, 9),
    (remote_store.RemoteStore, "put", 0, 9),
    (remote_store.RemoteStore, "put", 1, 9),
    (remote_store.RemoteStore, "put", 2, 9),
    (remote_store.RemoteStore, "write_all", 3, 3),
])  # fmt: skip
def test_cut_off_and_started_again_here(
    request, kind, pictures, expected, go, interrupted, owner, name, after, skipped
) -> None:
    place = request.getfixturevalue(kind)
    with interrupted(owner, name, after + 1):
        go(pictures, f"{place}/out", batch_size=2)
    assert go(pictures, f"{place}/out").skipped == skipped
    assert stored(f"{place}/out") == expected


@pytest.mark.parametrize("after", [0, 14, 27, 28, 29])
def test_a_server_that_stops_before_a_file_is_moved(disk, pictures, expected, go, interrupted, after) -> None:
    """27 outputs, then settings, receipts, failures: none is ever half there."""
    with interrupted(Disk, "mv", after + 1):
        go(pictures, f"{disk}/out")
    left = stored(f"{disk}/out").items()
    assert all(expected[name] == data for name, data in left if not name.startswith(".ccvae-tmp/"))
    go(pictures, f"{disk}/out")
    assert stored(f"{disk}/out") == expected


def test_another_machine_sees_what_is_recorded(memory, pictures, expected, go, monkeypatch, tmp_path) -> None:
    go(pictures, f"{memory}/out")
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    assert go(pictures, f"{memory}/out").skipped == 9
    assert stored(f"{memory}/out") == expected
    with pytest.raises(UsageError, match="made with other settings"):
        go(pictures, f"{memory}/out", seed=1)
    go(pictures, f"{memory}/out", set=["young=0"])
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    found = stored(f"{memory}/out")
    assert (go(pictures, f"{memory}/out").skipped, found["settings.json"].count(b'"edit"')) == (9, 2)
    assert {name: data for name, data in stored(f"{memory}/out").items() if name != "sheet.png"} == {
        name: data for name, data in found.items() if name != "sheet.png"
    }


def test_what_a_cut_off_run_left_is_refused_elsewhere(
    memory, pictures, expected, go, interrupted, monkeypatch, tmp_path
) -> None:
    with interrupted(pipeline, "_write", 5):
        go(pictures, f"{memory}/out")
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="no record here explains"):
        go(pictures, f"{memory}/out")
    assert go(pictures, f"{memory}/out", overwrite=True).written == 27
    assert stored(f"{memory}/out") == expected
    # the first machine has a journal of a run that another one has overtaken
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    assert go(pictures, f"{memory}/out").skipped == 9
    assert stored(f"{memory}/out") == expected


def test_a_run_that_another_machine_has_overtaken_is_forgotten(memory, monkeypatch, tmp_path) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    with RemoteLedger(Remote(memory), [settings(seed=1)]) as ledger:
        ledger.record("a", receipts("a", 1, settings(seed=1)))
        ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    assert RemoteLedger(Remote(memory), []).group("a", "smiling=1").settings == settings(seed=1).id


def test_what_was_begun_here_is_not_ours_once_others_have_been_there(memory, monkeypatch, tmp_path) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.begin("a", settings(), ["a.png"])
        ledger.finish()
    assert list(RemoteLedger(Remote(memory), [settings()]).begun("a", settings())) == ["a.png"]
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("b", receipts("b", 1, settings()))
        ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    ledger = RemoteLedger(Remote(memory), [settings()])
    assert (set(ledger.groups), list(ledger.begun("a", settings()))) == ({("b", "smiling=1")}, [])


@pytest.mark.parametrize("puts", [1, 2, 3])
def test_records_of_a_run_that_is_cut_off_among_them_can_be_read(
    memory, interrupted, monkeypatch, tmp_path, puts
) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        with interrupted(remote_store.RemoteStore, "put", puts):
            ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    assert len(RemoteLedger(Remote(memory), [settings()]).groups) == (puts == 3)


def test_of_records_that_are_gone_nothing_is_left_here(memory) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        ledger.finish()
    fsspec.filesystem("memory").rm(memory, recursive=True)
    ledger = RemoteLedger(Remote(memory), [])
    assert (ledger.groups, ledger.all_settings) == ({}, {})


def test_shards_of_one_machine_at_the_same_time(memory) -> None:
    with RemoteLedger(Remote(memory), [settings()], (0, 2)), RemoteLedger(Remote(memory), [settings()], (1, 2)):
        pass


@pytest.mark.parametrize("name", ["receipts.jsonl", "failures.jsonl", "settings.json"])
def test_records_at_a_url_that_are_not_ours_are_refused_and_kept(memory, name) -> None:
    remote_store.RemoteStore(Remote(memory)).write(name, b"mine")
    with pytest.raises(UsageError, match="damaged or not ours"):
        RemoteLedger(Remote(memory), [settings()])
    assert stored(memory) == {name: b"mine"}


def test_a_cache_that_cannot_be_made(memory, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match=r"Not a directory; set CCVAE_CACHE to another folder$"):
        RemoteLedger(Remote(memory), [settings()])


def test_a_lost_output_and_lost_records_are_made_again(memory, pictures, expected, go) -> None:
    go(pictures, f"{memory}/out")
    files, base = fsspec.url_to_fs(f"{memory}/out")
    files.rm_file(f"{base}/deep/d__smiling=1__01.png")
    assert go(pictures, f"{memory}/out").written == 3
    files.rm(base, recursive=True)
    assert go(pictures, f"{memory}/out").written == 27
    assert stored(f"{memory}/out") == expected


def test_shards_have_records_of_their_own(memory, pictures, expected, go, tmp_path, tree, tiny_bundle) -> None:
    for index in range(3):
        go(pictures, f"{memory}/out", shard=f"{index}/3")
    found = stored(f"{memory}/out")
    assert {n: d for n, d in found.items() if "__smiling=1__" in n} == {
        n: d for n, d in expected.items() if "__smiling=1__" in n
    }
    with pytest.raises(UsageError, match="merge the shards first"):
        go(pictures, f"{memory}/out")
    # the records alone are enough for a merge
    from ccvae_deploy.merge import merge_folders

    (tmp_path / "records").mkdir()
    for name, data in found.items():
        if "-of-3" in name:
            (tmp_path / "records" / name).write_bytes(data)
    merge_folders([tmp_path / "records"])
    assert (tmp_path / "records/receipts.jsonl").read_bytes() == expected["receipts.jsonl"]


def test_one_run_of_a_machine_at_a_time(memory, pictures, go, cache) -> None:
    go(pictures, f"{memory}/out")
    (work,) = (cache / "outputs").iterdir()
    with FolderLock(work, shared=False), pytest.raises(UsageError, match=f"another run writes to {memory}/out"):
        go(pictures, f"{memory}/out")


def test_a_dry_run_writes_nothing(memory, pictures, tiny_bundle) -> None:
    upload(pictures, f"{memory}/imgs")
    forecast = dry_run(
        [f"{memory}/imgs"], bundle=tiny_bundle, out=f"{memory}/out", set=["smiling=1"], provider="cpu", samples=2
    )
    assert forecast.outputs == 18
    assert forecast.bytes == 2 * sum(path.stat().st_size for path in pictures.rglob("*.*"))
    assert stored(f"{memory}/out") == {}


@pytest.mark.parametrize("name", ["a/../../b.png", "a//b.png", "a/./b.png", "a\0b.png"])
def test_names_that_lead_elsewhere_are_refused(name, monkeypatch) -> None:
    monkeypatch.setattr(Remote, "walk", lambda self: iter([Remote(self.root, name)]))
    monkeypatch.setattr(Remote, "is_dir", lambda self: True)
    with pytest.raises(UsageError, match="is no name that a folder could hold"):
        scan([Remote("memory://x")])


def test_what_means_something_in_a_url_is_a_name_like_any_other(memory, pictures, go, tmp_path, tree) -> None:
    odd = ["q?x=1#y.png", "s3:::b.png", "100%20.png", "[a]*.png", "new\nline.png", "ünï.png"]
    for name in odd:
        shutil.copy(pictures / "a.png", pictures / name)
    go(pictures, tmp_path / "local")
    go(upload(pictures, f"{memory}/imgs"), f"{memory}/out")
    assert stored(f"{memory}/out") == tree(tmp_path / "local")


def test_a_report_is_for_local_folders(memory, pictures, go, tmp_path) -> None:
    with pytest.raises(UsageError, match="--report writes into folders of this machine only"):
        go(pictures, f"{memory}/out", report=True)
    go(upload(pictures, f"{memory}/imgs"), tmp_path / "down", report=True)
    go(pictures, tmp_path / "local", report=True)
    pages = [(tmp_path / name / "report.html").read_text().count("data:image") for name in ("down", "local")]
    assert pages[0] == pages[1] > 1


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


def test_a_store_that_refuses(memory, pictures, go, monkeypatch) -> None:
    def refuse(*_, **__):
        raise ConnectionError("no route\nto host")

    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "pipe", refuse)
        with pytest.raises(
            WriteError, match=r"^cannot write memory://\w+/out/a__smiling=1__00.png: no route to host; s"
        ):
            go(pictures, f"{memory}/out")
        patch.setattr(type(fsspec.filesystem("memory")), "ls", refuse)
        with pytest.raises(UsageError, match="cannot be read: no route to host"):
            go(upload(pictures, f"{memory}/imgs"), f"{memory}/out")


def test_a_folder_that_cannot_be_listed_is_refused_and_not_left_out(memory, pictures, go, monkeypatch) -> None:
    files = type(fsspec.filesystem("memory"))
    whole = files.ls

    def locked(self, path, *rest, **options):
        if path.rstrip("/").endswith("deep"):
            raise PermissionError("deep is locked")
        return whole(self, path, *rest, **options)

    source = upload(pictures, f"{memory}/imgs")
    with monkeypatch.context() as patch:
        patch.setattr(files, "ls", locked)
        with pytest.raises(UsageError, match="cannot be read: deep is locked"):
            go(source, f"{memory}/out")


@pytest.mark.parametrize(
    ("given", "out", "says"),
    [
        ("{m}/imgs", "{m}/imgs/edited", "lies inside the input"),
        ("{m}/imgs", "memory:///{id}/imgs/edited", "lies inside the input"),
        ("{m}/none", "{m}/out", "does not exist"),
        ("nosuch://x/imgs", "{m}/out", "cannot be opened: .*nosuch"),
        ("memory://a::memory://b", "{m}/out", "chained URLs"),
    ],
)
def test_refused_before_work(memory, pictures, go, given, out, says) -> None:
    upload(pictures, f"{memory}/imgs")
    with pytest.raises(UsageError, match=says):
        go(given.format(m=memory), out.format(m=memory, id=memory.removeprefix("memory://")))
    assert stored(f"{memory}/out") == {}


def test_without_fsspec_one_line_says_what_to_install(tiny_bundle) -> None:
    script = (
        "import sys; sys.modules['fsspec'] = None; sys.modules['fsspec.core'] = None\n"
        "from ccvae_deploy.cli import app; app()"
    )
    command = [sys.executable, "-c", script, "edit", "s3://bucket/imgs", "--set", "smiling=1", "--bundle", tiny_bundle]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: s3://bucket/imgs needs fsspec, which is not installed: pip install 'ccvae-deploy[remote]'\n"
    )


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
