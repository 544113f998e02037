"""Merging shards: the ledger of an unsharded run, whatever happens on the way."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy import merge as merging
from ccvae_deploy import pipeline
from ccvae_deploy.cli import app
from ccvae_deploy.errors import UsageError
from ccvae_deploy.merge import _Twins, merge_folders
from ccvae_deploy.records.ledger import Ledger
from ccvae_deploy.storage.lock import FolderLock

COUNT = 3


@pytest.fixture
def run(run):
    """With two samples."""
    return lambda out, *inputs, **options: run(out, *inputs, **{"samples": 2, "sheet": False, **options})


@pytest.fixture
def whole(pictures: Path, tmp_path: Path, run, tree) -> dict[str, bytes]:
    """An unsharded run's folder, with a failure in it."""
    (pictures / "broken.png").write_bytes(b"no image")
    run(tmp_path / "whole")
    return tree(tmp_path / "whole")


@pytest.fixture
def one(tmp_path: Path, whole, run) -> Path:
    """All shards in one folder."""
    for index in range(COUNT):
        run(tmp_path / "one", shard=f"{index}/{COUNT}")
    return tmp_path / "one"


@pytest.fixture
def several(tmp_path: Path, whole, run) -> list[Path]:
    """Each shard in a folder of its own."""
    for index in range(COUNT):
        run(tmp_path / f"part{index}", shard=f"{index}/{COUNT}")
    return [tmp_path / f"part{index}" for index in range(COUNT)]


def test_in_place_it_is_the_unsharded_folder(one, whole, run, tree) -> None:
    merged = merge_folders([one])
    assert (merged.sources, merged.receipts, merged.absent) == (9, 18, ())
    assert tree(one) == whole
    assert merge_folders([one]).receipts == 18
    assert tree(one) == whole
    assert run(one).skipped == 9
    assert tree(one) == whole


def test_a_run_over_what_is_merged_makes_the_sheet_and_the_report(one, tmp_path, run) -> None:
    merge_folders([one])
    run(tmp_path / "whole", sheet=True, report=True)
    summary = run(one, sheet=True, report=True)
    assert (summary.written, summary.skipped) == (0, 9)
    assert (one / "sheet.png").read_bytes() == (tmp_path / "whole/sheet.png").read_bytes()
    assert "Most successful" in (one / "report.html").read_text()


def test_shards_at_the_same_time_lose_nothing(tmp_path, whole, run, tree) -> None:
    """Each with its own edit too, so that their settings differ."""
    out = tmp_path / "one"
    runs = [(f"{i}/3", "smiling=1") for i in range(3)] + [(f"{i}/4", "young=0") for i in range(4)]
    with ThreadPoolExecutor(len(runs)) as pool:
        work = [pool.submit(run, out, shard=shard, set=[asked]) for shard, asked in runs]
        assert sum(one.result().written for one in work) == 36
    merged = merge_folders([out])
    assert (merged.sources, merged.receipts) == (9, 36)
    run(tmp_path / "whole", set=["young=0"])
    assert tree(out) == tree(tmp_path / "whole")


