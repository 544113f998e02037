"""Where sources lay: another image of the same name is told from one that has changed or moved."""

import json
from pathlib import Path

import pytest

from ccvae_deploy.records.roots import Roots


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def known(out: Path, text: object, now: dict[str, str]) -> Roots:
    (out / "roots.json").write_text(json.dumps(text))
    roots = Roots(now)
    roots.read(out, "roots.json")
    return roots


def test_several_files_are_joined(tmp_path: Path) -> None:
    roots = known(tmp_path, {"": ["/a", "/b"], "x/": ["/x"]}, {})
    (tmp_path / "more.json").write_text(json.dumps({"": ["/c", "/a"]}))
    roots.read(tmp_path, "more.json")
    roots.read(tmp_path, "absent.json")
    assert json.loads(roots.text()) == {"": ["/a", "/b", "/c"], "x/": ["/x"]}


def test_those_of_a_run_are_added_once(tmp_path: Path) -> None:
    roots = Roots({"": "/a", "b.png": "/b", "c/": "/c"})
    assert (roots.add(), roots.add()) == (True, False)
    assert json.loads(roots.text()) == {"": ["/a", "/b"], "c/": ["/c"]}


def test_of_one_folder_and_of_single_images(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    touch(old / "a.png", old / "deep/b.png", new / "a.png")
    for now in ({"": str(new)}, {"a.png": str(new), "": "/elsewhere"}):
        roots = known(tmp_path, {"": [str(new), str(old)]}, now)
        assert roots.elsewhere("a.png") == f"{old}/a.png"
    roots = known(tmp_path, {"": [str(new), str(old)]}, {"": str(new)})
    assert roots.elsewhere("deep/b.png") == f"{old}/deep/b.png"
    assert roots.elsewhere("c.png") is None
    # of a folder that is given now, the same image may have changed
    assert known(tmp_path, {"": [str(new)]}, {"": str(new)}).elsewhere("a.png") is None
    assert known(tmp_path, {"": [str(old)]}, {"b.png": str(new)}).elsewhere("a.png") is None


def test_of_several_folders_each_has_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "2023/x/a.png", tmp_path / "2024/x/a.png", tmp_path / "2024/y/a.png")
    now = {"x/": f"{tmp_path}/2024/x", "y/": f"{tmp_path}/2024/y"}
    roots = known(tmp_path, {"x/": [f"{tmp_path}/2023/x"], "y/": [f"{tmp_path}/2023/y"]}, now)
    assert roots.elsewhere("x/a.png") == f"{tmp_path}/2023/x/a.png"
    assert roots.elsewhere("y/a.png") is None


def test_what_cannot_be_told_counts_as_there(tmp_path: Path) -> None:
    roots = known(tmp_path, {"": ["nosuch://bucket/imgs"]}, {"": str(tmp_path)})
    assert roots.elsewhere("a.png") == "nosuch://bucket/imgs/a.png"


@pytest.mark.parametrize("text", [[], {"": "/a"}, {"": [1]}, {"": None}])
def test_what_is_no_list_of_folders(tmp_path: Path, text: object) -> None:
    with pytest.raises(TypeError, match=r"roots\.json is no list of folders"):
        known(tmp_path, text, {})
