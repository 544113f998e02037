"""Golden bundles of schema version 1: what was written once opens in every later version and gives the same."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.cli import app
from ccvae_deploy.editor import Editor
from ccvae_deploy.errors import BundleError
from ccvae_deploy.schema import GRAPHS

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLES = sorted(path.parent.name for path in GOLDEN.glob("*/manifest.json"))
TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3, "int8": 2e-2}
"""Other processors round otherwise; a step of an int8 image is about 4e-3."""


def test_every_form_of_version_1_is_there() -> None:
    assert {"v1-onnx-fp32", "v1-onnx-fp16", "v1-onnx-int8", "v1-torchscript-fp32"} <= set(BUNDLES)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 300 << 10


@pytest.mark.parametrize("name", BUNDLES)
def test_golden_bundles_give_what_they_gave(name: str) -> None:
    if "torchscript" in name:
        pytest.importorskip("torch")
    bundle = open_bundle(GOLDEN / name, provider="cpu", allow_torchscript=True, threads=1)
    assert bundle.manifest.schema_version == 1
    expected = load_file(GOLDEN / name / "expected.safetensors")
    for graph in GRAPHS:
        entry = bundle.manifest.files[graph]
        found = bundle.graphs[graph](expected[f"{graph}.{entry.inputs[0].name}"])
        for spec, array in zip(entry.outputs, found, strict=True):
            np.testing.assert_allclose(
                array, expected[f"{graph}.{spec.name}"], rtol=1e-4, atol=TOLERANCES[entry.precision], err_msg=graph
            )


def test_torchscript_needs_permission_whatever_opens_it(pictures: Path, tmp_path: Path) -> None:
    bundle = GOLDEN / "v1-torchscript-fp32"
    for opening in (open_bundle, Editor.open):
        with pytest.raises(BundleError, match="code that runs as you"):
            opening(bundle)
    out = tmp_path / "out"
    command = ["edit", str(pictures), "--set", "smiling=1", "--bundle", str(bundle), "--out", str(out), "--no-sheet"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "add --allow-torchscript if you trust it" in refused.stderr
    assert not out.exists()
    pytest.importorskip("torch")
    allowed = CliRunner().invoke(app, [*command, "--allow-torchscript"])
    assert allowed.exit_code == 0, allowed.output
    assert len(list(out.rglob("*.*"))) > len(list(pictures.rglob("*.*")))


def test_the_runtime_never_gives_that_permission_itself() -> None:
    root = Path(__file__).parents[2]
    sources = [path for package in ("ccvae_deploy", "train") for path in (root / package).rglob("*.py")]
    assert [path.name for path in sources if "allow_torchscript=True" in path.read_text("utf-8")] == []
    assert len(sources) > 20
