"""How much memory training takes at the size of CelebA and at ten times that:

    python tests/benchmarks/train_memory.py [--steps 200] [--folder DIR]

The images are a memory-mapped file with holes, which takes no room on the disk; labels are random. Each size trains in
a process of its own, over rows drawn from the whole file. `anonymous` is what the process holds; `file-backed` are the
pages of the file and of libraries that lie in memory since they were read, and that the system takes back at need.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train import loop, training
from ccvae_train.config import make_config
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.datasets.source import settled
from ccvae_train.device import choose_device
from ccvae_train.ranks import Ranks

CELEBA, LABELS, VALID = 162_770, 18, 2_000


def resident() -> tuple[int, int]:
    """Anonymous and file-backed MiB of this process."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) >> 10, int(fields["RssFile"].split()[0]) >> 10


def child(folder: Path, count: int, steps: int) -> None:
    """Train some steps over `count` images and print what was held at the most."""
    path = folder / f"{count}.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3)).flush()
    images = np.load(path, mmap_mode="r")
    labels = np.random.default_rng(0).integers(0, 2, (count, LABELS), np.int8)
    names = LabelSet(labels=tuple(Label(name=f"label {i}") for i in range(LABELS)))
    valid = Partition(images[:VALID], labels[:VALID])
    data = Dataset("made", names, ImageSpec(size=64), Partition(images, labels), valid, "0" * 64)
    training.open_dataset = lambda *_, **__: data
    start = resident()
    fit = training.prepare(settled(make_config({"device": "cpu", "supervision": 0.2})), choose_device("cpu"), Ranks())
    order, most = fit.order(0), (0, 0)
    spread = np.linspace(0, len(order) - 1, steps).astype(int)
    for batch in spread:
        loop.one_step(fit, order[batch])
        fit.step += 1
        most = tuple(map(max, most, resident()))
    loop._validate(fit)
    most = tuple(map(max, most, resident()))
    read = steps * fit.batch * images[0].nbytes >> 20
    print(
        f"{count:>10,} {images.nbytes >> 20:>8,} {start[0]:>8,} {most[0]:>12,} {most[1]:>12,} {read:>8,}"
        f"   {torch.get_num_threads()} threads"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.images:
        child(options.folder, options.images, options.steps)
        return
    columns = f"{'MiB':>10} {'data':>8} {'before':>8} {'anonymous':>12} {'file-backed':>12} {'read':>8}"
    print(f"{columns}   {options.steps} steps")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in (CELEBA, 10 * CELEBA):
            arguments = ["--images", str(count), "--folder", folder, "--steps", str(options.steps)]
            subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
