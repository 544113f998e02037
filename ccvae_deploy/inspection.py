"""`inspect`: everything a bundle, or one file alone, says of itself, and whether it opens. Reads, writes nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .bundle import MANIFEST, bundle_folder, open_bundle, read_graph, read_manifest
from .errors import CCVAEError
from .graphs.artefact import FORMATS, Artefact, read_artefact
from .latest import follow
from .schema import GraphName, Manifest
from .storage.remote import local_path

if TYPE_CHECKING:
    from rich.console import RenderableType

PARITY = "parity.json"
PARITY_LIMIT = 4 << 20
CHECKPOINT = "checkpoint.safetensors"


class ParityLine(BaseModel):
    """One comparison of `parity.json`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    graph: str
    reference: str = "eager torch"
    backend: str = ""
    batch: int = 0
    unit: str
    max_abs: float
    tolerance: float | None
    ok: bool

    @property
    def strain(self) -> float:
        """The difference as a share of what it may be, or itself where the quality gate judges."""
        return self.max_abs / self.tolerance if self.tolerance else self.max_abs


class QualityLine(BaseModel):
    """What `parity.json` says of the bundle's edits beside the model's; differences are in levels of 255.

    Older bundles have no `spread`.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    images: int
    mean: float
    p999: float
    worst: float
    equal: float
    disagreement: float
    flips: float
    spread: float | None = None
    ok: bool
    judged_on: str = ""


@dataclass(frozen=True)
class ParitySummary:
    """All comparisons of one graph on two backends, the trained model among them.

    Attributes:
        worst: the comparison that came nearest to what it may be; `ok` tells whether every one held.
    """

    graph: str
    reference: str
    backend: str
    batches: tuple[int, ...]
    worst: ParityLine
    ok: bool


@dataclass(frozen=True)
class BundleReport:
    """What a bundle says of itself, and whether it is so.

    Attributes:
        digest: sha256 of manifest.json, which identifies the bundle in receipts.
        damaged: per graph whose file is not the one that the manifest names, what is wrong with it.
        parity, quality: None where `parity.json` does not hold them in a form that can be read.
        opens: what it runs on, or why nobody tried; None where it does not open.
        problem: why it does not open, or None.
    """

    path: Path
    digest: str
    manifest: Manifest
    damaged: Mapping[GraphName, str]
    parity: tuple[ParitySummary, ...] | None
    quality: QualityLine | None
    opens: str | None
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "kind": "bundle",
            "path": str(self.path),
            "digest": self.digest,
            "manifest": json.loads(self.manifest.model_dump_json()),
            "damaged": dict(self.damaged),
            "parity": None if self.parity is None else [_parity_json(summary) for summary in self.parity],
            "quality": None if self.quality is None else self.quality.model_dump(),
            "opens": self.opens,
            "problem": self.problem,
        }

    def table(self) -> "RenderableType":
        """All of it, for people."""
        from .graphs.inspection_table import bundle_table

        return bundle_table(self)


def inspect(path: Path | str, *, allow_torchscript: bool = False) -> BundleReport | Artefact:
    """What a bundle, a run's checkpoint, or one exported file says of itself.

    Args:
        path: a bundle folder or its manifest, a run folder, or one `.onnx`, `.pt`, `.pt2` or `.safetensors` file.
        allow_torchscript: also try whether a TorchScript bundle opens; it is code that runs as you.

    Raises:
        BundleError: there is nothing of ours, or it is too damaged to say anything.
    """
    given = local_path(path)
    path = follow(given) if given.suffix == "" else given
    path = path if path.exists() and path.name != MANIFEST else bundle_folder(path)
    if path.is_file() or (path.suffix.lower() in FORMATS and not path.exists()):
        return read_artefact(path)
    if not (path / MANIFEST).exists() and (path / CHECKPOINT).is_file():
        return read_artefact(path / CHECKPOINT)
    manifest, digest = read_manifest(path)
    damaged = _damaged(path, manifest)
    opens, problem = (None, next(iter(damaged.values()))) if damaged else _opens(path, manifest, allow_torchscript)
    return BundleReport(path, digest, manifest, damaged, *read_measurements(path), opens, problem)


def read_measurements(path: Path) -> tuple[tuple[ParitySummary, ...] | None, QualityLine | None]:
    """Parity, one summary per graph and pair of backends, and quality of a bundle folder; None where not readable."""
    measured = read_measured(path)
    return _parity(measured), _quality(measured)


def read_measured(path: Path) -> Any:
    """What `parity.json` of a bundle folder holds, in whatever form; None where it cannot be read."""
    target = path / PARITY
    if target.is_symlink() or not target.is_file():
        return None
    try:
        with target.open("rb") as file:
            return json.loads(file.read(PARITY_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None


def _parity(measured: Any) -> tuple[ParitySummary, ...] | None:
    rows = measured.get("rows") if isinstance(measured, dict) else measured
    try:
        lines = TypeAdapter(list[ParityLine]).validate_python(rows)
    except ValidationError:
        return None
    grouped: dict[tuple[str, str, str], list[ParityLine]] = {}
    for line in lines:
        grouped.setdefault((line.graph, line.reference, line.backend), []).append(line)
    return tuple(
        ParitySummary(
            *key,
            batches=tuple(line.batch for line in group),
            worst=max(group, key=lambda line: line.strain),
            ok=all(line.ok for line in group),
        )
        for key, group in grouped.items()
    )


def _quality(measured: Any) -> QualityLine | None:
    try:
        return QualityLine.model_validate(measured.get("quality") if isinstance(measured, dict) else None)
    except ValidationError:
        return None


def _damaged(path: Path, manifest: Manifest) -> dict[GraphName, str]:
    found: dict[GraphName, str] = {}
    for name, entry in manifest.files.items():
        try:
            read_graph(path, entry)
        except CCVAEError as error:
            found[name] = str(error)
    return found


def _opens(path: Path, manifest: Manifest, allow_torchscript: bool) -> tuple[str | None, str | None]:
    if manifest.format == "pt2":
        return "not tried: .pt2 graphs are for torch, `edit` does not run them", None
    if manifest.format == "torchscript" and not allow_torchscript:
        return "not tried: TorchScript is code that runs as you; --allow-torchscript tries", None
    try:
        bundle = open_bundle(path, provider="cpu", allow_torchscript=allow_torchscript, threads=1)
    except CCVAEError as error:
        return None, str(error)
    return f"yes, on {bundle.provider}", None


def _parity_json(summary: ParitySummary) -> dict[str, Any]:
    return {**asdict(summary), "worst": summary.worst.model_dump()}
