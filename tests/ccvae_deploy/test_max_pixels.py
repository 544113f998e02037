"""Every command that reads images takes `--max-pixels`, and all but `edit` refuse URLs in one line."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy.cli import app

COMMANDS = {
    "edit": (["--set", "smiling=1", "--no-sheet"], "out"),
    "classify": ([], "out.csv"),
    "encode": ([], "out.safetensors"),
    "swap": (["--from", "{imgs}/small.png", "--labels", "smiling", "--no-sheet"], "out"),
    "traverse": (["--labels", "smiling"], "out.png"),
    "variance": (["--samples", "2"], "out.png"),
}


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    """A small and a larger picture."""
    folder = tmp_path / "imgs"
    folder.mkdir()
    Image.new("RGB", (40, 40), "teal").save(folder / "small.png")
    Image.new("RGB", (60, 60), "teal").save(folder / "larger.png")
    return folder


@pytest.fixture
def call(tiny_bundle: Path, imgs: Path, tmp_path: Path):
    """Run a command on an input with its usual options."""

    def run(command: str, given: object, *more: str, out: object = None):
        options, name = COMMANDS[command]
        line = [command, given, "--bundle", tiny_bundle, "--out", out or tmp_path / name, "--provider", "cpu"]
        return CliRunner().invoke(app, [*map(str, line), *(one.format(imgs=imgs) for one in options), *more])

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_larger_picture_is_passed_over_or_refused(command: str, call, imgs: Path) -> None:
    one = command in ("traverse", "variance")
    result = call(command, imgs / "larger.png" if one else imgs, "--max-pixels", "2000")
    assert result.exit_code == (2 if one else 1), result.output
    said = result.output + "".join(path.read_text("ascii") for path in imgs.parent.rglob("*.failures.jsonl"))
    said += "".join(path.read_text("ascii") for path in imgs.parent.rglob("failures.jsonl"))
    said += "".join(path.read_text("ascii") for path in imgs.parent.glob("out.csv"))
    assert "3,600 pixels, the limit is 2,000" in said
    assert call(command, imgs / "small.png", "--max-pixels", "2000", "--overwrite").exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_out_of_range_is_refused(command: str, call, imgs: Path) -> None:
    for limit in ("0", "200000000"):
        result = call(command, imgs / "small.png", "--max-pixels", limit)
        assert result.exit_code == 2
        assert f"--max-pixels {limit}: expected 1 to 178956970" in result.stderr


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "edit"])
def test_urls_are_refused_in_one_line(command: str, call, imgs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for result in (
        call(command, "s3://bucket/a.png"),
        call(command, imgs / "small.png", out=f"s3://bucket/{COMMANDS[command][1]}"),
    ):
        assert result.exit_code == 2
        assert "s3://bucket/" in result.stderr
        assert "a URL, which only images and --out of `edit` may be; give a path of this machine" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imgs"]


def test_a_folder_that_is_called_like_a_url_is_a_folder(call, imgs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    imgs.rename(tmp_path / "s3:")
    assert call("classify", Path("s3:/small.png")).exit_code == 0
