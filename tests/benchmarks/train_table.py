"""Accuracy, balanced accuracy and L1 of several recipes at several supervision rates, at equal processor time.

    python tests/benchmarks/train_table.py --data celeba:DIR --out tables/celeba --minutes 8
    python tests/benchmarks/train_table.py --data celeba:DIR --out tables/celeba30 --minutes 30 --seeds 3
    python tests/benchmarks/train_table.py --data mnist:DIR --out tables/mnist --minutes 3 \\
        --recipe mnist

Every run is `python -m ccvae_train` on one thread, `--jobs` of them at a time. How many epochs fit into the minutes is
measured first, for each recipe by itself; the processor time that a run really took, validation included, stands in
its row (nan for a run that was interrupted). Runs that are finished are read, not repeated, so a table goes on. Writes
below --out only.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "train" / "recipes"
RATES = (0.004, 0.06, 0.2, 1.0)
FIGURES = ("accuracy", "balanced_accuracy", "l1")
TIMED, ROUNDS, WARM_UP, VALIDATION = 96, 8, 15, 1.1


@dataclass(frozen=True)
class Job:
    """One run of the table."""

    recipe: Path
    rate: float
    seed: int
    epochs: int
    folder: Path


def main() -> None:
    """Measure, train what is missing, print the table."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(options))
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda job: _run(options, job), jobs))
    (options.out / "table.json").write_text(json.dumps(rows, indent=1), "utf-8")
    print(_markdown(rows, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--recipe", type=Path, nargs="+", default=[RECIPES / "celeba.toml", Path(__file__).with_name("paper.toml")]
    )
    return parser.parse_args()


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    for recipe in options.recipe:
        epochs = _epochs(options, recipe)
        for rate in options.rates:
            for seed in range(options.seeds):
                folder = options.out / f"{_called(recipe)}-f{rate:g}-{options.minutes:g}min-seed{seed}"
                yield Job(recipe, rate, seed, epochs, folder)


def _called(recipe: Path) -> str:
    """Its name and what is in it, so that another recipe of that name has runs of its own."""
    from ccvae_train.config import read_recipe

    text = json.dumps(read_recipe(recipe), sort_keys=True)
    return f"{recipe.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _epochs(options: argparse.Namespace, recipe: Path) -> int:
    """How many passes over the training images fit into the minutes, at half of the labels shown."""
    known = options.out / f"{_called(recipe)}-{options.minutes:g}min.epochs"
    if known.exists():
        return int(known.read_text())
    from ccvae_train.config import make_config, read_recipe
    from ccvae_train.datasets.source import settled
    from ccvae_train.device import choose_device
    from ccvae_train.ranks import Ranks
    from ccvae_train.training import prepare

    config = settled(make_config(read_recipe(recipe) | {"data": options.data, "supervision": 0.2}))
    fit = prepare(config, choose_device("cpu"), Ranks())
    seconds = _seconds(_stepper(fit)) * fit.steps_per_epoch * VALIDATION
    epochs = max(int(options.minutes * 60 / seconds), 1)
    print(f"{recipe.stem}: {seconds:.0f} s of processor time an epoch, {epochs} epochs", file=sys.stderr)
    known.write_text(str(epochs))
    return epochs


def _stepper(fit: Any) -> Callable[[], None]:
    from ccvae_train.loop import one_step

    orders = fit.order(0)
    positions = iter(range(TIMED + WARM_UP))

    def step() -> None:
        one_step(fit, orders[next(positions)])
        # not every step costs the same
        fit.step += 1

    return step


def _seconds(step: Callable[[], None]) -> float:
    """Processor seconds of a step: the best of several rounds, since whatever else runs only ever adds."""
    for _ in range(WARM_UP):
        step()
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(TIMED // ROUNDS):
            step()
        rounds.append(time.process_time() - began)
    return min(rounds) * ROUNDS / TIMED


def _run(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    result = job.folder / "result.json"
    if not result.exists():
        command = [sys.executable, "-m", "ccvae_train", "--recipe", str(job.recipe), "--data", options.data]
        command += ["--supervision", str(job.rate), "--epochs", str(job.epochs), "--seed", str(job.seed)]
        resumed = (job.folder / "checkpoint.safetensors").exists()
        if resumed:
            command = [sys.executable, "-m", "ccvae_train", "--resume"]
        began = time.monotonic()
        with (options.out / f"{job.folder.name}.log").open("a") as log:
            child = subprocess.Popen([*command, "--out", str(job.folder)], stdout=log, stderr=log)
            _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} ended with {status}; see {log.name}")
        # what a run took before it was interrupted is not known
        spent = {"processor_minutes": math.nan if resumed else (usage.ru_utime + usage.ru_stime) / 60}
        spent["wall_minutes"] = math.nan if resumed else (time.monotonic() - began) / 60
        result.write_text(json.dumps(spent), "utf-8")
    with (job.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = {name: float(rows[-1][name]) for name in (*FIGURES, "floor")}
    curve = [(int(row["epoch"]), float(row["accuracy"]), float(row["balanced_accuracy"])) for row in rows]
    return {
        "recipe": job.recipe.stem,
        "rate": job.rate,
        "seed": job.seed,
        "epochs": job.epochs,
        **json.loads(result.read_text("utf-8")),
        **last,
        "curve": curve,
    }


def _markdown(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    lines = [
        f"{options.data.partition(':')[0]}, floor {rows[0]['floor']:.4f}, {options.minutes:g} minutes of a core a run",
        "",
        "| f | recipe | accuracy | balanced | L1 | epochs | processor minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in options.rates:
        for recipe in options.recipe:
            found = [row for row in rows if row["rate"] == rate and row["recipe"] == recipe.stem]
            cells = [_spread([row[name] for row in found]) for name in FIGURES]
            spent = mean(row["processor_minutes"] for row in found)
            lines.append(f"| {rate:g} | {recipe.stem} | {' | '.join(cells)} | {found[0]['epochs']} | {spent:.1f} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """The mean, and where there are several the lowest and the highest."""
    text = f"{mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