def test_ledgers_of_one_folder_do_not_replace_what_others_have_recorded(tmp_path, pictures, run, tree) -> None:
    """Whatever may be overwritten: each keeps records of its own, and would not know."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(one)
    run(two, shard="0/2", seed=5)
    before = tree(one), tree(two)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"results of a run without --shard for smiling=1 .* leave out --shard"):
            run(one, shard="0/2", seed=5, overwrite=overwrite)
        for shard in (None, "0/3"):
            with pytest.raises(UsageError, match="results of --shard 0/2 for smiling=1 with other settings; merge"):
                run(two, shard=shard, overwrite=overwrite)
    assert (tree(one), tree(two)) == before
    run(two, shard="1/2")


def test_shards_of_other_numbers_that_begin_at_the_same_time(tmp_path, pictures, run, monkeypatch) -> None:
    settle, begun = pipeline.settle, []

    def late(*places, **options):
        job = settle(*places, **options)
        if not begun:
            begun.append("0/3")
            run(tmp_path / "out", shard="0/3", seed=5)
        return job

    monkeypatch.setattr(pipeline, "settle", late)
    with pytest.raises(UsageError, match="results of --shard 0/3"):
        run(tmp_path / "out", shard="0/2")
    assert not list((tmp_path / "out").glob("*-0-of-2*"))
    assert not list((tmp_path / "out").glob(".journal*"))


def test_a_copy_that_a_power_cut_has_shortened_is_copied_again(several, tmp_path, whole, tree) -> None:
    merged = tmp_path / "merged"
    merge_folders(several, merged)
    cut, other = sorted(merged.glob("*.png"))[:2]
    cut.write_bytes(b"")
    merge_folders([*several, merged], merged)
    assert tree(merged) == whole
    (merged / "receipts.jsonl").write_bytes(b"")
    other.write_bytes(b"")
    with pytest.raises(UsageError, match="that is not the one of"):
        merge_folders([*several, merged], merged)


def test_a_shard_that_starts_again_after_the_merge_is_told_of_it(one, run) -> None:
    merge_folders([one])
    with pytest.raises(UsageError, match=r"leave out --shard \(they are merged"):
        run(one, shard=f"0/{COUNT}")


def test_several_folders_into_one(several, tmp_path, whole, tree) -> None:
    before = [tree(folder) for folder in several]
    merge_folders(several, tmp_path / "merged")
    assert tree(tmp_path / "merged") == whole
    assert [tree(folder) for folder in several] == before
    # again, one of them twice
    (tmp_path / "link").symlink_to(several[0])
    merge_folders([*several, tmp_path / "link"], tmp_path / "merged")
    assert tree(tmp_path / "merged") == whole


@pytest.mark.parametrize("in_place", [True, False])
def test_it_keeps_where_the_sources_lay(in_place, one, several, pictures, tmp_path, run) -> None:
    """Or an image of the same name in another folder would replace what was made of the first."""
    merged = merge_folders([one] if in_place else several, None if in_place else tmp_path / "merged").out
    assert (merged / ".roots.json").read_bytes() == (tmp_path / "whole/.roots.json").read_bytes()
    others = shutil.copytree(pictures, tmp_path / "other" / pictures.name)
    Image.new("RGB", (20, 20), "red").save(others / "a.png")
    summary = run(merged, others)
    assert (summary.written, summary.failed) == (0, 2)
    assert "its name here is that of another image" in (merged / "failures.jsonl").read_text()


def test_folders_copied_together(several, tmp_path, whole, tree) -> None:
    for folder in several:
        shutil.copytree(folder, tmp_path / "copied", dirs_exist_ok=True)
    merge_folders([tmp_path / "copied"])
    assert tree(tmp_path / "copied") == whole


def test_one_after_the_other(several, tmp_path, whole, tree) -> None:
    assert merge_folders(several[:1], tmp_path / "merged").absent == ("1/3", "2/3")
    for folder in several[1:]:
        # which shards are merged already is not known
        assert merge_folders([folder], tmp_path / "merged").absent == ()
    assert tree(tmp_path / "merged") == whole


@pytest.mark.parametrize(
    ("stage", "after"), [("replace_file", k) for k in range(4)] + [("unlink", k) for k in range(4, 16)]
)
def test_killed_anywhere_and_started_again(one, whole, interrupted, stage, after, tree, tmp_path) -> None:
    """Four files are written, and four of each shard removed."""
    with interrupted(merging if stage == "replace_file" else Path, stage, after + 1):
        merge_folders([one])
    merge_folders([one])
    assert tree(one) == whole
    assert (one / ".roots.json").read_bytes() == (tmp_path / "whole/.roots.json").read_bytes()


def test_results_that_contradict_each_other_are_refused(several, tmp_path, run, tree) -> None:
    run(tmp_path / "other", seed=1)
    before = tree(several[0])
    with pytest.raises(UsageError, match=r"hold different results of .* for smiling=1; leave the older one out"):
        merge_folders([several[0], tmp_path / "other"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert tree(several[0]) == before


def test_a_shard_that_was_cut_off_is_refused(one, tmp_path) -> None:
    (one / ".journal-1-of-3.jsonl").touch()
    with pytest.raises(UsageError, match="holds --shard 1/3 that was cut off; start it again"):
        merge_folders([one])


def test_a_running_shard_is_refused(one) -> None:
    with Ledger(one, [], (0, COUNT)), pytest.raises(UsageError, match="another run writes"):
        merge_folders([one])


@pytest.mark.parametrize("there", [True, False])
def test_no_run_begins_where_folders_are_being_merged(several, tmp_path, monkeypatch, there) -> None:
    replace, target, refused = merging.replace_file, tmp_path / "merged", []

    def attempt(*arguments) -> None:
        with pytest.raises(UsageError, match="another run writes"):
            FolderLock(target, shared=True)
        refused.append(arguments)
        replace(*arguments)

    if there:
        target.mkdir()
    monkeypatch.setattr(merging, "replace_file", attempt)
    merge_folders(several, target)
    assert len(refused) == 4
    FolderLock(target, shared=False).release()


def test_settings_that_contradict_each_other_are_refused(several, tmp_path) -> None:
    path = several[1] / f"settings-1-of-{COUNT}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 9'))
    with pytest.raises(UsageError, match="contradict those of another shard"):
        merge_folders(several, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_was_copied_before_is_not_missing_when_its_folder_is_emptied(several, tmp_path) -> None:
    merge_folders(several, tmp_path / "merged")
    for folder in several:
        for path in (*folder.rglob("*.png"), *folder.rglob("*.jpg"), *folder.rglob("*.webp")):
            path.unlink()
    assert merge_folders(several, tmp_path / "merged").missing == 0


def test_of_the_same_samples_the_most_are_kept(pictures, tmp_path, run) -> None:
    for name, samples in (("one", 1), ("two", 3)):
        run(tmp_path / name, pictures / "a.png", samples=samples)
    for number, names in enumerate((("one", "two"), ("two", "one"))):
        found = merge_folders([tmp_path / name for name in names], tmp_path / f"merged{number}")
        assert (found.sources, found.receipts, found.missing) == (1, 3, 0)
        assert len(list(found.out.glob("*.png"))) == 3


def test_a_source_that_was_done_and_has_failed_since_is_a_failure(pictures, tmp_path, run) -> None:
    run(tmp_path / "one", pictures / "a.png")
    run(tmp_path / "two", pictures / "b.jpg")
    (pictures / "a.png").write_bytes(b"no image")
    run(tmp_path / "one", pictures / "a.png")
    found = merge_folders([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert (found.sources, found.receipts) == (2, 4)
    assert "a.png" in (tmp_path / "merged/failures.jsonl").read_text()


def test_other_edits_of_other_shards_are_all_kept(tmp_path, run, tree) -> None:
    run(tmp_path / "out", shard="0/2")
    run(tmp_path / "out", shard="1/2", set=["young=0"])
    merge_folders([tmp_path / "out"])
    found = json.loads((tmp_path / "out/settings.json").read_text())
    assert {entry["edit"] for entry in found.values()} == {"smiling=1", "young=0"}
    for asks in ("smiling=1", "young=0"):
        run(tmp_path / "out", set=[asks])
        run(tmp_path / "whole", set=[asks])
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_records_that_name_files_outside_copy_nothing(several, tmp_path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    path = next(folder for folder in several if list(folder.glob("receipts-*"))) / f"receipts-0-of-{COUNT}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"output": "../secret.png", "output_bytes": 6}
    rows[1] |= {"output": str(tmp_path / "secret.png"), "output_bytes": 6}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    merge_folders(several[:1], tmp_path / "deep/merged")
    assert not (tmp_path / "deep/secret.png").exists()


@pytest.mark.parametrize("text", ["not json\n", "{}\n", '{"source": 1}\n'])
def test_records_that_are_not_ours_are_refused(one, text, tree) -> None:
    (one / f"receipts-1-of-{COUNT}.jsonl").write_text(text)
    before = tree(one)
    with pytest.raises(UsageError, match="damaged or not ours"):
        merge_folders([one])
    assert tree(one) == before


@pytest.mark.parametrize("change", [{"output": None}, {"output": "a\0b"}])
def test_every_receipt_of_a_group_is_looked_at(several, tmp_path, change) -> None:
    path = next(file for folder in several for file in folder.glob("receipts-*") if file.stat().st_size)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="damaged or not ours"):
        merge_folders(several, tmp_path / "merged")


@pytest.mark.parametrize("name", ["receipts.jsonl", "failures.jsonl"])
def test_records_of_others_stay(several, tmp_path, tree, name) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(UsageError, match=f"has a {name} that no record here explains"):
        merge_folders(several, tmp_path / "mine")
    assert tree(tmp_path / "mine") == {name: b"mine"}
    # also where it is a link that leads outside
    (tmp_path / "mine" / name).rename(tmp_path / name)
    (tmp_path / "mine" / name).symlink_to(tmp_path / name)
    with pytest.raises(UsageError, match=f"has a {name} that no record here explains"):
        merge_folders(several, tmp_path / "mine")


def test_a_failure_that_has_been_done_since_is_forgotten(several, pictures, tmp_path, run, tree) -> None:
    merge_folders(several, tmp_path / "merged")
    assert "broken.png" in (tmp_path / "merged/failures.jsonl").read_text()
    shutil.copy(pictures / "a.png", pictures / "broken.png")
    for index in range(COUNT):
        run(tmp_path / f"part{index}", shard=f"{index}/{COUNT}")
    run(tmp_path / "whole")
    for folder in several:
        merge_folders([folder], tmp_path / "merged")
    assert tree(tmp_path / "merged") == tree(tmp_path / "whole")


def test_a_failure_that_another_folder_has_done_is_forgotten(whole, pictures, tmp_path, run, tree) -> None:
    run(tmp_path / "first", pictures / "broken.png")
    run(tmp_path / "other edit", pictures / "broken.png", set=["young=1"])
    for asked in ("smiling=1", "young=1"):
        run(tmp_path / "two edits", pictures / "broken.png", set=[asked])
    shutil.copy(pictures / "b.jpg", pictures / "broken.png")
    run(tmp_path / "second", pictures / "broken.png")
    merge_folders([tmp_path / "first", tmp_path / "second"], tmp_path / "merged")
    assert (tmp_path / "merged/failures.jsonl").read_text() == ""
    # of two edits that a folder knows, any may be the one that failed
    merge_folders([tmp_path / "two edits", tmp_path / "second"], tmp_path / "unsure")
    assert "broken.png" in (tmp_path / "unsure/failures.jsonl").read_text()
    # what failed there was another edit
    merge_folders([tmp_path / "other edit", tmp_path / "second"], tmp_path / "both")
    assert "broken.png" in (tmp_path / "both/failures.jsonl").read_text()


def test_outputs_that_are_missing_are_counted(several, tmp_path) -> None:
    part = next(folder for folder in several if len(list(folder.rglob("*.png"))) > 1)
    gone, changed = list(part.rglob("*.png"))[:2]
    gone.unlink()
    changed.write_bytes(b"cut off")
    assert merge_folders(several, tmp_path / "merged").missing == 2
    # as where the records alone were fetched from a store
    assert merge_folders([tmp_path / "merged"]).missing == 0
    result = CliRunner().invoke(app, ["merge", *map(str, several), "--out", str(tmp_path / "other")])
    assert (result.exit_code, result.output.splitlines()[-1][:28]) == (1, "2 outputs missing or changed")


def test_outputs_of_one_name_are_refused(pictures, tmp_path, run, tree) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.bmp")
    run(tmp_path / "one", pictures / "a.png")
    run(tmp_path / "two", tmp_path / "a.bmp")
    with pytest.raises(UsageError, match=r"a\.bmp and a\.png both became a__smiling=1__00\.png"):
        merge_folders([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_users_file_beside_records_stays_too(pictures, tmp_path, run, tree) -> None:
    run(tmp_path / "one", pictures / "a.png")
    run(tmp_path / "two", pictures / "b.jpg")
    (tmp_path / "two" / "a__smiling=1__01.png").write_bytes(b"mine")
    before = tree(tmp_path / "two")
    with pytest.raises(UsageError, match=r"has a file a__smiling=1__01\.png that is not the one of"):
        merge_folders([tmp_path / "one", tmp_path / "two"], tmp_path / "two")
    assert tree(tmp_path / "two") == before


def test_files_that_no_record_explains_stay(several, tmp_path, whole, tree) -> None:
    target = tmp_path / "mine"
    (target / "deep").mkdir(parents=True)
    mine = next(name for name in whole if name.startswith("deep/"))
    (target / mine).write_bytes(b"mine")
    with pytest.raises(UsageError, match="that is not the one of"):
        merge_folders(several, target)
    assert tree(target) == {mine: b"mine"}


NAMES = st.lists(
    st.tuples(st.text(alphabet="ab.-_", min_size=1, max_size=7), st.booleans()),
    max_size=12,
    unique_by=lambda one: one[0],
)


@given(NAMES)
def test_twins_are_found_wherever_they_stand(names: list[tuple[str, bool]]) -> None:
    """Against a table of all outputs; a source is called with its ending or without."""
    named = {name: name if whole else name.rpartition(".")[0] or name for name, whole in names}
    twins = _Twins()
    with nullcontext() if len({*named.values()}) == len(named) else pytest.raises(UsageError, match="both became"):
        for name in sorted(named, key=os.fsencode):
            twins.refuse(name, [{"output": f"{named[name]}__e__00.png"}])


def test_twins_keep_little_of_many_that_begin_alike() -> None:
    twins = _Twins()
    for i in range(5000):
        twins.refuse(f"d/frame.{i:06d}.png", [{"output": f"d/frame.{i:06d}__e__{k:02d}.png"} for k in range(3)])
    assert sum(map(len, twins._kept.values())) <= 3
