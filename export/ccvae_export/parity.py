"""Does an exported bundle compute what the model computes? Every backend against every other, per graph and composed.

Bundles are opened by the code that users open them with. Eager torch runs in float32, with TF32 off on a GPU.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from ccvae_deploy.arrays import Array
from ccvae_deploy.errors import ParityError
from ccvae_deploy.graphs.torchscript import without_tf32
from ccvae_deploy.schema import GRAPHS, GraphName, LabelSet, LatentLayout
from ccvae_train.checkpoint import TrainedRun

from .serialised import Precision

if TYPE_CHECKING:
    from rich.table import Table

Graphs = Mapping[GraphName, Callable[[Array], tuple[Array, ...]]]

EAGER, COMPOSED = "eager torch", "composed edit"
BATCHES = (1, 2, 3, 17, 64)
RANK = ("int8", "fp16", "fp32").index
RELATIVE_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
"""Of max(1, largest value of an output), by the lower precision of the two; what is lower still is for the quality
gate to judge."""
LEVELS_TOLERANCE, UNEQUAL_TOLERANCE = 1.0, 1e-4
"""Of a composed edit in float32: no pixel differs by more levels, and no larger share of pixels differs at all."""


@dataclass(frozen=True)
class ParityRow:
    """One comparison.

    Attributes:
        graph: a graph's name, or `composed edit`.
        reference, backend: what is compared.
        unit: what the figures are in: `float`, or `levels` of 255. They are of that output of the graph which comes
            nearest to what it may differ by.
        max_abs, p99: largest and 99th percentile of the absolute difference.
        unequal: share of values that differ at all.
        tolerance: what max_abs may be; None where the quality gate judges instead.
    """

    graph: str
    reference: str
    backend: str
    batch: int
    unit: str
    max_abs: float
    p99: float
    unequal: float
    tolerance: float | None

    @property
    def ok(self) -> bool:
        """Whether the comparison held."""
        if self.tolerance is None:
            return True
        # below 64 images as many unequal pixels are allowed as in 64
        few = self.unit == "float" or self.unequal <= UNEQUAL_TOLERANCE * max(1.0, 64 / self.batch)
        return self.max_abs <= self.tolerance and few


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of an export."""

    rows: tuple[ParityRow, ...]

    def require(self) -> None:
        """Refuse a bundle that failed.

        Raises:
            ParityError: names the first graph, batch and figure that broke.
        """
        for row in self.rows:
            if not row.ok:
                allowed = f"{row.tolerance:.3g}"
                if row.max_abs <= (row.tolerance or 0):
                    allowed += f" in {UNEQUAL_TOLERANCE * max(1.0, 64 / row.batch):.2%} of values"
                raise ParityError(
                    f"{row.graph} in {row.backend} at batch {row.batch} differs from {row.reference} by "
                    f"{row.max_abs:.3g} ({row.unit}, {row.unequal:.2%} of values), at most {allowed} is "
                    "allowed; no bundle was written"
                )

    def to_json(self) -> list[dict[str, object]]:
        """The rows as `parity.json` holds them."""
        return [{**asdict(row), "ok": row.ok} for row in self.rows]

    def worst(self) -> list[ParityRow]:
        """Per graph and pair of backends, the row of the batch that differs most."""
        found: dict[tuple[str, str, str], ParityRow] = {}
        for row in self.rows:
            key = (row.graph, row.reference, row.backend)
            if key not in found or row.max_abs > found[key].max_abs:
                found[key] = row
        return list(found.values())

    def table(self) -> "Table":
        """One line per graph and pair, its worst batch, within 80 columns."""
        from rich.table import Table

        table = Table(title=f"parity, worst of batches {', '.join(map(str, BATCHES))}", title_justify="left")
        for name in ("graph", "compared", "max |diff|", "p99", "allowed", "unit"):
            table.add_column(name, justify="left" if name in ("graph", "compared", "unit") else "right")
        for row in self.worst():
            allowed = "gate" if row.tolerance is None else f"{row.tolerance:.2g}"
            figures = (f"{row.max_abs:.2g}", f"{row.p99:.2g}", allowed)
            table.add_row(row.graph.replace("_", " "), f"{row.reference}, {row.backend}", *figures, row.unit)
        return table


def measure_parity(
    run: TrainedRun, backends: Mapping[str, Graphs], precisions: Mapping[str, Mapping[GraphName, Precision]]
) -> ParityReport:
    """Compare every backend with every other on made images, at several batch sizes.

    Args:
        backends: name to graphs; the first one is the reference that inputs are made with.
        precisions: of every backend's graphs.
    """
    rows: list[ParityRow] = []
    for batch in BATCHES:
        inputs = _inputs(run, next(iter(backends.values())), batch)
        results = {name: _results(run, graphs, inputs) for name, graphs in backends.items()}
        for names in combinations(backends, 2):
            lower: dict[str, Precision] = {
                graph: min((precisions[name][graph] for name in names), key=RANK) for graph in run.spec.graphs
            }
            for graph in (*run.spec.graphs, COMPOSED):
                precision = lower[graph] if graph in lower else min(lower.values(), key=RANK)
                pair = results[names[0]][graph], results[names[1]][graph]
                rows.append(_compare(graph, names, batch, precision, pair))
    place = {graph: position for position, graph in enumerate((*GRAPHS, COMPOSED))}
    return ParityReport(tuple(sorted(rows, key=lambda row: (place[row.graph], row.reference, row.backend, row.batch))))


