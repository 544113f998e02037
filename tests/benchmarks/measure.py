"""The figures of the README, measured: `make measure` after `make demo`, or

    python tests/benchmarks/measure.py BUNDLE

on a bundle that was trained on portraits. Prints what editing each label does; `edit_speed.py` measures how fast it is.
"""

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ccvae_deploy.composer import Composer
from ccvae_deploy.edits.request import make_request
from ccvae_deploy.images import from_array, network_input
from ccvae_train.datasets.portraits import LABELS, draw_factors, masks, render

UNSEEN = 10_000_000
"""Portraits from this index on are in no training or validation set."""


def edits_by_label(composer: Composer, count: int = 200, samples: int = 4) -> Table:
    """Flip every label of unseen portraits: is it reached, do others move, and is the change where it may be?"""
    table = Table(title=f"each label flipped on {count} unseen portraits, {samples} samples each", title_justify="left")
    for name in ("label", "accuracy", "reached", "drift", "change in mask", "mask area"):
        table.add_column(name, justify="left" if name == "label" else "right")
    factors = [draw_factors(0, UNSEEN + i) for i in range(count)]
    pictures = np.stack([render(f) for f in factors])
    truth = np.array([f.labels for f in factors])
    allowed = np.stack([masks(f) for f in factors])
    spec = composer.bundle.manifest.image
    encoded = composer.encode(np.stack([network_input(from_array(p), spec) for p in pictures]))
    names = [f"{i}.png" for i in range(count)]
    for label, name in enumerate(one.name for one in LABELS):
        reached, drift, inside, area = [], [], [], []
        for value in (0, 1):
            rows = np.flatnonzero((encoded.before[:, label] > 0.5) != bool(value))
            request = make_request(composer.labels, {name: value}, samples=samples)
            part = type(encoded)(*(getattr(encoded, field)[rows] for field in ("z", "before", "decoded", "control")))
            changed = composer.changed(request, part, [names[row] for row in rows])
            difference = changed - part.decoded[:, None]
            seen = np.clip(pictures[rows].transpose(0, 3, 1, 2)[:, None] / 255 + difference, 0, 1).astype(np.float32)
            after = composer.classify(seen.reshape(-1, *seen.shape[2:])).reshape(len(rows), samples, -1)
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


def main(bundle: Path) -> None:
    """Print the table."""
    composer = Composer.open(bundle)
    console = Console(width=80, highlight=False)
    figures = composer.bundle.manifest.provenance["validation"]
    console.print(
        f"validation: accuracy {figures['accuracy']:.4f} (floor {figures['floor']:.4f}), "
        f"balanced {figures['balanced_accuracy']:.4f}, L1 {figures['l1']:.4f}; {composer.bundle.provider_note}"
    )
    console.print(edits_by_label(composer))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
