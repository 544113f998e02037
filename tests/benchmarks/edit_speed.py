"""How fast `edit` is, beside the limit of its own parts and beside a plain loop that does the same work.

    python tests/benchmarks/edit_speed.py BUNDLE [IMAGES] [--run RUN] [--set LABEL=VALUE] [--repeats N] [--long]

IMAGES is a folder, or portraits of 178x218 are made. RUN is the run of the bundle, for eager torch; the folder it lies
in unless given. `edit` is the command, its start and worker processes included. What is compared is measured in turns,
and medians are printed: by the clock, and in processor time, which a machine that is busy with other work disturbs
less. Memory and the cold start are measured in processes of their own. Needs Linux, torch, and about 2 GB of disk for
--long.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from ccvae_deploy import images
from ccvae_deploy.composer import Composer
from ccvae_deploy.edits.request import make_request
from ccvae_deploy.folder import scan
from ccvae_deploy.pictures import compositing
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.pictures.rendering import look_again
from ccvae_deploy.storage.source_file import read_file
from ccvae_train.checkpoint import load_run
from ccvae_train.datasets.portraits import draw_factors, render

SAMPLES = 8
CORES = len(os.sched_getaffinity(0))
AT_ONCE = 32
"""Sources whose outputs a process of the limit holds."""
LIMITED = 2_500
"""Sources of which the limit is measured; more cost as much each."""
LOOPED = 10
"""Sources of one turn of the loop, which is slower."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work took: seconds by the clock, and of all processors together."""

    clock: float
    processor: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.clock + other.clock, self.processor + other.processor)


@contextlib.contextmanager
def measured() -> Iterator[list[Cost]]:
    """A list that holds the cost of the block once it is left."""
    cost: list[Cost] = []
    clock, processor = time.perf_counter(), processor_time()
    yield cost
    cost.append(Cost(time.perf_counter() - clock, processor_time() - processor))


def processor_time() -> float:
    """Seconds of this process and of those it has started that have ended."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def made_photographs(folder: Path, count: int) -> Path:
    """JPEGs of 178x218, the size of CelebA's."""
    folder.mkdir()
    for i in range(count):
        image = Image.fromarray(render(draw_factors(1, i), 128))
        image.resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{i:06d}.jpg", quality=92)
    return folder


def several(folder: Path, files: Sequence[Path], count: int) -> Path:
    """A folder of copies of `count` files, repeated where they are fewer."""
    folder.mkdir()
    for i in range(count):
        source = files[i % len(files)]
        shutil.copyfile(source, folder / f"{i:06d}{source.suffix}")
    return folder


