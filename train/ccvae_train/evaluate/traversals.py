"""Walks through latents: strips and a grid for binary labels (Fig. 3, 18, 19), class polytopes (Fig. 21). Pictures.

An axis goes from mu_0 - 2 s_0 to mu_1 + 2 s_1 of the conditional prior, a polytope between the means of classes. Ends
and corners are clipped to the 1st to 99th percentile of the posterior means of real images: the published walks of
+-5 scales leave the data.
"""

import numpy as np
from PIL import Image

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import from_unit
from ccvae_deploy.interventions import Block
from ccvae_deploy.pictures.film import Cell
from ccvae_deploy.traverse import REACH, axis, polytope

from .bench import Bench
from .finding import Finding
from .pictures import cells, sheet
from .subject import SplitSubject, Values

NAME = "traversals"
STEPS, SIDE, CORNERS = 9, 7, 4


def run(bench: Bench) -> Finding:
    """The first validation image, everything but the walked blocks at its posterior mean."""
    subject = bench.split()
    means, _ = subject.encode(bench.images)
    low, high = np.percentile(means, [1, 99], axis=0).astype(np.float32)
    z, values = means[0], bench.known_values[0]
    found: dict[str, Image.Image] = {}
    lines = {}
    for i, label in enumerate(bench.labels.labels):
        loc, scale = _modes(subject, values, i)
        block = subject.layout.slices[i]
        if label.kind == "binary":
            lines[i] = axis(Block(loc, scale), low[block], high[block], STEPS, REACH)
        elif len(loc) > 2:
            corners = np.clip(loc[:CORNERS], low[block], high[block])
            walked = _walk(subject, z, {i: polytope(corners, SIDE)})
            names = ", ".join(label.classes[:CORNERS])
            found[f"polytope-{i}"] = sheet([cells(row) for row in walked], f"{label.name}: between {names}")
    if lines:
        strips = []
        for i, line in lines.items():
            row = _walk(subject, z, {i: line[None]})[0]
            strips.append([Cell(from_unit(bench.images[0]), bench.labels.names[i]), *cells(row)])
        found["strips"] = sheet(strips, "each label from 0 to 1 and beyond; the original on the left")
    if len(lines) > 1:
        found["grid"] = _grid(bench, subject, z, dict(list(lines.items())[:2]))
    return Finding(pictures=found, images=1)


def _grid(bench: Bench, subject: SplitSubject, z: Array, lines: dict[int, Array]) -> Image.Image:
    (first, down), (second, across) = lines.items()
    blocks = {
        first: np.repeat(down[:, None], STEPS, axis=1),
        second: np.repeat(across[None], STEPS, axis=0),
    }
    names = bench.labels.names
    title = f"{names[first]} goes down, {names[second]} across"
    return sheet([cells(row) for row in _walk(subject, z, blocks)], title)


def _modes(subject: SplitSubject, values: Values, label: int) -> tuple[Array, Array]:
    """p(z_i|y_i) at every value of a label: loc and scale, (K, d)."""
    count = len(subject.labels.labels[label].classes)
    rows = np.repeat(values[None], count, axis=0)
    rows[:, label] = np.arange(count)
    block = subject.layout.slices[label]
    loc, scale = subject.prior(rows)
    return loc[:, block], scale[:, block]


def _walk(subject: SplitSubject, z: Array, blocks: dict[int, Array]) -> Array:
    """Images (R, C, ...) at z with some blocks replaced, each (R, C, d)."""
    rows, columns = next(iter(blocks.values())).shape[:2]
    walked = np.broadcast_to(z, (rows, columns, len(z))).copy()
    for label, block in blocks.items():
        walked[..., subject.layout.slices[label]] = block
    decoded = subject.decode(walked.reshape(rows * columns, -1))
    return decoded.reshape(rows, columns, *decoded.shape[1:])
