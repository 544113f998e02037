"""Pictures of what a model does: swap grids (Fig. 6, 7), intervention panels (D.1), diversity (Fig. 4, 22, 23), class
interventions (Fig. 24). No figures; people look at them.
"""

import numpy as np

from ..label_columns import other_value, uniform_values
from .bench import Bench
from .finding import Finding
from .pictures import cells, sheet
from .subject import SplitSubject

ROWS, COLUMNS = 6, 8


def run_swaps(bench: Bench) -> Finding:
    """Characteristics from the left column, all else from the upper row."""
    above = bench.images[:COLUMNS]
    left, values = bench.images[COLUMNS : COLUMNS + ROWS], bench.known_values[COLUMNS : COLUMNS + ROWS]
    rows = [[*cells(np.ones_like(above[:1])), *cells(above)]]
    for image, value in zip(left, values, strict=True):
        copies = np.repeat(image[None], len(above), axis=0)
        swapped = bench.subject.swap(copies, np.repeat(value[None], len(above), axis=0), above)
        rows.append([*cells(image[None]), *cells(swapped)])
    caption = "labels' characteristics from the left, all else from above"
    return Finding(pictures={"swaps": sheet(rows, caption)}, images=len(above) + len(left))


def run_panel(bench: Bench) -> Finding:
    """A row per image: original, reconstruction, then each label at the most ordinary look of another value."""
    rng, images = bench.rng("panel"), bench.images[:ROWS]
    values = bench.known_values[:ROWS]
    columns = [images, bench.subject.reconstruct(images)]
    for i in range(len(bench.labels)):
        asked = other_value(values, i, bench.labels, rng)
        columns.append(bench.subject.intervene(images, i, asked, None))
    captions = ("original", "rebuilt", *bench.labels.names)
    rows = [cells(row, captions) for row in np.stack(columns, axis=1)]
    return Finding(pictures={"panel": sheet(rows, "one label changed at a time")}, images=len(images))


def run_diversity(bench: Bench) -> Finding:
    """A row per label vector: one z_s, several draws of z_c ~ p(z_c|y); for other models other images of one y."""
    rng, subject = bench.rng("diversity"), bench.subject
    rows = []
    for values in uniform_values(ROWS, bench.labels, rng):
        several = np.repeat(values[None], COLUMNS, axis=0)
        if isinstance(subject, SplitSubject):
            z, split = subject.draw(several, rng), subject.layout.z_c
            z[:, split:] = z[0, split:]
            rows.append(cells(subject.decode(z)))
        else:
            rows.append(cells(subject.generate(several, rng)))
    split = isinstance(subject, SplitSubject)
    caption = "a row: one y and one z_s, several draws of z_c" if split else "a row: one y, several draws of z"
    return Finding(pictures={"diversity": sheet(rows, caption)}, images=ROWS * COLUMNS)


def run_classes(bench: Bench) -> Finding:
    """Per label a sheet: each of a few images at every value of the label, one draw each (at most ten values)."""
    rng, images, found = bench.rng("classes"), bench.images[:ROWS], {}
    for i, label in enumerate(bench.labels.labels):
        if label.kind == "binary":
            continue
        columns = [images]
        for value in range(min(len(label.classes), 10)):
            columns.append(bench.subject.intervene(images, i, np.full(len(images), value), rng))
        captions = ("original", *label.classes[:10])
        rows = [cells(row, captions) for row in np.stack(columns, axis=1)]
        found[f"classes-{i}"] = sheet(rows, f"{label.name} at each of its classes")
    if not found:
        columns = [images]
        names = []
        for i, label in enumerate(bench.labels.labels[:4]):
            for value in (0, 1):
                columns.append(bench.subject.intervene(images, i, np.full(len(images), value), rng))
                names.append(f"{label.name}={label.classes[value]}")
        rows = [cells(row, ("original", *names)) for row in np.stack(columns, axis=1)]
        found["classes"] = sheet(rows, "draws at both values of the first labels")
    return Finding(pictures=found, images=len(images))
