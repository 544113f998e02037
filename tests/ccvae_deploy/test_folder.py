"""Scanning and naming: order, collisions, limits."""

import os
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_deploy.errors import UsageError
from ccvae_deploy.folder import (
    Source,
    check_out,
    default_out,
    in_shard,
    lying_below,
    output_name,
    output_stems,
    parse_shard,
    part_of,
    roots,
    scan,
    spread_sample,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relatives(*inputs: Path) -> list[str]:
    return [source.relative for source in scan(inputs).sources]


def test_scan_is_sorted_recursive_and_counts_what_it_passes_over(tmp_path: Path) -> None:
    touch(tmp_path, "z.PNG", "a/b/c.jpeg", "a/x.txt", ".hidden.png", ".git/y.png", "B.jpg")
    found = scan([tmp_path])
    assert [source.relative for source in found.sources] == ["B.jpg", "a/b/c.jpeg", "z.PNG"]
    assert found.ignored == 2


def test_sheets_of_earlier_runs_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "run/sheet.png", "run/receipts.jsonl", "run/a.png", "run/sheet__smiling=1__00.png")
    touch(tmp_path, "shard/sheet-0-of-2.png", "shard/sheet-1-of-2.png", "shard/receipts-0-of-2.jsonl")
    touch(tmp_path, "bundle/sheet.png", "bundle/manifest.json", "mine/sheet.png", "mine/manifest.txt")
    found = scan([tmp_path])
    assert [source.relative for source in found.sources] == [
        "mine/sheet.png",
        "run/a.png",
        "run/sheet__smiling=1__00.png",
        "shard/sheet-1-of-2.png",
    ]
    assert found.ignored == 7
    assert relatives(tmp_path / "run/sheet.png") == ["sheet.png"]


def test_files_named_explicitly_need_no_ending(tmp_path: Path) -> None:
    touch(tmp_path, "portrait")
    assert relatives(tmp_path / "portrait") == ["portrait"]


def test_several_inputs_are_mirrored_under_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png", "b.png")
    assert relatives(tmp_path / "one", tmp_path / "two", tmp_path / "b.png") == ["b.png", "one/a.png", "two/a.png"]
    assert relatives(tmp_path / "b.png", tmp_path / "b.png") == ["b.png"]


def test_a_file_that_is_given_twice_is_one_source(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "one/deep/b.png", "one/.c.png")
    (tmp_path / "one/link.png").symlink_to("a.png")
    (tmp_path / "two").symlink_to("one")
    given = [tmp_path / "one/a.png", tmp_path / "two/deep", tmp_path / "one", tmp_path / "one/.c.png"]
    expected = [".c.png", "one/a.png", "one/deep/b.png", "one/link.png"]
    assert relatives(*given) == relatives(*reversed(given)) == expected
    assert relatives(tmp_path / "one/a.png", tmp_path / "two/a.png") == ["a.png"]


def test_a_link_that_leads_nowhere_in_a_folder_that_is_given_twice_is_one_source(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/one/b.png")
    for name, target in (("one/gone.png", "nowhere.png"), ("one/loop.png", "loop.png")):
        (tmp_path / name).symlink_to(target)
    given = [tmp_path / "one", tmp_path / "two/../one"]
    assert relatives(*given) == ["one/a.png", "one/gone.png", "one/loop.png"]
    (tmp_path / "two/one/gone.png").symlink_to("nowhere.png")
    with pytest.raises(UsageError, match=r"would both become one/gone\.png"):
        scan([tmp_path / "one", tmp_path / "two/one"])


def test_two_sources_for_one_place_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png")
    with pytest.raises(UsageError, match=r"would both become a\.png"):
        scan([tmp_path / "one/a.png", tmp_path / "two/a.png"])


def test_nothing_to_do_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"no image in .*1 other file\)"):
        scan([tmp_path])
    with pytest.raises(UsageError, match="does not exist"):
        scan([tmp_path / "absent"])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no image in .*\(0 other files\); expected files such as"):
        scan([tmp_path])


