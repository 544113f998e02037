"""`export`: a run becomes bundles, one per format. Builds beside the targets, checks, swaps in; writes nothing else."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from ccvae_deploy.bundle import MANIFEST, Bundle, open_bundle, read_graph, read_manifest
from ccvae_deploy.errors import BundleError, ParityError, ProviderError, UsageError, WriteError, one_line
from ccvae_deploy.inspection import PARITY
from ccvae_deploy.providers import cuda_devices
from ccvae_deploy.schema import ENDINGS, GraphFile, GraphFormat, GraphName, Manifest, graph_signature
from ccvae_deploy.storage.remote import local_path
from ccvae_deploy.storage.store import inside
from ccvae_train.checkpoint import TrainedRun, load_run

from .bundle_folder import WRITTEN, folder_beside, put_back, refuse_foreign, sha256, swap_all, writing
from .choose import choose
from .model_card import CARD, SHEET, write_card
from .onnx_graphs import OPSET
from .parity import EAGER, Graphs, ParityReport, ParityRow, eager_graphs, measure_parity
from .pt2_graphs import load_pt2
from .quality import Quality, QualityGate
from .run_images import RunImages, run_images
from .serialised import Precision, Serialised
from .split_model import split_model
from .variants import refuse_combination, variants

if TYPE_CHECKING:
    from rich.console import RenderableType

Chosen = Mapping[GraphName, Serialised]


@dataclass(frozen=True)
class Exported:
    """One bundle: where it is, what is in it, and how its edits compare with the model's."""

    bundle: Path
    manifest: Manifest
    quality: Quality
    forms: Mapping[GraphName, str]


@dataclass(frozen=True)
class ExportReport:
    """The bundles of one export, and how all of them compare with the model and with each other.

    Attributes:
        judged_on: the images of the quality gate, for people.
        unchecked: why bundles were not compared on the CUDA device that torch has, if so.
    """

    exported: tuple[Exported, ...]
    parity: ParityReport
    judged_on: str
    unchecked: tuple[str, ...] = ()

    @property
    def bundle(self) -> Path:
        """The first bundle."""
        return self.exported[0].bundle

    def table(self) -> "RenderableType":
        """Parity, sizes and the quality gate, within 80 columns."""
        from .report_tables import export_tables

        return export_tables(self)


def export_run(
    run: Path | str, format: str | Sequence[str] = "onnx", out: Path | str | None = None, *, precision: str = "fp32"
) -> ExportReport:
    """Split a run into its graphs, check them, and write a bundle per format.

    A vae-classifier has three graphs, the others four.

    Args:
        run: a run folder or `runs/latest`.
        format: onnx, torchscript or pt2, or several of them.
        out: the bundle folder; None takes `<run>/bundle-<format>`, or `<run>/bundle-<format>-<precision>` when not
            fp32. Only a folder that holds a bundle is replaced, and only while its card is as it was written.
        precision: fp32, fp16, int8 (ONNX only), or auto: per graph the smallest with which the quality gate passes.

    Raises:
        UsageError: an unknown format or precision, a model without such graphs, or `out` is the current folder or holds
            something that is no bundle.
        RunError: the run cannot be read.
        DataError: int8 or auto for ONNX, and the images of the run's data are not there.
        ParityError: a graph does not compute what the model computes, or the quality gate fails; no bundle is left.
        BundleError: no folder can be made where a bundle goes.
        WriteError: the disk is full or refuses; the message names the bundles that are written.
    """
    formats = cast("list[GraphFormat]", list(dict.fromkeys([format] if isinstance(format, str) else format)))
    for one in formats:
        refuse_combination(one, precision)
    if out is not None and len(formats) != 1:
        raise UsageError(f"--out {out} with {len(formats)} formats: it names one bundle; leave it out")
    named = None if out is None else local_path(out)
    trained = load_run(run)
    split_model(trained)
    ending = "" if precision == "fp32" else f"-{precision}"
    targets = {one: named or trained.path / f"bundle-{one}{ending}" for one in formats}
    for target in targets.values():
        if named is None and not inside(target, trained.path):
            raise UsageError(f"{target} is a link out of its run; name where it leads with --out")
        refuse_foreign(target)
    for target in targets.values():
        if put_back(target):
            refuse_foreign(target)
    images = run_images(trained, required="onnx" in formats and precision in ("int8", "auto"))
    gate = QualityGate(eager_graphs(trained), images.judged)
    with contextlib.ExitStack() as stack:
        beside = {one: stack.enter_context(folder_beside(target)) for one, target in targets.items()}
        exported = [_build(trained, one, precision, images, gate, beside[one], targets[one]) for one in formats]
        parity, unchecked = _parity(trained, beside)
        parity.require()
        for one, result in zip(formats, exported, strict=True):
            with writing(result.bundle):
                _describe(beside[one], result, parity, images.source)
        swap_all((beside[one], target) for one, target in targets.items())
    return ExportReport(tuple(exported), parity, images.source, unchecked)


