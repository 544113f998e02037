"""Every way to change a label, side by side, on any bundle and folder of images:

    python tests/benchmarks/edit_modes.py BUNDLE IMAGES --label smiling [--label young ...] [--count 100]

Each label of each image is flipped (or, for `vary`, redrawn), the result composited at the image's own size, encoded
and classified again. reached: it classifies as asked. p: the median probability of what was asked. drift: median over
outputs of the mean change of the other labels' probabilities. pixels: median change, in levels of 255. attempt: mean
number of the draw that was kept, from 0. The draws with a number behind them are `--until-reached`.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ccvae_deploy import Editor
from ccvae_deploy.composer import Composer
from ccvae_deploy.folder import scan
from ccvae_deploy.images import Picture, network_input, to_pil
from ccvae_deploy.pictures.decoding import decode
from ccvae_deploy.storage.source_file import read_file

WAYS: dict[str, dict] = {
    "sample": {"samples": 4},
    "sample, 8": {"samples": 4, "until_reached": 8},
    "mean": {"mode": "mean"},
    "closest 0.9": {"mode": "closest"},
    "closest 0.99": {"mode": "closest", "confidence": 0.99},
    "vary": {"samples": 4},
    "vary, 8": {"samples": 4, "until_reached": 8},
}


def row(editor: Editor, pictures: list[Picture], states: np.ndarray, label: str, way: str) -> list[str]:
    """One line of the table; `states` are the label's sides, one per picture."""
    receipts, wanted = [], []
    for picture, state in zip(pictures, states, strict=True):
        asked = {"vary": [label]} if way.startswith("vary") else {"set": {label: int(not state)}}
        receipts += (found := editor.edit(to_pil(picture), **asked, **WAYS[way])).receipts
        wanted += [bool(state) if "vary" in asked else not state] * len(found.receipts)
    after = [r.after[label] if w else 1 - r.after[label] for r, w in zip(receipts, wanted, strict=True)]
    return [
        label,
        way,
        f"{statistics.mean(r.reached for r in receipts):.1%}",
        f"{statistics.median(after):.3f}",
        f"{statistics.median(r.drift for r in receipts):.4f}",
        f"{statistics.median(r.pixel_change for r in receipts):.2f}",
        f"{statistics.mean(r.attempt for r in receipts):.2f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--label", action="append", required=True)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    composer = Composer.open(given.bundle, batch_size=4)
    editor = Editor(composer)
    paths = [source.path for source in scan([given.images]).sources][: given.count]
    pictures = [decode(read_file(path)) for path in paths]
    spec = composer.bundle.manifest.image
    encoded = composer.encode(np.stack([network_input(picture, spec) for picture in pictures]))
    table = Table(title=f"{len(pictures)} images, 4 samples where drawn", title_justify="left")
    for name in ("label", "way", "reached", "p", "drift", "pixels", "attempt"):
        table.add_column(name, justify="left" if name in ("label", "way") else "right")
    for name in given.label:
        position = composer.labels.index(name)
        states = encoded.before[:, composer.labels.columns[position].start] > 0.5
        for way in WAYS:
            table.add_row(*row(editor, pictures, states, composer.labels.names[position], way))
        table.add_section()
    console = Console()
    console.print(table)
    console.print(
        f"control: reconstruction alone differs by {np.median(encoded.control):.2f} of 255 at the model's size"
    )


if __name__ == "__main__":
    main()
