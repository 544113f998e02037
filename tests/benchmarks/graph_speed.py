"""Size, speed and quality of every exported form of a run, beside eager torch, in one table:

    python tests/benchmarks/graph_speed.py RUN [--rounds 9]

Exports what is missing beside the run's other bundles. Each side works in its best arrangement, found by trial in the
same run: one caller with all cores, or one single-threaded caller per core; eager torch also channels-first or
channels-last. All are timed in turn, round after round; figures are medians of rounds.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ccvae_deploy.bundle import open_bundle, read_manifest
from ccvae_deploy.inspection import read_measurements
from ccvae_export.export import export_run
from ccvae_train.checkpoint import TrainedRun, load_run

BATCHES = (1, 64)
SECONDS = 0.25
CORES = len(os.sched_getaffinity(0))
VARIANTS = (("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("torchscript", "fp32"))
EAGER = "eager torch fp32"

Call = Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Side:
    """One backend in one arrangement: its graphs, how many callers share the cores, and torch's threads a caller."""

    name: str
    callers: int
    graphs: dict[str, Call]


def sides(run: TrainedRun, bundles: dict[str, Path]) -> list[Side]:
    """Every backend in every arrangement."""
    found = []
    for callers in sorted({1, CORES}):
        for layout in (torch.contiguous_format, torch.channels_last):
            model = copy.deepcopy(run.model).to(memory_format=layout)
            found.append(Side(EAGER, callers, {g: eager(getattr(model, g), layout) for g in ("encoder", "decoder")}))
        for name, folder in bundles.items():
            bundle = open_bundle(folder, provider="cpu", allow_torchscript=True, threads=CORES // callers)
            found.append(Side(name, callers, {g: bundle.graphs[g] for g in ("encoder", "decoder")}))
    return found


def eager(network: torch.nn.Module, layout: torch.memory_format) -> Call:
    """A network as a function of a numpy array, as a plain script would call it."""

    def call(array: np.ndarray) -> object:
        with torch.inference_mode():
            given = torch.from_numpy(array)
            found = network(given.contiguous(memory_format=layout) if given.dim() == 4 else given)
            return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return call


def rate(side: Side, graphs: tuple[str, ...], given: dict[str, np.ndarray]) -> float:
    """Images per second of calling these graphs one after the other for a while."""
    torch.set_num_threads(CORES // side.callers)
    calls = [(side.graphs[graph], given[graph]) for graph in graphs]
    batch = len(given["encoder"])

    def work() -> int:
        done, end = 0, time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            for call, array in calls:
                call(array)
            done += batch
        return done

    for call, array in calls:
        call(array)
    began = time.perf_counter()
    if side.callers == 1:
        images = work()
    else:
        with ThreadPoolExecutor(side.callers) as pool:
            images = sum(pool.map(lambda _: work(), range(side.callers)))
    return images / (time.perf_counter() - began)


def measure(run: TrainedRun, bundles: dict[str, Path], rounds: int) -> dict[tuple[str, str, int], float]:
    """Median rates by backend, part and batch, each in the backend's best arrangement."""
    rng = np.random.default_rng(0)
    spec, latents = run.image, run.layout.size
    parts = {"encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}
    every: dict[tuple[int, str, int], list[float]] = {}
    arranged = sides(run, bundles)
    for batch in BATCHES:
        given = {
            "encoder": rng.random((batch, spec.channels, spec.size, spec.size), dtype=np.float32),
            "decoder": rng.standard_normal((batch, latents)).astype(np.float32),
        }
        for _ in range(rounds):
            for part, graphs in parts.items():
                for number, side in enumerate(arranged):
                    every.setdefault((number, part, batch), []).append(rate(side, graphs, given))
    best: dict[tuple[str, str, int], float] = {}
    for (number, part, batch), rates in every.items():
        key = (arranged[number].name, part, batch)
        best[key] = max(best.get(key, 0.0), statistics.median(rates))
    return best


def table(bundles: dict[str, Path], rates: dict[tuple[str, str, int], float]) -> Table:
    """One line per form and part."""
    found = Table(title=f"images/s on {CORES} cores, and times eager torch", title_justify="left")
    columns = ("form", "graph", "KiB", *(f"batch {batch}" for batch in BATCHES), "levels", "labels")
    for name in columns:
        found.add_column(name, justify="left" if name in ("form", "graph") else "right")
    for name in (EAGER, *bundles):
        manifest = read_manifest(bundles[name])[0] if name in bundles else None
        quality = read_measurements(bundles[name])[1] if name in bundles else None
        for part in ("encoder", "decoder", "both"):
            figures = (rates[name, part, batch] for batch in BATCHES)
            against = (rates[EAGER, part, batch] for batch in BATCHES)
            shown = [f"{own:,.0f} {own / other:.2f}x" for own, other in zip(figures, against, strict=True)]
            files = manifest.files if manifest else {}
            size = sum(e.bytes for e in files.values()) if part == "both" else files[part].bytes if files else 0
            judged = quality if part == "both" else None
            found.add_row(
                name if part == "encoder" else "",
                "encode, decode" if part == "both" else part,
                f"{size / 1024:,.0f}" if size else "",
                *shown,
                f"{judged.mean:.3f}" if judged else "",
                f"{1 - judged.disagreement:.2%}" if judged else "",
            )
    return found


def bundles_of(run: Path) -> dict[str, Path]:
    """The bundle of every form, exported where it is missing."""
    found = {}
    for format, precision in VARIANTS:
        folder = run / ("bundle-" + format + ("" if precision == "fp32" else f"-{precision}"))
        if not (folder / "manifest.json").is_file():
            export_run(run, format, precision=precision)
        found[f"{format} {precision}"] = folder
    return found


def main() -> None:
    """Print the table and the ratios that matter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    run = load_run(options.run)
    bundles = bundles_of(run.path)
    rates = measure(run, bundles, options.rounds)
    console = Console(width=100, highlight=False)
    console.print(table(bundles, rates))
    console.print(
        "KiB of `encode, decode`: all four graphs; levels: mean difference of composed edits; labels: agreement"
    )
    for batch in BATCHES:
        int8, fp32 = rates["onnx int8", "both", batch], rates["onnx fp32", "both", batch]
        console.print(f"batch {batch}: int8 is {int8 / fp32:.2f} times fp32 in encode and decode")


if __name__ == "__main__":
    main()
