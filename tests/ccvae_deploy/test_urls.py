"""URLs as inputs and outputs: the bytes of local folders, resumed, moved to another machine, and nothing outside."""

import shutil
import subprocess
import sys

import pytest

from ccvae_deploy import pipeline
from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.folder import scan
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records import remote_ledger
from ccvae_deploy.storage import remote_store
from ccvae_deploy.storage.lock import FolderLock
from ccvae_deploy.storage.remote import location

fsspec = pytest.importorskip("fsspec")
from .far_places import Disk, stored, upload  # noqa: E402


@pytest.fixture
def go(tiny_bundle):
    """The edit of `run`, with any inputs."""

    def edit(inputs, out, **options):
        options = {"set": ["smiling=1"], "samples": 3, "provider": "cpu"} | options
        return edit_folder([inputs], bundle=tiny_bundle, out=out, **options)

    return edit


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