def test_linked_folders_are_not_followed_and_linked_files_are(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "else/b.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/c.png").symlink_to(tmp_path / "else/b.png")
    assert relatives(tmp_path / "in") == ["a.png", "c.png"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb"):  # noqa: PTH123
        pass
    (source,) = scan([tmp_path]).sources
    assert os.fsencode(output_name(output_stems([source])[0], "smiling=1", 3, "png")) == b"caf\xe9__smiling=1__03.png"


def test_a_folder_that_cannot_be_read_is_refused_and_not_left_out(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    listing = os.scandir

    def locked(path: str) -> object:
        # for the superuser permissions are no obstacle
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UsageError, match=r"locked cannot be read: Permission denied; fix its permissions or leave it"):
        scan([tmp_path])


def test_default_out(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "link").symlink_to("imgs")
    assert default_out([tmp_path / "imgs"]) == default_out([tmp_path / "link"]) == Path("imgs-edited")
    assert default_out([tmp_path / "imgs" / "a.png"]) == Path("edited")
    assert default_out([tmp_path / "imgs", tmp_path / "a.png"]) == Path("edited")
    monkeypatch.chdir(tmp_path / "imgs")
    assert default_out([Path()], "swapped") == Path("imgs-swapped")


def test_what_lies_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "out/deep/a.png", "out2/b.png")
    (tmp_path / "link").symlink_to("out/deep")
    places = [tmp_path / "out/deep/a.png", tmp_path / "link/a.png", tmp_path / "out2/b.png", tmp_path / "out"]
    assert lying_below(tmp_path / "out", places) == {"deep/a.png"}


def test_roots_are_what_scan_puts_paths_below(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png", "b.png")
    assert roots([tmp_path / "one"]) == {"": f"{tmp_path}/one"}
    several = [tmp_path / "one", tmp_path / "two", tmp_path / "b.png"]
    assert roots(several) == {"one/": f"{tmp_path}/one", "two/": f"{tmp_path}/two", "b.png": str(tmp_path)}


@pytest.mark.parametrize("out", ["imgs", "imgs/out", "imgs/../imgs/deep"])
def test_output_inside_the_input_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "imgs").mkdir()
    with pytest.raises(UsageError, match="lies inside the input folder"):
        check_out(tmp_path / out, [tmp_path / "imgs"])


@pytest.mark.parametrize(("inputs", "inside"), [(["data/train", "data/val"], True), (["data/val"], False)])
def test_results_inside_an_input_are_refused(tmp_path: Path, inputs: list[str], inside: bool) -> None:
    """Several folders are mirrored under their names, which are their own places where they lie below the output."""
    touch(tmp_path, "data/train/a.png", "data/val/b.png")
    given = [tmp_path / one for one in inputs]
    found = scan(given).sources
    with pytest.raises(UsageError, match="results would lie in") if inside else nullcontext():
        check_out(tmp_path / "data", given, found)
    check_out(tmp_path / "out", given, found)


def test_a_folder_inside_a_folder_of_its_name_is_no_place_for_results(tmp_path: Path) -> None:
    touch(tmp_path, "data/data/a.png")
    with pytest.raises(UsageError, match="results would lie in"):
        check_out(tmp_path, [tmp_path / "data"], scan([tmp_path / "data"]).sources)


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "imgs/a.png", "out")
    with pytest.raises(UsageError, match="is a file"):
        check_out(tmp_path / "out", [tmp_path / "imgs"])


def test_a_larger_sample_holds_a_smaller_one_in_order() -> None:
    sources = [Source(Path(name), name) for name in sorted(f"{i}.png" for i in range(50))]
    small, large = (spread_sample(sources, count) for count in (5, 20))
    assert (len(small), len(large)) == (5, 20)
    assert set(small) < set(large)
    assert list(large) == sorted(large, key=lambda one: one.relative)
    assert spread_sample(sources, 99) == tuple(sources)
    # nor are they those of the first folders
    assert set(large) != set(sources[:20])


