"""Does an exported bundle compute what the model computes? Measured per graph and for the composed edit.

The bundle is opened by the code that users open it with. Eager torch runs in float32 on the CPU.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ccvae_deploy.bundle import Bundle
from ccvae_deploy.errors import ParityError
from ccvae_deploy.schema import GraphName
from ccvae_train.checkpoint import TrainedRun

if TYPE_CHECKING:
    from rich.table import Table

Array = NDArray[np.float32]

BATCHES = (1, 2, 3, 17)
RELATIVE_TOLERANCE = 1e-4
LEVELS_TOLERANCE = 1.0


@dataclass(frozen=True)
class ParityRow:
    """One comparison.

    Attributes:
        graph: a graph's name, or `composed edit`.
        unit: what the figures are in: `float`, or `levels` of 255.
        max_abs, p99: largest and 99th percentile of the absolute difference to eager torch.
        tolerance: what max_abs may be.
    """

    graph: str
    backend: str
    batch: int
    unit: str
    max_abs: float
    p99: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the comparison held."""
        return self.max_abs <= self.tolerance


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of a bundle."""

    rows: tuple[ParityRow, ...]

    def require(self) -> None:
        """Refuse a bundle that failed.

        Raises:
            ParityError: names the first graph, batch and figure that broke.
        """
        for row in self.rows:
            if not row.ok:
                raise ParityError(
                    f"{row.graph} at batch {row.batch} differs from the model by {row.max_abs:.3g} ({row.unit}), "
                    f"at most {row.tolerance:.3g} is allowed; no bundle was written"
                )

    def to_json(self) -> list[dict[str, object]]:
        """The rows as `parity.json` holds them."""
        return [{**asdict(row), "ok": row.ok} for row in self.rows]

    def table(self) -> "Table":
        """One line per graph and batch, within 80 columns."""
        from rich.table import Table

        table = Table(title=f"parity: eager torch and {self.rows[0].backend}", title_justify="left")
        for name in ("graph", "batch", "max |diff|", "p99", "allowed", "unit"):
            table.add_column(name, justify="left" if name in ("graph", "unit") else "right")
        for row in self.rows:
            figures = (f"{value:.2g}" for value in (row.max_abs, row.p99, row.tolerance))
            table.add_row(row.graph, str(row.batch), *figures, row.unit)
        return table


def measure_parity(run: TrainedRun, bundle: Bundle) -> ParityReport:
    """Compare an opened bundle with its run on made images, at several batch sizes."""
    rows: list[ParityRow] = []
    for batch in BATCHES:
        inputs = _inputs(run, batch)
        for graph, given in inputs.items():
            if graph not in bundle.graphs:
                continue
            expected = _eager(run, graph, given)
            found = bundle.graphs[graph](given)
            rows.append(_compare(graph, bundle.provider, batch, "float", expected, found))
        expected_levels = composed_edit(run, None, inputs["encoder"])
        found_levels = composed_edit(run, bundle, inputs["encoder"])
        rows.append(_compare("composed edit", bundle.provider, batch, "levels", (expected_levels,), (found_levels,)))
    order = {name: position for position, name in enumerate(dict.fromkeys(row.graph for row in rows))}
    return ParityReport(tuple(sorted(rows, key=lambda row: (order[row.graph], row.batch))))


def composed_edit(run: TrainedRun, bundle: Bundle | None, image: Array) -> Array:
    """Encode, move one label to the conditional prior's mean at its other value, decode, add the residual.

    Runs on the bundle, or on the eager model where it is None; image n has label n mod L changed. Gives levels of
    255, rounded as a written file is, (N, C, S, S).
    """

    def graph(name: GraphName, given: Array) -> tuple[Array, ...]:
        return _eager(run, name, given) if bundle is None else bundle.graphs[name](given)

    z, _ = graph("encoder", image)
    z_c = np.ascontiguousarray(z[:, : run.layout.z_c])
    (logits,) = graph("classifier", z_c)
    flipped = (logits < 0).astype(np.float32)
    prior_loc, _ = graph("conditional_prior", flipped)
    edited = z.copy()
    for row in range(len(image)):
        block = run.layout.slices[row % len(run.layout.slices)]
        edited[row, block] = prior_loc[row, block]
    (before,), (after,) = graph("decoder", z), graph("decoder", edited)
    # a broken graph may give infinities; their difference is NaN, which counts as a difference
    with np.errstate(invalid="ignore"):
        levels: Array = np.clip(np.rint(255 * (image + after - before)), 0, 255)
    return levels


def _inputs(run: TrainedRun, batch: int) -> dict[GraphName, Array]:
    """Smooth made images and what the networks give for them, a function of the batch size alone."""
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand(batch, run.image.channels, 8, 8, generator=generator)
    size = run.image.size
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1).numpy()
    loc, scale = _eager(run, "encoder", image)
    z = loc + scale * torch.randn(loc.shape, generator=generator).numpy()
    y = (torch.rand(batch, run.labels.width, generator=generator) < 0.5).float().numpy()
    return {
        "encoder": image,
        "decoder": z,
        "classifier": np.ascontiguousarray(z[:, : run.layout.z_c]),
        "conditional_prior": y,
    }


@torch.inference_mode()
def _eager(run: TrainedRun, graph: str, given: Array) -> tuple[Array, ...]:
    found = getattr(run.model, graph)(torch.from_numpy(given))
    return tuple(tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,)))


def _compare(
    graph: str, backend: str, batch: int, unit: str, expected: tuple[Array, ...], found: tuple[Array, ...]
) -> ParityRow:
    shapes = [array.shape for array in expected], [array.shape for array in found]
    if shapes[0] != shapes[1]:
        raise ParityError(f"{graph} at batch {batch} gives shapes {shapes[1]}, the model {shapes[0]}")
    differences = np.concatenate([np.abs(a - b).ravel() for a, b in zip(expected, found, strict=True)])
    # a NaN is a difference of any size
    differences = np.nan_to_num(differences, nan=np.inf)
    largest = max(1.0, *(float(np.abs(array).max()) for array in expected))
    tolerance = LEVELS_TOLERANCE if unit == "levels" else RELATIVE_TOLERANCE * largest
    return ParityRow(
        graph, backend, batch, unit, float(differences.max()), float(np.percentile(differences, 99)), tolerance
    )
