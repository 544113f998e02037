"""`benchmark`: how fast a bundle is on this machine. Reads the bundle, works in a temporary folder that it removes.

Graphs are timed as `Composer` calls them; edits as `edit` makes them, from files to files, on made pictures.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from .arrays import Array
from .bundle import Bundle
from .composer import Composer
from .images import ENDING, Format
from .limits import BATCH, refuse_speed
from .machine.resources import usable_cores
from .pipeline import edit_folder
from .schema import GraphName, Manifest
from .storage.remote import local_path
from .terminal.progress import progress
from .terminal.screen import facts
from .work.job import JobOptions

if TYPE_CHECKING:
    from rich.table import Table


BATCHES = (1, 16, 64)
SECONDS = 0.4
"""What the calls of one graph at one batch take together, and about what one run of edits takes."""
ROUNDS = 3
SIDE, SAMPLES = 256, 8
FEWEST, MOST = 16, 240
"""Sources of one run of edits; so few that one process makes them."""
MADE: tuple[Literal["jpeg", "png"], ...] = ("jpeg", "png")


@dataclass(frozen=True)
class Benchmark:
    """Rates of one bundle.

    Attributes:
        provider: what the graphs run on, and why.
        cores: what this process may use.
        graphs: images per second by graph and batch, the median of calls.
        edits: outputs per second by format, the median of runs in this process; a large folder is worked on by
            several, see `processes`.
    """

    bundle: Path
    provider: str
    cores: int
    graphs: dict[str, dict[int, float]]
    edits: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {**asdict(self), "bundle": str(self.bundle), "side": SIDE, "samples": SAMPLES}

    def table(self) -> "Table":
        """All figures for a screen of 80 columns."""
        rows = [("bundle", str(self.bundle)), ("runs on", self.provider), ("cores", str(self.cores)), ("", "")]
        rows.append(("graphs", "images/s at a batch of" + "".join(f"{batch:>10}" for batch in BATCHES)))
        for name, rates in self.graphs.items():
            rows.append(("", f"{name.replace('_', ' '):<22}" + "".join(f"{rates[batch]:>10,.0f}" for batch in BATCHES)))
        rows += [("", ""), ("edit", f"{SAMPLES} samples of made {SIDE}x{SIDE} pictures, receipts included")]
        for format, rate in self.edits.items():
            rows.append(("", f"{format:<22}{rate:>10,.0f} images/s; a million in {_hours(1e6 / rate)}"))
        return facts(rows)


def benchmark(
    bundle: Path | str,
    *,
    provider: str = "auto",
    batch_size: int = BATCH,
    workers: int | None = None,
    allow_torchscript: bool = False,
) -> Benchmark:
    """Time the graphs of a bundle and the edits made with it; takes some ten seconds.

    Args:
        bundle: a bundle folder.
        provider, batch_size, workers, allow_torchscript: as `edit` takes them; the graphs alone run on all cores.

    Raises:
        CCVAEError: the bundle does not open, or the provider cannot be used.
    """
    refuse_speed(batch_size, workers)
    opened = Composer.open(bundle, provider=provider, allow_torchscript=allow_torchscript).bundle
    options: JobOptions = {
        "bundle": bundle,
        "provider": provider,
        "batch_size": batch_size,
        "allow_torchscript": allow_torchscript,
    }
    graphs: dict[str, dict[int, float]] = {}
    edits: dict[str, float] = {}
    with progress("benchmark", len(opened.graphs) + len(MADE), "parts") as bar:
        for name, call, given in _calls(opened):
            graphs[name] = {batch: batch / _median_seconds(call, given(batch)) for batch in BATCHES}
            bar.advance()
        for format in MADE:
            with tempfile.TemporaryDirectory(prefix="ccvae-benchmark-") as scratch:
                edits[format] = _edit_rate(Path(scratch), format, opened.manifest, workers, options)
            bar.advance()
    return Benchmark(local_path(bundle), opened.runs_on, usable_cores(), graphs, edits)


def _calls(bundle: Bundle) -> Iterator[tuple[str, Callable[[Array], object], Callable[[int], Array]]]:
    """Every graph with its name, and what makes an input of some batch for it."""
    calls: dict[GraphName, Callable[[Array], object]] = {
        "encoder": bundle.encode,
        "decoder": bundle.decode,
        "classifier": bundle.classify,
        "conditional_prior": bundle.conditional_prior,
    }
    for name in bundle.graphs:
        (expected,) = bundle.manifest.files[name].inputs
        yield name, calls[name], partial(_drawn, expected.shape[1:])


def _drawn(shape: Sequence[int], batch: int) -> Array:
    """Values in [0, 1], which images, labels and latents may all have."""
    return np.random.default_rng(0).random((batch, *shape), dtype=np.float32)


def _median_seconds(call: Callable[[Array], object], given: Array) -> float:
    """The median of a call's time, after one that does not count."""
    call(given)
    spent: list[float] = []
    while sum(spent) < SECONDS:
        began = time.perf_counter()
        call(given)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def _edit_rate(scratch: Path, format: Format, manifest: Manifest, workers: int | None, options: JobOptions) -> float:
    """Outputs per second of editing a folder of pictures to the last value of the first label, the median of runs."""
    label = manifest.labels.labels[0]
    asked = {label.name: label.classes[-1]}

    def run(count: int, name: str) -> float:
        """The same pictures again where there are more than before."""
        for i in range(count):
            _made_picture(scratch / "made" / f"{i:04d}.{ENDING[format]}", i, manifest.image.channels)
        settings: JobOptions = {**options, "set": asked, "samples": SAMPLES, "out": scratch / name}
        return edit_folder([scratch / "made"], sheet=False, workers=workers, **settings).images_per_second

    (scratch / "made").mkdir()
    first = run(FEWEST, "first")
    count = min(max(FEWEST, round(first * SECONDS / SAMPLES)), MOST)
    return statistics.median(run(count, f"run-{turn}") for turn in range(ROUNDS))


def _made_picture(path: Path, seed: int, channels: int) -> None:
    """A picture of soft shapes with a little grain, about as hard to encode as a photograph."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    wide = np.asarray(shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    image = Image.fromarray(np.clip(wide + rng.normal(0, 3, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8))
    (image if channels == 3 else image.convert("L")).save(path, quality=92)


def _hours(seconds: float) -> str:
    """A time that people plan with."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
