"""`export`: a run becomes a bundle. Builds beside the target, checks, then swaps in; writes nothing else."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from ccvae_deploy.bundle import MANIFEST, open_bundle
from ccvae_deploy.errors import BundleError, UsageError, nearest
from ccvae_deploy.schema import GRAPHS, GraphFile, GraphName, Manifest, graph_signature
from ccvae_train.checkpoint import TrainedRun, load_run

from .metadata import graph_metadata
from .model_card import write_card
from .onnx_graphs import OPSET, onnx_graph
from .parity import ParityReport, measure_parity
from .torchscript_graphs import torchscript_graph

if TYPE_CHECKING:
    from rich.table import Table

Format = Literal["onnx", "torchscript"]
FORMATS: dict[str, tuple[Callable[..., bytes], str]] = {
    "onnx": (onnx_graph, "onnx"),
    "torchscript": (torchscript_graph, "pt"),
}


@dataclass(frozen=True)
class ExportReport:
    """Where the bundle is, and how it compares with the model."""

    bundle: Path
    manifest: Manifest
    parity: ParityReport

    def table(self) -> "Table":
        """The parity table."""
        return self.parity.table()


def export_run(run: Path, format: str = "onnx", out: Path | None = None) -> ExportReport:
    """Split a run into its graphs, check them, and write a bundle.

    Args:
        run: a run folder or `runs/latest`.
        format: onnx or torchscript.
        out: the bundle folder; None takes `<run>/bundle-<format>`. Only a folder that holds a bundle is replaced.

    Raises:
        UsageError: an unknown format, or `out` holds something that is no bundle.
        RunError: the run cannot be read.
        ParityError: a graph does not compute what the model computes; no bundle is left behind.
    """
    if format not in FORMATS:
        raise UsageError(f"--format {format!r}: {nearest(format, FORMATS)}")
    trained = load_run(run)
    target = out or trained.path / f"bundle-{format}"
    _refuse_foreign(target)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        manifest = _write_graphs(trained, format, beside)
        parity = measure_parity(trained, open_bundle(beside, provider="cpu", allow_torchscript=True))
        parity.require()
        (beside / "parity.json").write_text(json.dumps(parity.to_json(), indent=2) + "\n", "utf-8")
        write_card(beside, manifest, parity)
        _swap(beside, target)
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}; give another --out") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return ExportReport(target, manifest, parity)


def _write_graphs(run: TrainedRun, format: str, folder: Path) -> Manifest:
    convert, ending = FORMATS[format]
    files: dict[GraphName, GraphFile] = {}
    for name in GRAPHS:
        inputs, outputs = graph_signature(name, run.labels, run.layout, run.image)
        module: torch.nn.Module = getattr(run.model, name)
        data = convert(module, name, inputs, outputs, graph_metadata(run, name))
        entry = GraphFile(
            file=f"{name}.{ending}",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            format=cast("Format", format),
            opset=OPSET if format == "onnx" else None,
            inputs=inputs,
            outputs=outputs,
        )
        (folder / entry.file).write_bytes(data)
        files[name] = entry
    manifest = Manifest(
        model=run.spec,
        labels=run.labels,
        layout=run.layout,
        image=run.image,
        label_prior=run.label_prior,
        latent_range=run.latent_range,
        files=files,
        provenance=run.provenance,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    return manifest


def _refuse_foreign(target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and (not any(target.iterdir()) or (target / MANIFEST).is_file()):
        return
    raise UsageError(f"{target} holds something that is no bundle; give another --out")


def _swap(beside: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.replace(old)
    try:
        beside.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
