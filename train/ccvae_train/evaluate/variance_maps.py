"""Where draws of a label differ (Fig. 5), and on portraits how much of that lies where the label may speak.

For an image and a label: z fixed at the posterior mean, S draws of z_i ~ p(z_i|y_i) at the label's value, decoded; the
variance of each pixel over the S images, mean over colours. A characteristic that is captured alone varies inside the
pixels that the true factor may touch.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccvae_deploy.images import from_unit
from ccvae_deploy.pictures.film import Cell
from ccvae_deploy.variance import overlay, pixel_variance

from ..accuracy import mean_of
from ..label_columns import Floats
from .bench import Bench
from .finding import Finding, Skipped, by_label
from .labelled_subject import LabelledSubject
from .pictures import sheet

NAME = "variance"
DRAWS, IMAGES, SHOWN = 24, 32, 4
NEAR = 2


def share_inside(maps: NDArray[np.floating], masks: NDArray[np.bool_]) -> Floats:
    """The share of each map's sum that lies inside its mask, (...); NaN where the map is all 0.

    Args:
        maps: (..., S, S), none below 0. masks: the same shape.
    """
    total = maps.sum(axis=(-2, -1), dtype=np.float64)
    inside = (maps * masks).sum(axis=(-2, -1), dtype=np.float64)
    shares: Floats = np.divide(inside, total, out=np.full(total.shape, np.nan), where=total > 0)
    return shares


def grown(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks with every pixel at most two rows and columns away: a soft reconstruction spills over an edge."""
    wide = np.pad(masks, [(0, 0)] * (masks.ndim - 2) + [(NEAR, NEAR)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * NEAR + 1,) * 2, axis=(-2, -1))
    found: NDArray[np.bool_] = np.any(windows, axis=(-2, -1))
    return found


def measure_maps(bench: Bench, count: int) -> Floats:
    """The maps of the first images, (count, L, S, S)."""
    rng, values = bench.rng(NAME), bench.known_values
    maps = []
    for row in range(count):
        image = np.repeat(bench.images[row : row + 1], DRAWS, axis=0)
        asked = np.repeat(values[row : row + 1], DRAWS, axis=0)
        maps.append(
            [pixel_variance(bench.subject.intervene(image, i, asked[:, i], rng)) for i in range(len(bench.labels))]
        )
    return np.array(maps)


def run(bench: Bench) -> Finding:
    """The first images; the figure is the mean over labels and images of the share inside the true mask.

    Raises:
        Skipped: the model has no latents of a label to draw.
    """
    if isinstance(bench.subject, LabelledSubject):
        raise Skipped("the model has no latents of a label to draw")
    maps = measure_maps(bench, min(IMAGES, len(bench.images)))
    pictures = {NAME: _overlays(bench, maps[:SHOWN])}
    note = f"{DRAWS} draws per label; green where they differ, each map by its own maximum."
    try:
        masks = bench.true_masks(len(maps))
    except Skipped as reason:
        return Finding(pictures=pictures, images=len(maps), note=f"{note} No share inside the true mask: {reason}.")
    inside, near = (np.array([mean_of(column) for column in share_inside(maps, m).T]) for m in (masks, grown(masks)))
    columns = {"inside the mask": inside, f"within {NEAR} pixels": near, "mask's area": masks.mean(axis=(0, 2, 3))}
    return Finding(
        figures={
            "variance inside the true mask": mean_of(inside),
            f"variance within {NEAR} pixels of it": mean_of(near),
        },
        tables=(by_label(NAME, bench.labels.names, columns, shares=True),),
        pictures=pictures,
        images=len(maps),
        note=note,
    )


def _overlays(bench: Bench, maps: Floats) -> Image.Image:
    peaks = maps.max(axis=(2, 3), keepdims=True)
    scaled = (maps / np.where(peaks > 0, peaks, 1)).astype(np.float32)
    rows = []
    for row, shown in enumerate(scaled):
        original = from_unit(bench.images[row])
        cells = [Cell(original, "original")]
        cells += [Cell(overlay(original, one), name) for name, one in zip(bench.labels.names, shown, strict=True)]
        rows.append(cells)
    return sheet(rows, "where draws of each label differ")