def eager_graphs(run: TrainedRun, device: str = "cpu") -> Graphs:
    """The trained networks themselves, as graphs of numpy arrays."""
    model = run.model
    if device != "cpu":
        without_tf32()
        model = copy.deepcopy(model).to(device)
    return {graph: _eager(getattr(model, graph), device) for graph in run.spec.graphs}


def composed_edit(labels: LabelSet, layout: LatentLayout, graphs: Graphs, image: Array) -> Array:
    """Encode, move one label to the conditional prior's mean at its other value (of classes, the next), decode, add
    the residual. Without a conditional prior the label's block is mirrored at 0, the middle of N(0, I).

    Image n has label n mod L changed. Gives levels of 255, rounded as a written file is, (N, C, S, S).
    """
    z, _ = graphs["encoder"](image)
    (logits,) = graphs["classifier"](np.ascontiguousarray(z[:, : layout.z_c]))
    y = (logits < 0).astype(np.float32)
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        if label.kind == "categorical":
            following = (logits[:, columns].argmax(axis=1) + 1) % label.columns
            y[:, columns] = np.eye(label.columns, dtype=np.float32)[following]
    moved = graphs["conditional_prior"](y)[0] if "conditional_prior" in graphs else -z
    edited = z.copy()
    for row in range(len(image)):
        block = layout.slices[row % len(layout.slices)]
        edited[row, block] = moved[row, block]
    (before,), (after,) = graphs["decoder"](z), graphs["decoder"](edited)
    # a broken graph may give infinities; their difference is NaN, which counts as a difference
    with np.errstate(invalid="ignore"):
        levels: Array = np.clip(np.rint(255 * (image + after - before)), 0, 255)
    return levels


def _eager(network: torch.nn.Module, device: str) -> Callable[[Array], tuple[Array, ...]]:
    def run(given: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            found = network(torch.from_numpy(given).to(device))
        return tuple(tensor.cpu().numpy() for tensor in (found if isinstance(found, tuple) else (found,)))

    return run


def _inputs(run: TrainedRun, reference: Graphs, batch: int) -> dict[GraphName, Array]:
    """Smooth made images and what the reference gives for them, a function of the batch size alone."""
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand(batch, run.image.channels, 8, 8, generator=generator)
    size = run.image.size
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1).numpy()
    loc, scale = reference["encoder"](image)
    z = loc + scale * torch.randn(loc.shape, generator=generator).numpy()
    y = (torch.rand(batch, run.labels.width, generator=generator) < 0.5).float().numpy()
    inputs: dict[GraphName, Array] = {
        "encoder": image,
        "decoder": z,
        "classifier": np.ascontiguousarray(z[:, : run.layout.z_c]),
        "conditional_prior": y,
    }
    return {graph: inputs[graph] for graph in run.spec.graphs}


def _results(run: TrainedRun, graphs: Graphs, inputs: dict[GraphName, Array]) -> dict[str, tuple[Array, ...]]:
    found: dict[str, tuple[Array, ...]] = {graph: graphs[graph](given) for graph, given in inputs.items()}
    return {**found, COMPOSED: (composed_edit(run.labels, run.layout, graphs, inputs["encoder"]),)}


def _compare(
    graph: str, names: tuple[str, str], batch: int, precision: str, pair: tuple[tuple[Array, ...], tuple[Array, ...]]
) -> ParityRow:
    expected, found = pair
    shapes = [array.shape for array in expected], [array.shape for array in found]
    if shapes[0] != shapes[1]:
        raise ParityError(f"{graph} in {names[1]} at batch {batch} gives shapes {shapes[1]}, {names[0]} {shapes[0]}")
    unit = "levels" if graph == COMPOSED else "float"
    rows = []
    for one, other in zip(expected, found, strict=True):
        # two infinities are no difference that can be named
        with np.errstate(invalid="ignore"):
            # a NaN is a difference of any size
            differences = np.nan_to_num(np.abs(one - other), nan=np.inf)
        rows.append(
            ParityRow(
                graph,
                *names,
                batch,
                unit,
                max_abs=float(differences.max()),
                p99=float(np.percentile(differences, 99)),
                unequal=float((differences > 0).mean()),
                tolerance=_tolerance(unit, precision, one),
            )
        )
    return max(rows, key=lambda row: row.max_abs / (row.tolerance or 1))


def _tolerance(unit: str, precision: str, expected: Array) -> float | None:
    if unit == "levels":
        return LEVELS_TOLERANCE if precision == "fp32" else None
    relative = RELATIVE_TOLERANCE.get(precision)
    return None if relative is None else relative * max(1.0, float(np.abs(expected).max()))