def limit(bundle: Path, label: dict[str, float], files: Sequence[Path], format: images.Format) -> dict[str, Cost]:
    """Each kind of work alone on all cores: a process per core does its share, all of them the same kind at a time."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(CORES)
    pipes = [context.Pipe(duplex=False) for _ in range(CORES)]
    if len(files) < CORES:
        sys.exit(f"{len(files)} images for {CORES} cores; give at least one for each")
    shares = [files[core::CORES] for core in range(CORES)]
    turns = max(1, len(shares[-1]) // AT_ONCE)
    processes = [
        context.Process(target=aborting, args=(bundle, label, share, format, turns, together, send))
        for share, (_, send) in zip(shares, pipes, strict=True)
    ]
    for process, (_, send) in zip(processes, pipes, strict=True):
        process.start()
        send.close()
    try:
        found: list[dict[str, Cost]] = [receive.recv() for receive, _ in pipes]
    except EOFError:
        sys.exit("a process of the limit has failed; its error stands above")
    for process in processes:
        process.join()
    return {
        kind: Cost(max(one[kind].clock for one in found), sum(one[kind].processor for one in found))
        for kind in found[0]
    }


def aborting(*arguments: Any) -> None:
    """The share of one process; where it fails, the others wait for it no longer."""
    try:
        share_of_limit(*arguments)
    except BaseException:
        arguments[-2].abort()
        raise


def share_of_limit(
    bundle: Path,
    label: dict[str, float],
    files: Sequence[Path],
    format: images.Format,
    turns: int,
    together: Barrier,
    send: Connection,
) -> None:
    """What each kind of work costs one process, with the product's own functions; a few sources at a time, since memory
    that grows to hold everything costs more than the work on it.
    """
    composer = Composer.open(bundle, threads=1)
    spec, batch = composer.bundle.manifest.image, composer.batch_size
    request = make_request(composer.labels, label, samples=SAMPLES)
    costs: dict[str, Cost] = defaultdict(lambda: Cost(0, 0))

    def alone(kind: str, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        items = list(items)
        together.wait()
        with measured() as cost:
            results = [work(item) for item in items]
        costs[kind] += cost[0]
        return results

    def batches(rows: Sequence[Any]) -> list[slice]:
        return [slice(at, at + batch) for at in range(0, len(rows), batch)]

    # all processes have as many parts, or they would wait for each other
    for part in np.array_split(np.arange(len(files)), turns):
        data, names = [read_file(files[i]) for i in part], [files[i].name for i in part]
        pictures = alone("decode sources", decode, data)
        seen = np.stack(alone("resize sources", lambda picture: images.network_input(picture, spec), pictures))
        encoded = alone("graphs: encode", lambda rows, seen=seen: composer.encode(seen[rows]), batches(seen))
        pairs = zip(encoded, (names[rows] for rows in batches(names)), strict=True)
        edits = alone("graphs: decode edits", lambda pair: composer.changed(request, *pair), pairs)
        differences = np.concatenate([edit - one.decoded[:, None] for edit, one in zip(edits, encoded, strict=True)])
        each = [(picture, one) for picture, some in zip(pictures, differences, strict=True) for one in some]
        results = alone("composite", lambda pair: compositing.composite(*pair), each)
        written = alone(f"encode {format}", lambda result: images.encode(result, format), results)
        work = "resize outputs" if format == "png" else "decode and resize outputs"
        looked = alone(work, lambda pair: look_again(*pair, format, spec), zip(results, written, strict=True))
        again = np.stack([one for _, one in looked])
        alone("graphs: receipts", lambda rows, again=again: composer.classify(again[rows]), batches(again))
    send.send(dict(costs))


def plain_loop(run: Path, label: dict[str, float], files: Sequence[Path], out: Path, format: images.Format) -> float:
    """Outputs per second of a script with eager torch and Pillow: the same edits and receipts, one image at a time."""
    trained = load_run(run)
    model, size, z_c = trained.model, trained.image.size, trained.layout.z_c
    ((name, value),) = label.items()
    column = next(i for i, one in enumerate(trained.labels.labels) if one.name.lower() == name.lower())
    block = trained.layout.slices[column]
    options = {"quality": 95, "subsampling": 0} if format == "jpeg" else {}

    def tensor(image: Image.Image) -> torch.Tensor:
        small = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
        return torch.from_numpy(small.transpose(2, 0, 1)[None].copy())

    out.mkdir(parents=True)
    with torch.no_grad(), measured() as cost:
        for path in files:
            image = Image.open(path).convert("RGB")
            pixels = np.asarray(image, np.float32)
            z, _ = model.encoder(tensor(image))
            before, unedited = torch.sigmoid(model.classifier(z[:, :z_c])), model.decoder(z)
            state = (before > 0.5).float()
            state[0, column] = value
            loc, scale = model.conditional_prior(state)
            for k in range(SAMPLES):
                edited = z.clone()
                edited[:, block] = loc[:, block] + scale[:, block] * torch.randn_like(loc[:, block])
                difference = (255 * (model.decoder(edited) - unedited))[0].numpy()
                wide = [Image.fromarray(channel).resize(image.size, Image.Resampling.BICUBIC) for channel in difference]
                result = np.clip(np.rint(pixels + np.stack(wide, axis=-1)), 0, 255).astype(np.uint8)
                target = out / f"{path.stem}-{k}.{images.ENDING[format]}"
                Image.fromarray(result).save(target, **options)
                written = Image.open(io.BytesIO(target.read_bytes())).convert("RGB")
                after = torch.sigmoid(model.classifier(model.encoder(tensor(written))[0][:, :z_c]))
                _ = {
                    "reached": bool((after[0, column] > 0.5) == (value > 0.5)),
                    "drift": float((after - before).abs().mean()),
                    "pixel_change": float(np.abs(np.asarray(written, np.float32) - pixels).mean()),
                }
    return len(files) * SAMPLES / cost[0].clock


def faster_threads(loop: Callable[[Path, int], float], scratch: Path) -> int:
    """One thread or all of torch's, whichever is faster in the loop here."""
    rates = {}
    for threads in (1, CORES):
        torch.set_num_threads(threads)
        rates[threads] = loop(scratch / f"threads-{threads}", 2)
    return max(rates, key=lambda threads: rates[threads])


def speed(
    bundle: Path, run: Path, label: str, folder: Path, scratch: Path, repeats: int, format: images.Format
) -> Table:
    """Rates of interleaved turns, and each kind of work."""
    name, value = label.split("=")
    files = sorted(source.path for source in scan([folder]).sources)
    outputs, asked = len(files) * SAMPLES, {name: float(value)}
    part = files[:LIMITED]
    share = len(files) / len(part)
    rates: dict[str, list[float]] = {"edit": [], "limit": [], "loop": []}
    kinds: list[dict[str, Cost]] = []
    spent: list[float] = []

    def loop(out: Path, count: int = LOOPED) -> float:
        return plain_loop(run, asked, files[:count], out, format)

    torch.set_num_threads(faster_threads(loop, scratch / format))
    for turn in range(repeats):
        before = limit(bundle, asked, part, format)
        out = scratch / format / f"{turn}"
        with measured() as cost:
            seconds, _ = command(bundle, label, folder, out, format=format, watched=False)
        rates["edit"].append(outputs / seconds)
        # before and after: a shared machine is faster in one minute than in the next
        kinds += [before, limit(bundle, asked, part, format)]
        whole = sum((cost for one in kinds[-2:] for cost in one.values()), Cost(0, 0))
        rates["limit"].append(2 * len(part) * SAMPLES / whole.clock)
        spent.append(share * whole.processor / 2 / cost[0].processor)
        rates["loop"].append(loop(scratch / format / f"loop-{turn}"))
    title = f"{format} outputs, {outputs:,} of them, {CORES} cores, medians of {repeats} turns"
    return speed_table(rates, kinds, spent, len(part) * SAMPLES, title)


