"""Interventions against the truth, on portraits, whose factors and pixels are known.

For each label: the share of changed images in which the true factor is as asked, told by a judge that tells portraits
nearly without error; and the share of the pixel change, |x' - reconstruction|, inside the pixels that the label may
touch in a true portrait of these factors.
"""

import numpy as np

from ..accuracy import mean_of
from ..label_columns import other_value, predicted
from .bench import Bench
from .finding import Finding, by_label
from .variance_maps import share_inside

NAME = "truth"
IMAGES = 200


def run(bench: Bench) -> Finding:
    """The first images, every label changed to another value by one draw."""
    masks = bench.true_masks(IMAGES)
    images, values = bench.images[: len(masks)], bench.known_values[: len(masks)]
    rng, labels, rebuilt = bench.rng(NAME), bench.labels, bench.subject.reconstruct(images)
    changed, unedited, inside, kept = [], [], [], []
    before = predicted(bench.judge.logits(rebuilt), labels)
    for i in range(len(labels)):
        asked = other_value(values, i, labels, rng)
        edited = bench.subject.intervene(images, i, asked, rng)
        seen = predicted(bench.judge.logits(edited), labels)
        changed.append(float((seen[:, i] == asked).mean()))
        unedited.append(float((before[:, i] == asked).mean()))
        kept.append(float(np.delete(seen == before, i, axis=1).mean()) if len(labels) > 1 else float("nan"))
        inside.append(mean_of(share_inside(np.abs(edited - rebuilt).mean(axis=1), masks[:, i])))
    told = bench.judge.state.figures["accuracy"]
    columns = {
        "factor as asked": changed,
        "factor as asked, unedited": unedited,
        "change inside the mask": inside,
        "others unchanged": kept,
    }
    return Finding(
        figures={name: mean_of(np.array(shares)) for name, shares in columns.items()},
        tables=(by_label(NAME, labels.names, columns, shares=True),),
        images=len(images),
        note=f"The judge is right for {told:.2%} of real ones. 'unedited' is the share of the "
        "same requests that the unchanged reconstruction meets.",
    )
