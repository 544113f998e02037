"""What export writes, inspect reads: every file of a run and of its bundles alone says what it is."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.inspection import inspect
from ccvae_export.parity import BATCHES


@pytest.mark.parametrize(("bundle", "format"), [("onnx_bundle", "onnx"), ("torchscript_bundle", "torchscript")])
def test_every_graph_alone_agrees_with_its_manifest(bundle: str, format: str, request) -> None:
    folder: Path = request.getfixturevalue(bundle)
    whole = inspect(folder)
    for name, entry in whole.manifest.files.items():
        alone = inspect(folder / entry.file)
        assert (alone.format, alone.bytes, alone.sha256) == (format, entry.bytes, entry.sha256)
        assert alone.metadata.graph == name
        assert alone.metadata.labels == whole.manifest.labels
        assert alone.metadata.layout == whole.manifest.layout
        assert alone.problem is None


def test_a_bundle_shows_its_parity(onnx_bundle: Path) -> None:
    report = inspect(onnx_bundle)
    assert {summary.graph for summary in report.parity} == {*report.manifest.files, "composed edit"}
    assert all(summary.ok and summary.batches == BATCHES for summary in report.parity)


def test_torchscript_opens_only_when_allowed(torchscript_bundle: Path) -> None:
    assert inspect(torchscript_bundle).opens.startswith("not tried")
    assert inspect(torchscript_bundle, allow_torchscript=True).opens == "yes, on torch cpu"


def test_a_run_shows_its_checkpoint(made_run: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(made_run), "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kind"] == "checkpoint"
    assert found["metadata"]["config"]["latents"] == 10
    assert found["parameters"] > 100_000
    table = CliRunner().invoke(app, ["inspect", str(made_run / "checkpoint.safetensors")]).stdout
    assert "config.image_size" in table
    assert max(map(len, table.splitlines())) <= 80
