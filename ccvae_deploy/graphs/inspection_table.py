"""What `inspect` shows on a terminal of 80 columns. Every text from a file goes through `printable`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..schema import GraphFile, GraphName, Manifest, TensorSpec, graph_signature
from ..terminal.printable import printable, shortened
from .artefact import Artefact, Metadata

if TYPE_CHECKING:
    from ..inspection import BundleReport

VALUE_LIMIT = 300
"""Characters of one value; `--json` has all of it."""

FIGURES = ("accuracy", "balanced_accuracy")

Rows = Iterable[tuple[str, object]]


def bundle_table(report: "BundleReport") -> Group:
    """Facts, labels, graphs, parity and provenance of a bundle."""
    manifest = report.manifest
    opens, real = report.opens or f"no: {report.problem}", manifest.latent_range
    head: list[tuple[str, object]] = [
        ("bundle", report.path),
        ("opens", opens),
        ("sha256", report.digest),
        ("format", f"{manifest.format}, schema version {manifest.schema_version}"),
        *_model_rows(manifest),
        ("", f"percentiles 1 to 99 of real ones within {min(real.low):.3g} and {max(real.high):.3g}"),
    ]
    graphs = [row for name, entry in manifest.files.items() for row in _graph_rows(entry, report.damaged.get(name))]
    return _spaced(
        _facts(head),
        _labels(manifest, manifest.provenance),
        _titled("graphs", _facts(graphs)),
        _parity(report),
        _quality(report),
        _titled("provenance", _facts(_provenance_rows(manifest.provenance))),
    )


def artefact_table(artefact: Artefact) -> Group:
    """Facts and labels of one file, and what else its metadata hold."""
    metadata = artefact.metadata
    extra: dict[str, Any] = metadata.model_extra or {}
    head: list[tuple[str, object]] = [
        ("file", artefact.path),
        ("holds", f"the {metadata.graph} of a model" if metadata.graph else "a checkpoint: weights and optimiser"),
        ("format", f"{artefact.format}, {artefact.bytes:,} bytes, schema version {metadata.schema_version}"),
        ("sha256", artefact.sha256),
    ]
    if artefact.format == "onnx":
        head.insert(1, ("opens", f"no: {artefact.problem}" if artefact.problem else "yes, on CPUExecutionProvider"))
    if metadata.graph:
        inputs, outputs = _signature(metadata)
        head.append(("computes", f"{inputs} -> {outputs}"))
    provenance = extra.get("provenance")
    rest = {name: value for name, value in extra.items() if name not in ("provenance", "latent_range")}
    details = [(name, _counts(value) if isinstance(value, dict) else value) for name, value in artefact.details.items()]
    known = provenance if isinstance(provenance, dict) else {}
    return _spaced(
        _facts([*head, *_model_rows(metadata), *details]),
        _labels(metadata, known),
        *([_titled("metadata", _facts(_flat(rest)))] if rest else []),
        *([_titled("provenance", _facts(_provenance_rows(known)))] if known else []),
    )


def _model_rows(source: Manifest | Metadata) -> Rows:
    model, layout, image = source.model, source.layout, source.image
    scale = f" of scale {model.likelihood_scale:g}" if model.likelihood == "laplace" else ""
    yield "model", f"{model.family}, {model.likelihood} likelihood{scale}"
    low, high = image.range
    yield (
        "image",
        f"{image.size}x{image.size} {image.mode}, float32 in [{low:g}, {high:g}], resized by the {image.resize} filter",
    )
    yield "latents", f"{layout.size}: {layout.z_c} of labels, then {layout.residual} residual"


def _labels(source: Manifest | Metadata, provenance: Mapping[str, Any]) -> Table:
    """One line per label: classes and prior, its latents, how well it was told on validation images."""
    figures = provenance.get("validation")
    by_label = figures.get("by_label") if isinstance(figures, dict) else None
    by_label = by_label if isinstance(by_label, dict) else {}
    table = _columns(f"{len(source.labels.labels)} labels", "label", "p(y)", "latents", *(FIGURES if by_label else ()))
    for label, columns, block in zip(source.labels.labels, source.labels.columns, source.layout.slices, strict=True):
        prior = source.label_prior[columns]
        if label.kind == "binary":
            shown = f"{prior[0]:.3f}" + ("" if label.classes == ("0", "1") else f" {label.classes[1]}")
        else:
            shown = "  ".join(f"{name} {p:.3f}" for name, p in zip(label.classes, prior, strict=True))
        one = by_label.get(label.name, {})
        told = [one.get(name, "") if isinstance(one, dict) else "" for name in (FIGURES if by_label else ())]
        latents = f"{block.start}" if block.stop - block.start == 1 else f"{block.start}..{block.stop - 1}"
        table.add_row(*map(_text, (label.name, shown, latents, *map(_figure, told))))
    return table


def _graph_rows(entry: GraphFile, damage: str | None) -> Rows:
    opset = f", opset {entry.opset}" if entry.opset is not None else ""
    yield "file", f"{entry.file}: {entry.format}, {entry.precision}{opset}, {entry.bytes:,} bytes"
    yield "", f"{_tensors(entry.inputs)} -> {_tensors(entry.outputs)}"
    yield "sha256", entry.sha256
    if damage:
        yield "damaged", damage


def _signature(metadata: Metadata) -> tuple[str, str]:
    graph: GraphName = metadata.graph or "encoder"
    inputs, outputs = graph_signature(graph, metadata.labels, metadata.layout, metadata.image)
    return _tensors(inputs), _tensors(outputs)


def _tensors(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(
        f"{spec.name} ({', '.join('N' if side < 0 else str(side) for side in spec.shape)})" for spec in specs
    )


def _parity(report: "BundleReport") -> Table:
    if report.parity is None:
        return _facts([("parity", "no readable parity.json")])
    table = _columns("parity, worst batch", "graph", "compared", "worst", "allowed", "unit", "held")
    for one in report.parity:
        allowed = "gate" if one.worst.tolerance is None else f"{one.worst.tolerance:.2g}"
        compared = f"{one.reference}, {one.backend}".removesuffix("ExecutionProvider")
        held = "yes" if one.ok else "NO"
        table.add_row(*map(_text, (one.graph, compared, f"{one.worst.max_abs:.2g}", allowed, one.worst.unit, held)))
    return table


def _quality(report: "BundleReport") -> Table:
    if report.quality is None:
        return _facts([("quality", "not in parity.json")])
    one = report.quality
    rows = [
        ("judged on", f"{one.images} {one.judged_on}"),
        (
            "pixels",
            f"differ by {one.mean:.3f} levels of 255 on average, {one.p999:.0f} at 99.9 %, {one.worst:.0f} at most",
        ),
        ("labels", f"{one.disagreement:.2%} of decisions on the sources differ"),
        ("receipts", f"`reached` differs on {one.flips:.2%}"),
        *([] if one.spread is None else [("z_scale", f"differs by {one.spread:.2%} at 99 %")]),
        ("gate", "held" if one.ok else "DID NOT HOLD"),
    ]
    return _facts([("edits beside the model's", ""), *rows])


def _provenance_rows(provenance: Mapping[str, Any]) -> Rows:
    """Everything but the figures by label, which stand in the table of labels."""
    for name, value in _flat(provenance):
        if not name.startswith(("validation.by_label.", "label_frequency.")):
            yield name, value


def _flat(content: Mapping[str, Any], prefix: str = "") -> Rows:
    """Nested mappings as dotted names, two deep; what lies deeper stays as it is written in JSON."""
    for name, value in content.items():
        if isinstance(value, dict) and prefix.count(".") < 2:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _facts(rows: Rows) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", max_width=32, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(_text(name), _text(_figure(value)))
    return table


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for name in names:
        numeric = name in ("latents", *FIGURES, "worst", "allowed")
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    return table


def _titled(title: str, table: Table) -> Table:
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    return table


def _figure(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counts(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _text(value: str) -> Text:
    """No markup, no control characters, a bounded length."""
    return Text(printable(shortened(value, VALUE_LIMIT)))


def _spaced(*tables: Table) -> Group:
    parts: list[Table | str] = []
    for table in tables:
        parts += [table, ""]
    return Group(*parts[:-1])
