"""Whose file is it? What a run was about to write is its own, after a kill too; everything else stays as it is."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.encode import encode_folder
from ccvae_deploy.errors import UsageError
from ccvae_deploy.merge import merge_folders
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records.ledger import Ledger
from ccvae_deploy.storage.remote_store import RemoteStore
from ccvae_deploy.storage.store import Store, replace_file
from ccvae_deploy.swap_folder import swap_folder


@pytest.fixture
def stopped(interrupted):
    """A call that is interrupted at the n-th write of an output."""

    def call(after: int, run, *arguments, **options) -> None:
        with interrupted(Store, "write", after):
            run(*arguments, **options)

    return call


def test_a_kill_explains_files_of_no_other_source(imgs, tmp_path, edit, stopped) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b__smiling=1__00.png").write_text("mine")
    stopped(1, edit, imgs / "a.png")
    with pytest.raises(UsageError, match=r"such as b__smiling=1__00\.png"):
        edit(imgs)
    assert (tmp_path / "out/b__smiling=1__00.png").read_text() == "mine"


def test_a_conflict_stays_one_after_an_interrupt(imgs, tmp_path, edit, monkeypatch) -> None:
    out = tmp_path / "out"
    edit(imgs / "a.png")
    Image.new("RGB", (40, 40), "green").save(imgs / "a.png", "JPEG")
    (out / "a__smiling=1__00.jpg").write_text("mine")
    assert edit(imgs / "a.png").failed == 1
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr("ccvae_deploy.records.ledger.replace_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            edit(imgs / "a.png")
    assert os.replace is replace
    assert edit(imgs / "a.png").failed == 1
    assert (out / "a__smiling=1__00.jpg").read_text() == "mine"


def test_recorded_results_are_not_taken_over_after_a_kill(imgs, tmp_path, edit, stopped) -> None:
    stopped(2, edit, imgs)
    (imgs / "a.png").rename(imgs / "a.bmp")
    Image.new("RGB", (40, 40), "green").save(imgs / "a.bmp")
    with pytest.raises(UsageError, match=r"such as a__smiling=1__00\.png"):
        edit(imgs)


def test_what_a_kill_left_is_ours_after_other_runs_too(imgs, tmp_path, edit, stopped, tree) -> None:
    edit(imgs, samples=2, out=tmp_path / "undisturbed")
    stopped(2, edit, imgs, samples=2)
    assert (tmp_path / "out/a__smiling=1__00.png").exists()
    edit(imgs / "b.png", samples=2)
    assert (tmp_path / "out/.unfinished.json").exists()
    edit(imgs, samples=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_fewer_samples_after_a_kill(imgs, tmp_path, edit, stopped, tree) -> None:
    edit(imgs, samples=4, out=tmp_path / "undisturbed")
    stopped(4, edit, imgs, samples=4)
    edit(imgs, samples=2)
    edit(imgs, samples=4)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_name_that_was_begun_and_never_written_is_not_kept(imgs, tmp_path, edit, stopped) -> None:
    stopped(2, edit, imgs, samples=2)
    edit(imgs / "b.png", samples=2)
    (tmp_path / "out/a__smiling=1__01.png").write_text("mine")
    with pytest.raises(UsageError, match=r"such as a__smiling=1__01\.png"):
        edit(imgs, samples=2)
    assert (tmp_path / "out/a__smiling=1__01.png").read_text() == "mine"


def test_overwriting_takes_what_was_begun_of_others(imgs, tmp_path, edit, stopped, receipts) -> None:
    stopped(2, edit, imgs / "a.png", samples=2)
    (imgs / "a.png").rename(imgs / "a.bmp")
    edit(imgs / "a.bmp", samples=2, overwrite=True)
    assert not (tmp_path / "out/.unfinished.json").exists()
    (imgs / "a.bmp").rename(imgs / "a.png")
    with pytest.raises(UsageError, match=r"such as a__smiling=1__00\.png"):
        edit(imgs / "a.png", samples=2)


@pytest.mark.parametrize("entry", range(1, 4))
def test_a_kill_between_two_entries_of_the_journal(imgs, tmp_path, edit, interrupted, tree, entry) -> None:
    """A source has other bytes: what is begun, taken back and recorded may each be the last that is noted."""
    edit(imgs)
    Image.new("RGB", (40, 40), "green").save(imgs / "a.png")
    edit(imgs, out=tmp_path / "undisturbed")
    with interrupted(Ledger, "_append", entry):
        edit(imgs)
    edit(imgs)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_all_outputs_of_whose_place_is_taken_go(imgs, tmp_path, edit, tree) -> None:
    edit(imgs / "a.png", samples=3)
    (imgs / "a.png").rename(imgs / "a.bmp")
    edit(imgs / "a.bmp", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a__smiling=1__00.png"]
    assert edit(imgs / "a.bmp", samples=3).written == 3


def test_what_was_begun_with_other_settings_is_ours_too(imgs, tmp_path, edit, stopped) -> None:
    stopped(3, edit, imgs / "a.png", samples=3)
    edit(imgs / "a.png", seed=1, overwrite=True)
    assert edit(imgs / "a.png", seed=1, samples=3).written == 3


def test_a_file_in_the_place_of_a_further_sample_stays(imgs, tmp_path, edit, tree) -> None:
    edit(imgs)
    for k in (1, 2):
        (tmp_path / f"out/a__smiling=1__0{k}.png").write_text("mine")
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match=r"outputs of 1 of these sources .*, such as a__smiling=1__01\.png"):
        edit(imgs, samples=3)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "avif"])
def test_a_file_of_any_format_that_a_result_may_have_stays(imgs, tmp_path, edit, ending) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/a__smiling=1__00.{ending}").write_text("mine")
    with pytest.raises(UsageError, match=rf"such as a__smiling=1__00\.{ending}"):
        edit(imgs)


def test_what_is_recorded_is_not_called_unfinished(imgs, tmp_path, edit, stopped) -> None:
    edit(imgs / "a.png", shard="0/1")
    stopped(3, edit, imgs / "a.png", samples=3, shard="0/1")
    edit(imgs / "a.png", shard="0/1")
    (entry,) = json.loads((tmp_path / "out/.unfinished-0-of-1.json").read_text())
    assert entry["outputs"] == ["a__smiling=1__01.png"]


def test_behind_a_url_too(imgs, tmp_path, tiny_bundle, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    out, calls = "memory://ownership/out", []
    write = RemoteStore.write_all

    def interrupting(self, files):
        calls.append(files)
        write(self, dict([*files.items()][:1]))
        raise KeyboardInterrupt

    def go(*inputs: Path):
        options = {"set": ["smiling=1"], "samples": 2, "provider": "cpu", "sheet": False}
        return edit_folder(inputs, bundle=tiny_bundle, out=out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "write_all", interrupting)
        with pytest.raises(KeyboardInterrupt):
            go(imgs / "a.png")
    go(imgs / "b.png")
    assert go(imgs).written == 2
    files, base = fsspec.url_to_fs(out)
    assert sum("__smiling=1__" in name for name in files.find(base)) == 4


def test_a_start_that_failed_explains_nothing(imgs, tmp_path, edit, monkeypatch) -> None:
    edit(imgs / "a.png")
    (tmp_path / "out/b__smiling=1__00.png").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr("ccvae_deploy.records.ledger.replace_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            edit(imgs, set=["young=0"])
    with pytest.raises(UsageError, match=r"such as b__smiling=1__00\.png"):
        edit(imgs)


def test_swap_records_a_conflict_and_does_the_others(imgs, tiny_bundle, tmp_path) -> None:
    out = tmp_path / "out"

    def swap():
        options = {"bundle": tiny_bundle, "from_": tmp_path / "ref.png", "labels": ["smiling"], "provider": "cpu"}
        return swap_folder([imgs], out=out, sheet=False, **options)

    Image.new("RGB", (40, 40), "white").save(tmp_path / "ref.png")
    swap()
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), "green").save(imgs / f"{name}.png", "JPEG")
    (out / "b__smiling=ref__00.jpg").write_text("mine")
    for _ in range(2):
        found = swap()
        assert found.failed == 1
        assert (out / "b__smiling=ref__00.jpg").read_text() == "mine"
        assert (out / "a__smiling=ref__00.jpg").exists()
        assert not (out / ".journal.jsonl").exists()
    assert "which is not its own" in json.loads((out / "failures.jsonl").read_text())["reason"]


def test_merge_sees_a_source_without_an_ending(tmp_path, edit) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, colour in (("a", "red"), ("a-1.png", "blue"), ("a.png", "green")):
        Image.new("RGB", (40, 40), colour).save(folder / name, "PNG")
    edit(folder / "a", out=tmp_path / "one")
    edit(folder / "a-1.png", folder / "a.png", out=tmp_path / "two-of-them")
    with pytest.raises(UsageError, match=r"a and a\.png both became a__smiling=1__00\.png"):
        merge_folders([tmp_path / "one", tmp_path / "two-of-them"], tmp_path / "merged")


def test_merge_refuses_a_shard_that_left_something(imgs, edit, stopped, tmp_path) -> None:
    stopped(2, edit, imgs, samples=2, shard="0/1")
    edit(imgs, set=["young=0"], shard="0/1")
    with pytest.raises(UsageError, match=r"a__smiling=1__00\.png, begun of a\.png and not recorded"):
        merge_folders([tmp_path / "out"])
    edit(imgs, samples=2, shard="0/1")
    assert merge_folders([tmp_path / "out"]).receipts == 6


def test_merge_forgets_a_failure_whose_source_is_gone(imgs, edit, tmp_path) -> None:
    (imgs / "bad.png").write_text("no image")
    for index in range(2):
        edit(imgs, out=tmp_path / f"p{index}", shard=f"{index}/2")
    merge_folders([tmp_path / "p0", tmp_path / "p1"], tmp_path / "merged")
    assert "bad.png" in (tmp_path / "merged/failures.jsonl").read_text()
    (imgs / "bad.png").unlink()
    for index in range(2):
        edit(imgs, out=tmp_path / f"p{index}", shard=f"{index}/2")
    merge_folders([tmp_path / "p0", tmp_path / "p1"], tmp_path / "merged")
    assert (tmp_path / "merged/failures.jsonl").read_text() == ""


def test_records_without_their_last_byte_are_refused(imgs, edit, tmp_path) -> None:
    edit(imgs / "a.png")
    receipts = tmp_path / "out/receipts.jsonl"
    whole = receipts.read_bytes()
    receipts.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="damaged or not ours"):
        edit(imgs)
    assert receipts.read_bytes() == whole[:-1]


@pytest.mark.parametrize("figure", [b"NaN", b"7.5", b"Infinity"])
def test_figures_that_no_receipt_can_hold_are_refused(imgs, edit, tmp_path, figure) -> None:
    edit(imgs / "a.png")
    receipts = tmp_path / "out/receipts.jsonl"
    damaged = re.sub(rb'("after": .*"Young": )[0-9.e-]+', rb"\g<1>" + figure, receipts.read_bytes())
    receipts.write_bytes(damaged)
    with pytest.raises(UsageError, match="damaged or not ours"):
        edit(imgs / "a.png")
    assert receipts.read_bytes() == damaged


def test_overwriting_takes_the_records_of_whose_output_it_was(imgs, edit, tmp_path, receipts) -> None:
    edit(imgs / "a.png")
    (imgs / "a.png").unlink()
    Image.new("RGB", (40, 40), "green").save(imgs / "a.bmp")
    edit(imgs / "a.bmp", overwrite=True)
    assert [row["source"] for row in receipts(tmp_path / "out")] == ["a.bmp"]


def test_a_dry_run_tells_what_cannot_be_done_again(imgs, edit, tiny_bundle, tmp_path) -> None:
    edit(imgs)
    (imgs / "a.png").write_text("no image")
    Image.new("RGB", (40, 40), "green").save(imgs / "b.png", "JPEG")
    (tmp_path / "out/b__smiling=1__00.jpg").write_text("mine")
    found = dry_run([imgs], bundle=tiny_bundle, set=["smiling=1"], out=tmp_path / "out", provider="cpu")
    assert dict(found.units) == {"unreadable": 1, "blocked": 1}
    assert found.outputs == 0
    assert edit(imgs).failed == 2


def test_a_dry_run_tells_of_another_image_of_the_same_name(tmp_path, imgs, edit, tiny_bundle) -> None:
    edit(imgs)
    others = shutil.copytree(imgs, tmp_path / "other" / imgs.name)
    Image.new("RGB", (40, 40), "green").save(others / "a.png")
    asked = {"bundle": tiny_bundle, "set": ["smiling=1"], "out": tmp_path / "out", "provider": "cpu"}
    assert dict(dry_run([others], **asked).units) == {"blocked": 1, "done": 1}
    assert dict(dry_run([others], **asked, overwrite=True).units) == {"changed": 1, "done": 1}
    assert edit(others).failed == 1


def test_an_interrupt_leaves_no_temporary_file(tmp_path) -> None:
    def lines():
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "settings.json", lines())
    assert not list(tmp_path.iterdir())


def test_encode_goes_on_where_it_stopped_between_its_two_files(imgs, tiny_bundle, tmp_path, monkeypatch) -> None:
    out = tmp_path / "l.safetensors"

    link = os.link

    def interrupted(source, target):
        if target == out:
            raise KeyboardInterrupt
        return link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_folder([imgs], bundle=tiny_bundle, out=out, provider="cpu")
    assert (tmp_path / "l.failures.jsonl").exists()
    assert not out.exists()
    assert encode_folder([imgs], bundle=tiny_bundle, out=out, provider="cpu").sources == 2
    (tmp_path / "m.failures.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"m\.failures\.jsonl is there"):
        encode_folder([imgs], bundle=tiny_bundle, out=tmp_path / "m.safetensors", provider="cpu")


def test_another_image_of_the_same_name_is_not_a_changed_one(tmp_path, run, failures) -> None:
    """Folders of one name go into one folder of results by default."""
    for year, colour in (("2023", "red"), ("2024", "blue")):
        (tmp_path / year / "photos" / "deep").mkdir(parents=True)
        for name in ("a.png", "deep/b.png"):
            Image.new("RGB", (40, 40), colour).save(tmp_path / year / "photos" / name)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "2024" / "photos" / "same.png")
    shutil.copy(tmp_path / "2024" / "photos" / "same.png", tmp_path / "2023" / "photos")
    first, second, out = tmp_path / "2023" / "photos", tmp_path / "2024" / "photos", tmp_path / "photos-edited"
    run(out, inputs=first, samples=4)
    before = {path: path.read_bytes() for path in out.rglob("*.png") if path.name != "sheet.png"}
    found = run(out, inputs=second, samples=2)
    assert (found.failed, found.written) == (2, 0)
    assert [row["reason"] for row in failures(out)] == [
        f"its name here is that of another image, {first / name}; give another --out, or add --overwrite"
        for name in ("a.png", "deep/b.png")
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert run(out, inputs=second / "a.png").failed == 1
    # what has changed where it lies is done again, and what has moved too
    Image.new("RGB", (40, 40), "green").save(first / "a.png")
    assert run(out, inputs=first, samples=4).written == 4
    (first / "deep" / "b.png").unlink()
    assert run(out, inputs=second, samples=4).failed == 1
    assert run(out, inputs=second, samples=4, overwrite=True).written == 4


@pytest.mark.parametrize("command", ["edit", "swap"])
def test_a_folder_that_has_moved_is_known_by_its_new_place(command, tmp_path, run, tiny_bundle) -> None:
    """A later folder of its old name is another one, though nothing was written since the move."""
    for year, colour in (("2023", "red"), ("2024", "blue")):
        (tmp_path / year / "photos").mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(tmp_path / year / "photos" / "a.png")
    out, reference = tmp_path / "out", tmp_path / "reference.png"
    Image.new("RGB", (40, 40), "green").save(reference)

    def call(folder: Path):
        if command == "edit":
            return run(out, inputs=folder)
        options = {"from_": reference, "labels": ["smiling"], "out": out, "provider": "cpu"}
        return swap_folder([folder], bundle=tiny_bundle, **options)

    call(tmp_path / "2023" / "photos")
    moved = (tmp_path / "2023" / "photos").rename(tmp_path / "2023" / "pictures")
    assert (call(moved).skipped, call(moved).written) == (1, 0)
    assert (call(tmp_path / "2024" / "photos").failed, call(moved).skipped) == (1, 1)
