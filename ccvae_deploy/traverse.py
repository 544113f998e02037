"""Walk through the latents of one or two labels and look at what the decoder draws. Writes one picture.

Everything but the walked blocks stays at the posterior mean of the source (figures 3, 18, 19 and 21 of the paper).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from . import images
from .arrays import Array
from .composer import Composer
from .edits.outcome import decided
from .edits.request import checked_compose, class_position
from .errors import LabelError, UsageError, nearest
from .given import each, real, refuse_outside
from .images import Picture
from .interventions import Block, intervene
from .limits import MAX_PIXELS
from .pictures.decoding import open_picture
from .pictures.film import Cell, film_gif, film_grid, shrunk
from .pictures.rendering import render
from .schema import Label
from .storage.new_file import new_file
from .storage.remote import local_path
from .storage.store import refuse_output

REACH = 2.0
MAX_STRIP, MAX_GRID = 64, 16
STRIP_SIZE, GIF_SIZE = 128, 256
ENDINGS = (".png", ".gif")

Classes = str | Sequence[str | float]
"""Names of classes; numbers name those that are called so."""


@dataclass(frozen=True)
class Walk:
    """A walk as rows and columns of pictures; a strip has one row.

    Attributes:
        z: latents, (R, C, Z).
        probabilities: q(y|z_c) at these latents, (R, C, Y).
        cells: pictures with captions, R rows of C.
    """

    title: str
    z: Array
    probabilities: Array
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def images(self) -> list[list[Image.Image]]:
        """The pictures as Pillow images, R rows of C."""
        return [[images.to_pil(cell.picture) for cell in row] for row in self.cells]


class WalkOptions(TypedDict, total=False):
    """How a walk goes; every key has a default, see `walk`."""

    steps: int
    classes: Classes | None
    reach: float
    compose: str
    size: int | None


def walk(
    composer: Composer,
    picture: Picture,
    labels: Sequence[str],
    *,
    steps: int = 8,
    classes: Classes | None = None,
    reach: float = REACH,
    compose: str = "residual",
    size: int | None = None,
) -> Walk:
    """Walk along one binary label (a strip), two (a grid), or between the classes of a categorical one: two make a
    strip, three or four a square.

    Args:
        picture: the source.
        labels: one or two names. With two, the first goes down and the second across.
        steps: pictures per axis.
        classes: which classes of a categorical label are the corners; its first four unless given.
        reach: how far beyond the two modes an axis goes, in units of the conditional prior's scale.
        size: the longer side of the results, all of which are in memory; None leaves them the source's.

    Raises:
        LabelError: an unknown label or class.
        UsageError: a combination that cannot be walked, or an argument outside its range.
    """
    if size is not None:
        refuse_outside("size", size, 1)
    classes = None if classes is None else each("--classes", classes, numbers=True)
    chosen = composer.labels.positions(labels)
    kinds = [composer.labels.labels[i] for i in chosen]
    _refuse(kinds, steps, classes, reach)
    how = checked_compose(compose)
    if not composer.latents.has_modes:
        family = composer.bundle.manifest.model.family
        raise UsageError(f"a {family} bundle has no conditional prior to measure a walk by; take a ccvae bundle")
    seen = images.network_input(picture, composer.bundle.manifest.image)[None]
    encoded = composer.encode(seen)
    blocks = _blocks(composer, encoded.before[0], chosen, steps, classes, reach)
    rows, columns = blocks[0].shape[:2]
    copies = np.broadcast_to(encoded.z[0], (rows, columns, encoded.z.shape[1]))
    z = intervene(copies, dict(zip(chosen, blocks, strict=True)), composer.bundle.manifest.layout.slices)
    flat = z.reshape(-1, z.shape[-1])
    decoded, probabilities = composer.decode(flat), composer.probabilities(flat)
    captions = _captions(composer, chosen, z, probabilities.reshape(rows, columns, -1))
    canvas = picture if size is None else shrunk(picture, size)
    cells = [
        Cell(render(canvas, image, encoded.decoded[0], how), caption)
        for image, caption in zip(decoded, captions, strict=True)
    ]
    return Walk(
        _title(kinds, classes),
        z,
        probabilities.reshape(rows, columns, -1),
        tuple(tuple(cells[r * columns : (r + 1) * columns]) for r in range(rows)),
    )


def traverse(
    image: Path | str,
    *,
    bundle: Path | str,
    labels: Sequence[str],
    steps: int = 8,
    classes: Classes | None = None,
    reach: float = REACH,
    compose: str = "residual",
    out: Path | str = "walk.png",
    provider: str = "auto",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
    allow_torchscript: bool = False,
) -> Walk:
    """Write a walk as a strip or a grid (.png), or as an animation of a strip (.gif).

    The change is added to the original brought down to 128 pixels (256 in an animation), so that a small model's walk
    is as sharp as its edits.

    Raises:
        CCVAEError: refused, and nothing was written.
    """
    image, out = local_path(image), local_path(out)
    refuse_output(out, image, ENDINGS, overwrite)
    animated = out.suffix.lower() == ".gif"
    composer = Composer.open(bundle, provider=provider, allow_torchscript=allow_torchscript, max_pixels=max_pixels)
    source, _ = open_picture(image, max_pixels=max_pixels)
    size = GIF_SIZE if animated else STRIP_SIZE
    found = walk(composer, source, labels, steps=steps, classes=classes, reach=reach, compose=compose, size=size)
    if animated:
        if len(found.cells) > 1:
            raise UsageError(f"--out {out}: a grid does not move; give one binary label, two --classes, or a .png")
        data = film_gif(found.cells[0], found.title, size=size)
    else:
        first = () if len(found.cells) > 1 else (Cell(source, "original"),)
        sheet = film_grid([(*first, *row) for row in found.cells], found.title, size=size)
        data = images.encode(images.from_pil(sheet), "png")
    with new_file(out, overwrite=overwrite) as stream:
        stream.write(data)
    return found


def axis(modes: Block, low: Array, high: Array, steps: int, reach: float) -> Array:
    """Positions of a block from below its first mode to beyond its second, (steps, d).

    From mu_0 - t sgn s_0 to mu_1 + t sgn s_1 with sgn = sign(mu_1 - mu_0) per latent, each end clipped to the range
    of real latents.

    Args:
        modes: loc and scale of p(z_i|y_i) at both values, (2, d).
        low: 1st percentile of real latents, (d,); `high` the 99th.
    """
    sign = np.where(modes.loc[1] < modes.loc[0], np.float32(-1), np.float32(1))
    ends = modes.loc + np.float32(reach) * sign * modes.scale * np.array([[-1], [1]], np.float32)
    first, last = np.clip(ends, low, high)
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    line: Array = first * (1 - share) + last * share
    return line


def polytope(corners: Array, steps: int) -> Array:
    """Blocks between three or four class means on a square grid by bilinear weights, (steps, steps, d) (figure 21).

    The first two are the upper corners and the others the lower ones; of three the third is all of the lower edge.

    Args:
        corners: (3, d) or (4, d).
    """
    upper_left, upper_right, lower_left = corners[:3]
    lower_right = corners[-1]
    share = np.linspace(0, 1, steps, dtype=np.float32)
    across, down = share[None, :, None], share[:, None, None]
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    square: Array = upper * (1 - down) + lower * down
    return square


def _blocks(
    composer: Composer, before: Array, chosen: Sequence[int], steps: int, classes: Sequence[str] | None, reach: float
) -> list[Array]:
    """Per walked label its block in every row and column, (R, C, d)."""
    at = [_modes(composer, before, i, _corners(composer.labels.labels[i], classes)) for i in chosen]
    ranges = [_real_range(composer, i) for i in chosen]
    if len(at[0].loc) > 2:
        return [polytope(np.clip(at[0].loc, *ranges[0]), steps)]
    # from class to class, not beyond
    beyond = reach if composer.labels.labels[chosen[0]].kind == "binary" else 0.0
    lines = [axis(modes, *ends, steps, beyond) for modes, ends in zip(at, ranges, strict=True)]
    if len(lines) == 1:
        return [lines[0][None]]
    down, across = lines
    return [np.repeat(down[:, None], steps, axis=1), np.repeat(across[None], steps, axis=0)]


def _real_range(composer: Composer, label: int) -> tuple[Array, Array]:
    """The 1st and 99th percentile of real latents of a block, both (d,)."""
    columns, found = composer.bundle.manifest.layout.slices[label], composer.bundle.manifest.latent_range
    return np.asarray(found.low[columns], np.float32), np.asarray(found.high[columns], np.float32)


def _modes(composer: Composer, before: Array, label: int, classes: Sequence[int]) -> Block:
    """p(z_i|y_i) at each class of one label, the others as the source classifies: loc and scale (classes, d)."""
    columns, binary = composer.labels.columns[label], composer.labels.labels[label].kind == "binary"
    y = np.repeat(decided(composer.labels, before[None]), len(classes), axis=0)
    y[:, columns] = np.reshape(classes, (-1, 1)) if binary else np.eye(columns.stop - columns.start)[list(classes)]
    return composer.latents.block(y, label)


def _corners(label: Label, classes: Sequence[str] | None) -> list[int]:
    """Positions of the classes between which a label is walked."""
    if classes is None:
        return list(range(min(len(label.classes), 4)))
    found = []
    for name in classes:
        position = class_position(label, name)
        if position is None:
            raise LabelError(f"{label.name}={name}: {nearest(name, label.classes)}")
        found.append(position)
    if not 2 <= len(set(found)) == len(found) <= 4:
        raise UsageError(f"--classes {','.join(classes)}: expected two to four different classes of {label.name}")
    return found


def _refuse(labels: Sequence[Label], steps: int, classes: Sequence[str] | None, reach: float) -> None:
    names = ",".join(label.name for label in labels)
    if len(labels) not in (1, 2) or len({label.name for label in labels}) != len(labels):
        raise UsageError(f"--labels {names}: expected one label, or two different ones")
    if len(labels) == 2 and any(label.kind == "categorical" for label in labels):
        raise UsageError(f"--labels {names}: a categorical label is walked on its own")
    if classes is not None and labels[0].kind == "binary":
        raise UsageError(f"--classes with {names}: only a categorical label has classes to choose")
    if reach != REACH and labels[0].kind == "categorical":
        raise UsageError(f"--reach with {names}: a categorical label is walked from class to class; leave it out")
    most = MAX_STRIP if len(labels) == 1 and len(_corners(labels[0], classes)) == 2 else MAX_GRID
    refuse_outside("--steps", steps, 2, most, f" for {names}")
    if not 0 <= real("--reach", reach) <= 100:
        raise UsageError(f"--reach {reach:g}: expected 0 to 100 scales of the conditional prior")


def _title(labels: Sequence[Label], classes: Sequence[str] | None) -> str:
    """What is walked, and between which classes."""
    first = labels[0]
    if len(labels) == 2:
        return f"{first.name} down, {labels[1].name} across"
    if first.kind == "binary":
        return first.name
    names = [first.classes[k] for k in _corners(first, classes)]
    if len(names) == 2:
        return f"{first.name}: {names[0]} to {names[1]}"
    return f"{first.name}: {names[0]} and {names[1]} above, {' and '.join(names[2:])} below"


def _captions(composer: Composer, chosen: Sequence[int], z: Array, probabilities: Array) -> list[str]:
    """What stands under each picture, row by row: the probability of each walked label; on a strip also its latent."""
    label, columns = composer.labels.labels[chosen[0]], composer.labels.columns[chosen[0]]
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    if label.kind == "categorical":
        best = flat[:, columns].argmax(axis=1)
        return [f"{label.classes[k]} {row[columns][k]:.2f}" for k, row in zip(best, flat, strict=True)]
    if len(chosen) == 2:
        other = composer.labels.columns[chosen[1]]
        return [f"p {row[columns.start]:.2f}, {row[other.start]:.2f}" for row in flat]
    first = z[..., composer.bundle.manifest.layout.slices[chosen[0]]].reshape(len(flat), -1)[:, 0]
    return [f"z {value:+.1f}, p {row[columns.start]:.2f}" for value, row in zip(first, flat, strict=True)]