def speed_table(
    rates: dict[str, list[float]], kinds: list[dict[str, Cost]], spent: list[float], limited: int, title: str
) -> Table:
    """The medians of all turns; the limit is of so many outputs."""
    edit, limit, loop = (statistics.median(rates[key]) for key in ("edit", "limit", "loop"))

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(rates["edit"], rates[other], strict=True))

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("edit, from start to end", f"{edit:,.0f} images/s")
    table.add_row("limit: the parts alone, summed", f"{limit:,.0f} images/s; edit is {ratio('limit'):.0%} of it")
    table.add_row("the same in processor time", f"the parts are {statistics.median(spent):.0%} of what edit takes")
    table.add_row(
        f"plain loop, torch on {torch.get_num_threads()}", f"{loop:,.0f} images/s; edit is {ratio('loop'):.1f}x"
    )
    for kind in kinds[0]:
        clock, processor = (
            1000 * statistics.median(getattr(one[kind], unit) for one in kinds) / limited
            for unit in ("clock", "processor")
        )
        table.add_row(f"  {kind}", f"{clock:.3f} ms per output, {processor:.3f} ms of processor time")
    return table


def command(
    bundle: Path, label: str, folder: Path, out: Path, *, format: str = "same", watched: bool = True
) -> tuple[float, float]:
    """Seconds of the command in a process of its own, and the peaks of it and of its workers, in MiB, summed.

    Args:
        watched: look for the peaks, which takes some of a core.
    """
    script = (
        "import sys\nfrom ccvae_deploy.__main__ import main\n"
        "try: main()\nfinally: print('torch', 'torch' in sys.modules)\n"
    )
    arguments = ["edit", folder, "--set", label, "--samples", str(SAMPLES), "--bundle", bundle, "--out", out]
    arguments += ["--format", format]
    peaks: dict[int, float] = {}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # compiled files are kept, as after any installation
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    ) as process:
        while watched and process.poll() is None:
            peaks |= peaks_of(process.pid)
            time.sleep(0.01)
        process.wait()
        seconds = time.perf_counter() - began
        said = process.stdout.read() if process.stdout else ""
    if process.returncode or "torch False" not in said:
        sys.exit(f"edit ended with {process.returncode}, or has loaded torch: {said[-200:]}")
    return seconds, sum(peaks.values())


def peaks_of(pid: int) -> dict[int, float]:
    """The peak of a process and of those it has started, in MiB; not getrusage, which begins with the parent's."""
    found = {}
    with contextlib.suppress(OSError):
        below = [one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
        for one in (pid, *map(int, below)):
            status = Path(f"/proc/{one}/status").read_text()
            if "VmHWM:" in status:
                found[one] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return found


def processes(bundle: Path, label: str, files: Sequence[Path], scratch: Path, long: bool) -> Table:
    """Cold start of one image, and peak memory as outputs grow."""
    table = Table(title="the command in a process of its own", title_justify="left", show_header=False)
    one = several(scratch / "one", files, 1)
    cold = [command(bundle, label, one, scratch / f"one-{turn}", watched=False)[0] for turn in range(9)]
    table.add_row("one image, cold start", f"{statistics.median(cold):.2f} s")
    for outputs in (1_000, 10_000, 100_000) if long else (1_000, 10_000):
        folder = several(scratch / f"many-{outputs}", files, outputs // SAMPLES)
        seconds, peak = command(bundle, label, folder, scratch / f"out-{outputs}")
        table.add_row(
            f"{outputs:,} outputs",
            f"peak {peak:,.0f} MiB with workers, {outputs / seconds:,.0f} images/s from start to end",
        )
    return table


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--set", default="smiling=1")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sources", type=int, default=250, help="images of one turn, repeated where there are fewer")
    parser.add_argument("--long", action="store_true", help="the memory curve to 100,000 outputs")
    given = parser.parse_args()
    console = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        found = scan([given.images or made_photographs(root / "made", given.sources)]).sources
        files = [source.path for source in found]
        folder = several(root / "sources", files, given.sources)
        run = given.run or given.bundle.resolve().parent
        for format in ("jpeg", "png"):
            console.print(speed(given.bundle, run, given.set, folder, root, given.repeats, format))
        console.print(processes(given.bundle, given.set, files, root, given.long))
    console.print(f"load of the machine in the last minute: {os.getloadavg()[0]:.1f} on {CORES} cores")


if __name__ == "__main__":
    main()
