"""A disk that is full while bundles are written: which one it was, what is written, and nothing half."""

import errno
import os
from pathlib import Path

import pytest

from ccvae_deploy.bundle import read_manifest
from ccvae_deploy.errors import BundleError, WriteError
from ccvae_export import bundle_folder, export
from ccvae_export.export import export_run

from .conftest import write_run

FORMATS = ("onnx", "torchscript")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def left(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if "bundle" in path.name)


def export_refused(run: Path, refusal: type[Exception] = WriteError) -> str:
    with pytest.raises(refusal) as caught:
        export_run(run, FORMATS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("at", [0, 1])
def test_graphs_that_cannot_be_written_name_their_own_bundle(run: Path, at: int, monkeypatch) -> None:
    write, format = export.write_graphs, FORMATS[at]

    def written(trained, one, chosen, folder):
        if one == format and folder.parent == run.resolve():
            full()
        return write(trained, one, chosen, folder)

    monkeypatch.setattr(export, "write_graphs", written)
    assert export_refused(run) == (
        f"cannot write {run}/bundle-{format}: No space left on device; make room, or give another --out, "
        "and start again"
    )
    assert left(run) == []


def test_a_report_that_cannot_be_written_leaves_no_bundle(run: Path, monkeypatch) -> None:
    monkeypatch.setattr(export, "write_card", full)
    assert export_refused(run).startswith(f"cannot write {run}/bundle-onnx: No space left on device; make room")
    assert left(run) == []


def test_the_bundle_that_is_in_its_place_is_named_where_the_next_cannot_be_put(run: Path, monkeypatch) -> None:
    swap = bundle_folder.swap

    def refused(beside: Path, target: Path) -> None:
        full() if target.name == "bundle-torchscript" else swap(beside, target)

    monkeypatch.setattr(bundle_folder, "swap", refused)
    assert f"bundle-torchscript: No space left on device (written: {run}/bundle-onnx); make" in export_refused(run)
    assert left(run) == ["bundle-onnx"]
    assert read_manifest(run / "bundle-onnx")[0].format == "onnx"


def test_a_folder_that_cannot_be_made_is_a_refusal(run: Path, monkeypatch) -> None:
    mkdir = Path.mkdir

    def refused(self: Path, *given: object, **named: object) -> None:
        full() if self.name.startswith(".bundle-torchscript.") else mkdir(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refused)
    said = export_refused(run, BundleError)
    assert said == f"cannot write {run}/bundle-torchscript: No space left on device; give another --out"
    assert left(run) == []