def test_shards_of_what_was_found_are_all_of_it(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.png" for i in range(20)), "notes.txt")
    found = scan([tmp_path])
    parts = [part_of(found, f"{i}/3") for i in range(3)]
    assert sorted(one.relative for part in parts for one in part.sources) == sorted(relatives(tmp_path))
    assert [part.ignored for part in parts] == [1, 1, 1]
    assert all(list(part.sources) == [one for one in found.sources if one in part.sources] for part in parts)
    assert part_of(found, None) == found


def stems(*names: str) -> list[str]:
    return output_stems([Source(Path(name), name) for name in names])


def test_stems_keep_the_ending_only_where_they_collide() -> None:
    assert stems("a.jpg", "a.png", "b.png", "d/a.jpg") == ["a.jpg", "a.png", "b", "d/a"]
    assert stems("A.jpg", "a.png") == ["A.jpg", "a.png"]
    assert stems("a.jpg", "a.png", "a.jpg.png") == ["a.jpg", "a.png", "a.jpg.png"]
    assert stems(".png", "d/.hidden.png", "d/none") == [".png", "d/.hidden", "d/none"]


def test_paths_that_some_disks_take_for_one_have_stems_of_their_own() -> None:
    """A disk that ignores case, or how letters are composed, would put the one in the place of the other."""
    assert stems("A/x.png", "a/x.png", "a/y.png") == ["A/x.png~43c7ee2e", "a/x.png~1308aee6", "a/y"]
    found = stems("caf\u00e9.png", "cafe\u0301.png", "Scan.png", "scan.png")
    assert len({unicodedata.normalize("NFC", stem).casefold() for stem in found}) == 4


names = st.lists(st.from_regex(r"([ab]/)?[abA]{1,2}(\.(png|jpg|JPG)){1,2}", fullmatch=True), unique=True, max_size=12)


@given(names)
def test_stems_never_collide(names: list[str]) -> None:
    found = stems(*names)
    assert len({stem.casefold() for stem in found}) == len(names)


@given(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    st.integers(0, 99),
    st.text(),
)
def test_output_names_fit_and_stay_inside(stem: str, sample: int, edit: str) -> None:
    name = output_name(f"folder/{stem}", edit.encode("utf-8", "replace").decode(), sample, "png")
    folder, _, file = name.partition("/")
    assert folder == "folder"
    assert "/" not in file
    assert len(os.fsencode(file)) <= 255
    assert file.endswith(f"__{sample:02d}.png")
    assert file not in (".", "..")


def test_long_names_keep_their_head_and_stay_different() -> None:
    first, second = (output_name("x" * 250 + end, "smiling=1", 0, "jpg") for end in "ab")
    assert first != second
    assert first.startswith("x" * 200)
    assert len(first) <= 255


def test_edits_too_long_for_a_name_stay_different() -> None:
    found = [output_name(f"{folder}/anna", edit * 300, k, "jpg") for folder in "pq" for edit in "ab" for k in (0, 7)]
    assert len(set(found)) == len({name.rpartition("/")[2] for name in found}) == 8
    assert all(name[1:].startswith("/anna~") and name.endswith(("__00.jpg", "__07.jpg")) for name in found)


@pytest.mark.parametrize("text", ["", "1", "1/1", "-1/2", "a/b", "0/0", "1/2/3", "²/3", "0/" + "9" * 30])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N"):
        parse_shard(text)
    with pytest.raises(UsageError, match=r"--shard \(0, 2\): expected I/N"):
        parse_shard((0, 2))


@given(st.text(min_size=1), st.integers(1, 20))
def test_every_source_is_in_one_shard(relative: str, count: int) -> None:
    relative = relative.encode("utf-8", "replace").decode()
    assert sum(in_shard(relative, index, count) for index in range(count)) == 1
    assert parse_shard(f"{count - 1}/{count}") == (count - 1, count)
