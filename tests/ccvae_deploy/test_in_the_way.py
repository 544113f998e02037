"""What lies where results go, or is read, is not replaced: links, folders, files in place of folders, sources."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.dry_run import dry_run
from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.swap_folder import swap_folder


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_link_that_leads_nowhere_is_a_file_of_its_owner(imgs, tiny_bundle, tmp_path) -> None:
    image, given = str(imgs / "a.png"), ["--bundle", str(tiny_bundle)]
    commands = {
        "l.safetensors": ["encode", image],
        "t.csv": ["classify", image],
        "v.png": ["variance", image],
        "k.png": ["traverse", image, "--labels", "smiling"],
    }
    for name, command in commands.items():
        (tmp_path / name).symlink_to("nowhere")
        result = CliRunner().invoke(app, [*command, *given, "--out", str(tmp_path / name)])
        assert result.exit_code == 2, result.output
        assert (tmp_path / name).is_symlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a__smiling=b__00.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match="made with other settings or by others"):
        swap_folder(
            [imgs / "a.png"], bundle=tiny_bundle, from_=imgs / "b.png", labels=["smiling"], out=tmp_path / "out"
        )


@pytest.mark.skipif(os.name == "nt", reason="needs links")
@pytest.mark.parametrize("what", ["link", "file"])
def test_what_lies_in_place_of_a_folder_is_refused_before_work(imgs, edit, tiny_bundle, tmp_path, tree, what) -> None:
    (imgs / "deep").mkdir()
    (imgs / "b.png").rename(imgs / "deep/b.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    if what == "link":
        (out / "deep").symlink_to(tmp_path / "elsewhere")
    else:
        (out / "deep").write_text("mine")
    before = tree(out)
    message = "leads outside" if what == "link" else "lies where a folder of results goes"
    with pytest.raises(UsageError, match=message):
        dry_run([imgs], bundle=tiny_bundle, set=["smiling=1"], out=out, provider="cpu")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=message):
            edit(imgs, overwrite=overwrite)
    with pytest.raises(UsageError, match=message):
        swap_folder([imgs], bundle=tiny_bundle, from_=imgs / "a.png", labels=["smiling"], out=out)
    assert tree(out) == before


def test_a_folder_called_like_an_output_is_named(imgs, edit, tmp_path) -> None:
    (tmp_path / "out/a__smiling=1__00.png/inside").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"a__smiling=1__00\.png: .*; move what lies there and start"):
        edit(imgs, overwrite=True)
    (tmp_path / "out/a__smiling=1__00.png").rename(tmp_path / "moved")
    assert edit(imgs).written == 2


def test_what_is_read_is_not_replaced_even_when_files_may_be(imgs: Path, edit) -> None:
    """The output of a.png is among the images of the second run, and its own sheet would take the place of a source."""
    edit(imgs / "a.png", out=imgs)
    before = {path.name: path.read_bytes() for path in imgs.glob("*.png")}
    assert len(before) == 3
    with pytest.raises(UsageError, match=r"a__smiling=1__00\.png is read and would be replaced by an output of a\.png"):
        edit(*sorted(imgs.glob("*.png")), out=imgs, seed=1, overwrite=True)
    (imgs / "sheet.png").write_bytes(before["b.png"])
    with pytest.raises(UsageError, match=r"sheet\.png is read and would be replaced by a page of this run"):
        edit(imgs / "sheet.png", out=imgs, sheet=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in imgs.glob("*.png") if path.name != "sheet.png"} == before
    assert edit(imgs / "b.png", out=imgs, overwrite=True).written == 1


def test_what_is_read_through_a_link_is_not_replaced_either(imgs: Path, tmp_path: Path, edit) -> None:
    edit(imgs / "a.png", out=tmp_path / "out")
    made = next((tmp_path / "out").glob("a__*.png"))
    before = made.read_bytes()
    (imgs / "linked.png").symlink_to(made)
    with pytest.raises(UsageError, match=r"a__smiling=1__00\.png is read and would be replaced by an output of a\.png"):
        edit(imgs, out=tmp_path / "out", seed=1, overwrite=True)
    assert made.read_bytes() == before


def test_swap_replaces_nothing_that_it_reads(imgs: Path, tiny_bundle: Path) -> None:
    options = {"bundle": tiny_bundle, "from_": imgs / "b.png", "labels": ["smiling"], "out": imgs, "sheet": False}
    swap_folder([imgs / "a.png"], **options)
    made = next(path for path in imgs.glob("a__*.png"))
    before = made.read_bytes()
    with pytest.raises(UsageError, match=r"a__.*\.png is read and would be replaced by an output of a\.png"):
        swap_folder([imgs / "a.png", made], overwrite=True, **options)
    assert made.read_bytes() == before
    (imgs / "sheet.png").write_bytes(before)
    with pytest.raises(UsageError, match=r"sheet\.png is read and would be replaced by a page of this run"):
        swap_folder([imgs / "sheet.png"], overwrite=True, **options | {"sheet": True})
    assert (imgs / "sheet.png").read_bytes() == before
