"""The three commands as the README has them, typed exactly so, in a folder with nothing but `imgs/`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_train.datasets import embedded


def test_train_export_and_edit_find_what_the_one_before_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer portraits than the command draws; all else is its default."""
    monkeypatch.setattr(embedded, "TRAINING", 128)
    monkeypatch.setattr(embedded, "VALIDATION", 64)
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(line: str) -> str:
        result = CliRunner().invoke(app, line.split()[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run("ccvae-deploy data portraits made --count 3 --seed 5")
    Path("made/images").rename("imgs")
    run("ccvae-deploy train")
    run("ccvae-deploy export --format onnx")
    said = run("ccvae-deploy edit imgs/ --set smiling=1 --samples 8")
    assert "24 images" in said
    out = Path("imgs-edited")
    rows = [json.loads(line) for line in (out / "receipts.jsonl").read_text().splitlines()]
    assert [row["output"] for row in rows] == [f"00000{n}__smiling=1__0{k}.png" for n in range(3) for k in range(8)]
    assert all((out / row["output"]).stat().st_size == row["output_bytes"] for row in rows)
    assert {row["asked"]["smiling"] for row in rows} == {1}
    assert (out / "sheet.png").exists()
    assert (out / "failures.jsonl").read_bytes() == b""
    assert sorted(path.name for path in Path("runs/latest/grids").iterdir()) == [
        "epoch-0001.png",
        "epoch-0005.png",
        "epoch-0008.png",
    ]
