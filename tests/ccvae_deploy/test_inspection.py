"""`inspect`: all that a bundle says, readable at 80 columns, for machines, and harmless to a terminal."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.errors import BundleError
from ccvae_deploy.inspection import inspect, read_measurements


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown(report) -> str:
    console = Console(width=80, record=True, file=io.StringIO(), highlight=False)
    console.print(report.table())
    return console.export_text()


def rewrite(bundle: Path, change) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    change(content)
    (bundle / "manifest.json").write_text(json.dumps(content))


def parity_row(**changes: object) -> dict[str, object]:
    row = {"graph": "decoder", "backend": "CPUExecutionProvider", "batch": 1, "unit": "float", "max_abs": 1e-6}
    return {**row, "p99": 1e-7, "tolerance": 1e-4, "ok": True, **changes}


ENDLESS = json.dumps([parity_row(max_abs=float("inf"))])


def test_a_bundle_says_everything_within_80_columns(own_bundle: Path) -> None:
    (own_bundle / "parity.json").write_text(json.dumps([parity_row(), parity_row(batch=17, max_abs=2e-5)]))
    by_label = {"Young": {"accuracy": 0.875, "balanced_accuracy": 0.75}}
    provenance = {"data": "portraits", "epochs_done": 8, "validation": {"l1": 0.048, "by_label": by_label}}
    rewrite(own_bundle, lambda content: content.update(provenance=provenance))
    report = inspect(str(own_bundle))
    text = shown(report)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 80
    for expected in (
        "opens yes, on CPUExecutionProvider",
        "format onnx, schema version 1",
        "model ccvae, laplace likelihood of scale 1",
        "image 32x32 RGB, float32 in [0, 1], resized by the bilinear filter",
        "latents 8: 3 of labels, then 5 residual",
        "percentiles 1 to 99 of real ones within -3 and 3",
        "Wearing_Hat 0.200 1",
        "Young 0.700 2 0.875 0.75",
        "image (N, 3, 32, 32) -> z_loc (N, 8), z_scale (N, 8)",
        "decoder eager torch, CPU 2e-05 0.0001 float yes",
        "data portraits",
        "validation.l1 0.048",
    ):
        assert expected in lines, expected
    for path in own_bundle.glob("*.onnx"):
        assert f"{path.name}: onnx, fp32, opset 18, {path.stat().st_size:,} bytes" in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert hashlib.sha256((own_bundle / "manifest.json").read_bytes()).hexdigest() in text


def test_json_holds_the_whole_manifest(tiny_bundle: Path) -> None:
    result = invoke("inspect", tiny_bundle, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["manifest"] == json.loads((tiny_bundle / "manifest.json").read_text())
    assert (found["kind"], found["opens"], found["problem"]) == ("bundle", "yes, on CPUExecutionProvider", None)
    assert found["parity"] is None


def test_the_manifest_stands_for_its_bundle(tiny_bundle: Path) -> None:
    found = inspect(tiny_bundle / "manifest.json")
    assert (found.path, found.digest) == (tiny_bundle, inspect(tiny_bundle).digest)


def test_a_damaged_graph_is_named_and_the_rest_still_shown(own_bundle: Path) -> None:
    with (own_bundle / "decoder.onnx").open("ab") as file:
        file.write(b"x")
    report = inspect(own_bundle)
    assert list(report.damaged) == ["decoder"]
    assert report.opens is None
    assert "hash differs" in report.problem
    result = invoke("inspect", own_bundle)
    assert result.exit_code == 1
    assert "Wearing_Hat" in result.stdout
    assert "damaged" in result.stdout


def test_a_bundle_that_does_not_open_says_why(own_bundle: Path, graphs) -> None:
    data = graphs["decoder"].replace(b"Sigmoid", b"Softmax")
    (own_bundle / "decoder.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    rewrite(own_bundle, lambda content: content["files"]["decoder"].update(sha256=digest))
    report = inspect(own_bundle)
    assert not report.damaged
    assert "uses the operator Softmax" in report.problem


@pytest.mark.parametrize(("format", "ending", "reason"), [("torchscript", "pt", "code"), ("pt2", "pt2", "for torch")])
def test_graphs_that_are_code_are_not_loaded(own_bundle: Path, format: str, ending: str, reason: str) -> None:
    for path in own_bundle.glob("*.onnx"):
        path.rename(path.with_suffix(f".{ending}"))

    def change(content):
        for name, entry in content["files"].items():
            entry.update(format=format, file=f"{name}.{ending}", opset=None)

    rewrite(own_bundle, change)
    report = inspect(own_bundle)
    assert report.problem is None
    assert report.opens.startswith("not tried")
    assert reason in report.opens


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_names_from_strangers_cannot_drive_the_terminal(own_bundle: Path, option: list[str]) -> None:
    hostile = "\x1b]0;owned\x07[bold red]x[/] \u202e\x9b2J:smile:\nopens yes\x7f"
    name = "Smiling [red]:smile:"

    def change(content):
        content["provenance"] = {hostile: hostile, "data": hostile, "validation": {"by_label": {name: hostile}}}
        content["labels"]["labels"][0]["name"] = name

    rewrite(own_bundle, change)
    result = invoke("inspect", own_bundle, *option)
    assert result.exit_code == 0, result.stderr
    assert all(line.isprintable() for line in result.stdout.splitlines())
    if not option:
        assert name in result.stdout
        assert ":smile:" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_message_from_a_strangers_file_cannot_drive_the_terminal(own_bundle: Path) -> None:
    rewrite(own_bundle, lambda content: content.update({"\x1b[31m": 1}))
    result = invoke("inspect", own_bundle)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "\x1b" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_odd_provenance_is_shown_as_far_as_it_goes(own_bundle: Path) -> None:
    deep: dict[str, object] = {}
    deep["a"] = {"b": {"c": {"d": {"e": [1, None, "x" * 9999]}}}}
    validation = {"by_label": [3], "accuracy": None}
    rewrite(own_bundle, lambda content: content.update(provenance={**deep, "validation": validation}))
    assert max(map(len, shown(inspect(own_bundle)).splitlines())) <= 80


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", json.dumps([{"graph": "decoder"}]), json.dumps({"rows": 3}), ENDLESS, "[" * 99999]
)
def test_a_parity_report_that_is_none_is_passed_over(own_bundle: Path, content: str) -> None:
    (own_bundle / "parity.json").write_text(content)
    assert read_measurements(own_bundle)[0] is None
    assert inspect(own_bundle).problem is None


def test_parity_is_summed_up_by_its_worst_row(own_bundle: Path, tmp_path: Path) -> None:
    rows = [
        parity_row(max_abs=5e-5, tolerance=1e-3),
        parity_row(batch=2, max_abs=2e-4, ok=False),
        parity_row(backend="torch cpu", max_abs=0.0),
    ]
    (own_bundle / "parity.json").write_text(json.dumps({"rows": rows}))
    first, second = read_measurements(own_bundle)[0]
    assert (first.batches, first.worst.batch, first.ok) == ((1, 2), 2, False)
    assert (second.backend, second.worst.max_abs, second.ok) == ("torch cpu", 0.0, True)
    (own_bundle / "parity.json").rename(tmp_path / "elsewhere.json")
    (own_bundle / "parity.json").symlink_to(tmp_path / "elsewhere.json")
    assert read_measurements(own_bundle)[0] is None


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        inspect(tmp_path / "absent")
    result = invoke("inspect", tmp_path)
    assert result.exit_code == 2
    assert "no manifest.json" in result.stderr
    (tmp_path / "Makefile").write_text("x" * 300)
    result = invoke("inspect", tmp_path / "Makefile")
    assert result.exit_code == 2
    assert "xxx" not in result.stderr


def test_the_last_bundle_where_links_are_refused(own_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/first").mkdir(parents=True)
    own_bundle.rename("runs/first/bundle-onnx")
    (tmp_path / "runs/latest").write_text("first\n")
    assert inspect(Path("runs/latest/bundle-onnx")).opens
