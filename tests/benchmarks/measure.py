"""The figures of the README, measured: `make measure` after `make demo`, or

    python tests/benchmarks/measure.py BUNDLE

on a bundle that was trained on portraits. Prints two tables; what is compared is compared in this one run. Needs Linux.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from ccvae_deploy import Editor
from ccvae_deploy.images import from_array, network_input
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.request import make_request
from ccvae_train.datasets.portraits import LABELS, draw_factors, masks, render

UNSEEN = 10_000_000
"""Portraits from this index on are in no training or validation set."""


def edits_by_label(editor: Editor, count: int = 200, samples: int = 4) -> Table:
    """Flip every label of unseen portraits: is it reached, do others move, and is the change where it may be?"""
    table = Table(title=f"each label flipped on {count} unseen portraits, {samples} samples each", title_justify="left")
    for name in ("label", "accuracy", "reached", "drift", "change in mask", "mask area"):
        table.add_column(name, justify="left" if name == "label" else "right")
    factors = [draw_factors(0, UNSEEN + i) for i in range(count)]
    pictures = np.stack([render(f) for f in factors])
    truth = np.array([f.labels for f in factors])
    allowed = np.stack([masks(f) for f in factors])
    spec = editor.bundle.manifest.image
    encoded = editor.encode(np.stack([network_input(from_array(p), spec) for p in pictures]))
    names = [f"{i}.png" for i in range(count)]
    for label, name in enumerate(one.name for one in LABELS):
        reached, drift, inside, area = [], [], [], []
        for value in (0, 1):
            rows = np.flatnonzero((encoded.before[:, label] > 0.5) != bool(value))
            request = make_request(editor.labels, {name: value}, samples=samples)
            part = type(encoded)(*(getattr(encoded, field)[rows] for field in ("z", "before", "decoded", "control")))
            changed = editor.changed(request, part, [names[row] for row in rows])
            difference = changed - part.decoded[:, None]
            seen = np.clip(pictures[rows].transpose(0, 3, 1, 2)[:, None] / 255 + difference, 0, 1).astype(np.float32)
            after = editor.classify(seen.reshape(-1, *seen.shape[2:])).reshape(len(rows), samples, -1)
            reached.append(((after[:, :, label] > 0.5) == bool(value)).ravel())
            others = np.delete(np.abs(after - part.before[:, None]), label, axis=2)
            drift.append(others.mean(axis=2).ravel())
            moved = np.abs(difference).sum(axis=(1, 2))
            mask = allowed[rows, label]
            inside.append((moved * mask).sum(axis=(1, 2)) / moved.sum(axis=(1, 2)))
            area.append(mask.mean(axis=(1, 2)))
        accuracy = ((encoded.before[:, label] > 0.5) == truth[:, label]).mean()
        shares = (float(np.concatenate(values).mean()) for values in (reached, drift, inside, area))
        first, second, third, fourth = shares
        table.add_row(name, f"{accuracy:.1%}", f"{first:.1%}", f"{second:.3f}", f"{third:.0%}", f"{fourth:.0%}")
    return table


def made_photographs(folder: Path, count: int) -> Path:
    """JPEGs of 178x218, the size of CelebA's."""
    folder.mkdir()
    for i in range(count):
        image = Image.fromarray(render(draw_factors(1, i), 128))
        image.resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg", quality=92)
    return folder


def folder_rate(bundle: Path, images: Path, out: Path) -> float:
    """Outputs per second of `edit` with 8 samples, all in."""
    return edit_folder([images], bundle=bundle, out=out, set=["smiling=1"], samples=8).images_per_second


def loop_rate(editor: Editor, images: Path, out: Path) -> float:
    """Outputs per second of the same edits one image after the other, as a plain script would."""
    out.mkdir()
    began, written = time.perf_counter(), 0
    for path in sorted(images.iterdir()):
        for k, image in enumerate(editor.edit(path, smiling=1, samples=8).images):
            image.save(out / f"{path.stem}-{k}.jpg", quality=95, subsampling=0)
            written += 1
    return written / (time.perf_counter() - began)


def command(bundle: Path, images: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MiB of the command in a process of its own."""
    script = (
        "import sys\nfrom ccvae_deploy.cli import app\n"
        "try: app(sys.argv[1:])\n"
        # not getrusage: a child's figure there begins with its parent's
        "finally: print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    arguments = ["edit", images, "--set", "smiling=1", "--samples", "8", "--bundle", bundle, "--out", out]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, int(done.stdout.split("peak")[1]) / 1024


def speed(bundle: Path, editor: Editor, folder: Path) -> Table:
    """Rates of three interleaved runs, cold start, and peak memory at two sizes."""
    many, few, one = (made_photographs(folder / str(count), count) for count in (1000, 100, 1))
    pairs = [(folder_rate(bundle, few, folder / f"f{i}"), loop_rate(editor, few, folder / f"l{i}")) for i in range(3)]
    ours, plain = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    cold = statistics.median(command(bundle, one, folder / f"c{i}")[0] for i in range(3))
    table = Table(title="178x218 JPEG, 8 samples per image, receipts included", title_justify="left", show_header=False)
    table.add_row("edit, a folder", f"{ours:,.0f} images/s")
    table.add_row("Editor.edit, one image after the other", f"{plain:,.0f} images/s ({ours / plain:.1f}x)")
    table.add_row("one image from a cold start", f"{cold:.2f} s")
    table.add_row("peak memory, 800 outputs", f"{command(bundle, few, folder / 'm1')[1]:,.0f} MiB")
    table.add_row("peak memory, 8,000 outputs", f"{command(bundle, many, folder / 'm2')[1]:,.0f} MiB")
    return table


def main(bundle: Path) -> None:
    """Print both tables."""
    editor = Editor.open(bundle)
    console = Console(width=80, highlight=False)
    figures = editor.bundle.manifest.provenance["validation"]
    console.print(
        f"validation: accuracy {figures['accuracy']:.4f} (floor {figures['floor']:.4f}), "
        f"balanced {figures['balanced_accuracy']:.4f}, L1 {figures['l1']:.4f}; {editor.bundle.provider_note}"
    )
    console.print(edits_by_label(editor))
    with tempfile.TemporaryDirectory() as folder:
        console.print(speed(bundle, editor, Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