def open_written(folder: Path, device: str = "cpu") -> Bundle:
    """A bundle of any format, opened to be checked; it must be one that this process has written.

    ONNX and TorchScript go through the code that users open them with; `.pt2`, which the runtime does not run, through
    torch's own loader.
    """
    manifest, digest = read_manifest(folder)
    if manifest.format != "pt2":
        return open_bundle(folder, provider=device, allow_torchscript=True)
    place = torch.device(device)
    graphs = {name: load_pt2(read_graph(folder, entry), place) for name, entry in manifest.files.items()}
    return Bundle(manifest, digest, f"torch {device}", "torch.export", graphs)


def _build(
    run: TrainedRun,
    format: GraphFormat,
    precision: str,
    images: RunImages,
    gate: QualityGate,
    folder: Path,
    target: Path,
) -> Exported:
    """Choose every graph's form and write the graphs and the manifest."""
    options = {graph: variants(run, graph, format, precision, images.calibration) for graph in run.spec.graphs}
    exact = {graph: variants(run, graph, format, "fp32", images.calibration)[0] for graph in run.spec.graphs}

    def assemble(chosen: Chosen) -> Bundle:
        # a bundle that is open needs its files no more
        with tempfile.TemporaryDirectory() as trial:
            write_graphs(run, format, chosen, Path(trial))
            return open_written(Path(trial))

    try:
        chosen, quality = choose(options, exact, assemble, gate)
    except BundleError as error:
        raise ParityError(f"{error}; no bundle was written") from error
    except OSError as error:
        raise WriteError(
            f"cannot write in {tempfile.gettempdir()}: {error.strerror or error}; make room there, or set TMPDIR"
        ) from error
    with writing(target):
        manifest = write_graphs(run, format, chosen, folder)
    return Exported(target, manifest, quality, {graph: one.form for graph, one in chosen.items() if one.form})


def write_graphs(run: TrainedRun, format: GraphFormat, chosen: Chosen, folder: Path) -> Manifest:
    """Write graphs and manifest into an empty folder: all that `open_written` needs."""
    files: dict[GraphName, GraphFile] = {}
    for graph, one in chosen.items():
        inputs, outputs = graph_signature(graph, run.labels, run.layout, run.image)
        entry = GraphFile(
            file=f"{graph}.{ENDINGS[format]}",
            sha256=hashlib.sha256(one.data).hexdigest(),
            bytes=len(one.data),
            format=format,
            precision=one.precision,
            opset=OPSET if format == "onnx" else None,
            inputs=inputs,
            outputs=outputs,
        )
        (folder / entry.file).write_bytes(one.data)
        files[graph] = entry
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


def _parity(run: TrainedRun, folders: Mapping[GraphFormat, Path]) -> tuple[ParityReport, tuple[str, ...]]:
    """Eager torch and all formats against each other, on the CPU and on CUDA where torch and a device are there.

    Also why some could not be compared on CUDA, as where this onnxruntime is built without it, or its memory is taken:
    the bundle is the same with and without a GPU.
    """
    rows = _compared(run, {format: open_written(folder) for format, folder in folders.items()}, "cpu")
    unchecked: list[str] = []
    bundles: dict[GraphFormat, Bundle] = {}
    for format, folder in folders.items() if torch.cuda.is_available() and cuda_devices() else ():
        if any(entry.precision == "int8" for entry in read_manifest(folder)[0].files.values()):
            unchecked.append(f"{format} was not checked on CUDA: 8-bit graphs run on the CPU only")
            continue
        try:
            bundles[format] = open_written(folder, "cuda")
        except (ProviderError, BundleError, RuntimeError) as error:
            unchecked.append(f"{format} was not checked on CUDA: {_reason(error)}")
    try:
        rows += _compared(run, bundles, "cuda") if bundles else []
    except (BundleError, RuntimeError) as error:
        unchecked.append(f"{', '.join(bundles)}: not checked on CUDA: {_reason(error)}")
    return ParityReport(tuple(rows)), tuple(unchecked)


def _reason(error: Exception) -> str:
    """What went wrong, without the remedy, which is that of other commands."""
    return one_line(str(error).partition("; ")[0], 300)


def _compared(run: TrainedRun, bundles: Mapping[GraphFormat, Bundle], device: str) -> list[ParityRow]:
    suffix = "" if device == "cpu" else " on CUDA"
    eager = f"{EAGER}{suffix}"
    backends: dict[str, Graphs] = {eager: eager_graphs(run, device)}
    precisions: dict[str, Mapping[GraphName, Precision]] = {eager: dict.fromkeys(run.spec.graphs, "fp32")}
    for format, bundle in bundles.items():
        backends[f"{format}{suffix}"] = bundle.graphs
        precisions[f"{format}{suffix}"] = {graph: entry.precision for graph, entry in bundle.manifest.files.items()}
    return list(measure_parity(run, backends, precisions).rows)


def _describe(folder: Path, exported: Exported, parity: ParityReport, judged_on: str) -> None:
    """What was measured, and the model card."""
    write_card(folder, exported.manifest, parity, exported.quality, open_written(folder))
    content = {
        "rows": parity.to_json(),
        "quality": {**exported.quality.to_json(), "judged_on": judged_on},
        "forms": dict(exported.forms),
        WRITTEN: {name: sha256(folder / name) for name in (CARD, SHEET) if (folder / name).exists()},
    }
    (folder / PARITY).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
