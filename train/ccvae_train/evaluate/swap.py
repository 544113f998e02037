"""Characteristic swap (Table 2): the characteristics of one image on the rest of another, as the judge sees it.

x' = decode(z_c of a, z_s of b), and per label D_i = |log p_C(y_i^a | x_a) - log p_C(y_i^a | x')| for the true labels
y^a, x_a the original; the figure is the mean over labels and pairs. Lower is better. Beside it two controls: nothing
swapped (the model's own reconstruction of a) and z_c from a third image (labels ignored).
"""

from dataclasses import dataclass

import numpy as np

from ccvae_deploy.arrays import Array

from ..accuracy import mean_of
from ..label_columns import Floats, log_probability
from .bench import Bench
from .finding import Finding, Skipped, by_label
from .subject import SplitSubject

NAME = "swap"
CLEAR = 3


@dataclass(frozen=True)
class Swap:
    """Mean distance per label, each (L,).

    Attributes:
        error: the standard error of what the two controls differ by, over pairs and the mean of labels.
    """

    swapped: Floats
    reconstructed: Floats
    unrelated: Floats
    error: float


def measure_swap(original: Floats, reconstructed: Floats, swapped: Floats, unrelated: Floats) -> Swap:
    """Compare the judge's log-probabilities of a's true labels, each (N, L), NaN where missing.

    Args:
        original: on x_a. reconstructed: on its reconstruction. swapped: on x'.
        unrelated: on an image with the characteristics of a third one.
    """
    gaps = [np.abs(original - other) for other in (swapped, reconstructed, unrelated)]
    pairs = np.array([mean_of(row) for row in gaps[2] - gaps[1]])
    pairs = pairs[~np.isnan(pairs)]
    error = float(pairs.std(ddof=1) / len(pairs) ** 0.5) if len(pairs) > 1 else float("nan")
    moved, least, most = (np.array([mean_of(column) for column in one.T]) for one in gaps)
    return Swap(moved, least, most, error)


def relative(found: Swap) -> float:
    """Where the swap stands between nothing swapped, 0, and labels ignored, 1; free of the judge's confidence.

    NaN where the two do not differ by more than `CLEAR` standard errors: a quotient by chance may be anything.
    """
    least, most = mean_of(found.reconstructed), mean_of(found.unrelated)
    if not most - least > CLEAR * found.error:
        return float("nan")
    return (mean_of(found.swapped) - least) / (most - least)


def run(bench: Bench) -> Finding:
    """Every image is once a; b and the third are images at two random distances from it."""
    if isinstance(bench.subject, SplitSubject) and not bench.subject.layout.residual:
        raise Skipped("the model has no residual latents to swap the characteristics onto")
    images, known = bench.images, bench.known_values
    count = len(images)
    if count < 3:
        raise Skipped(f"it needs three images, and there are {count}")
    steps = bench.rng(NAME).permutation(np.arange(1, count))[:2]
    second, third = (np.roll(np.arange(count), int(step)) for step in steps)

    def seen(pictures: Array) -> Floats:
        return log_probability(bench.judge.logits(pictures), bench.values, bench.labels)

    found = measure_swap(
        seen(images),
        seen(bench.subject.reconstruct(images)),
        seen(bench.subject.swap(images, known, images[second])),
        seen(bench.subject.swap(images[third], known[third], images[second])),
    )
    columns = {"swapped": found.swapped, "not swapped": found.reconstructed, "third image": found.unrelated}
    return Finding(
        figures={
            "swap distance": mean_of(found.swapped),
            "not swapped": mean_of(found.reconstructed),
            "third image": mean_of(found.unrelated),
            "swap, relative": relative(found),
        },
        tables=(by_label(NAME, bench.labels.names, columns),),
        note="Mean |change of log p(true label)|, lower is better; 'not swapped' is the reconstruction, 'third image' "
        "no label information. 'relative' is 0 at the one and 1 at the other, whatever the judge's confidence; it is "
        f"not told where these differ by less than {CLEAR} standard errors.",
    )
