"""Single interventions (D.1): change one label at a time and see what the judge says of every label.

For label i, x' is x with z_i ~ p(z_i | another value), and D_ij = log p_C(y_j | x') - log p_C(y_j | reconstruction of
x), y the true labels. M = mean |D|. A model that changes what was asked and nothing else has a diagonal M. The
condition number depends on the scale of rows, so diagonal dominance stands beside it.
"""

from dataclasses import dataclass

import numpy as np

from ..accuracy import mean_of, share
from ..datasets.dataset import MISSING
from ..label_columns import Floats, log_probability, other_value, predicted
from .bench import Bench
from .finding import Finding, by_label

NAME = "interventions"


@dataclass(frozen=True)
class Effects:
    """The matrix M, (L, L), row i the label that was changed, NaN in columns that no image shows; and what it comes to.

    Attributes:
        condition: the ratio of its largest to its smallest singular value, infinite when it is singular.
            Labels that no image shows are left out; NaN where fewer than two are left, since one is always 1.
        dominance: per row the diagonal's share of the row's sum, (L,); 1 is ideal, NaN where no image shows the label
            or it is the only one.
    """

    matrix: Floats
    condition: float
    dominance: Floats


def measure_effects(before: Floats, after: Floats) -> Effects:
    """From the judge's log-probabilities of the true labels.

    Args:
        before: on the reconstructions, (N, L), NaN where a label is missing.
        after: on the changed images, (L, N, L), the first axis the label that was changed.
    """
    shown = ~np.isnan(before)
    gaps = np.where(shown, np.abs(after - before), 0)
    matrix = gaps.sum(axis=1) / np.maximum(shown.sum(axis=0), 1)
    sums, known = matrix.sum(axis=1), shown.any(axis=0)
    told = known & (sums > 0) & (known.sum() > 1)
    dominance = np.divide(np.diag(matrix), sums, out=np.full(len(sums), np.nan), where=told)
    matrix[:, ~known] = np.nan
    if known.sum() < 2:
        return Effects(matrix, float("nan"), dominance)
    singular = np.linalg.svd(matrix[np.ix_(known, known)], compute_uv=False)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")
    return Effects(matrix, condition, dominance)


def run(bench: Bench) -> Finding:
    """Every image and every label, one draw each."""
    rng, labels, images, values = bench.rng(NAME), bench.labels, bench.images, bench.known_values
    unchanged = bench.judge.logits(bench.subject.reconstruct(images))
    before = log_probability(unchanged, bench.values, labels)
    after: list[Floats] = []
    reached: list[float] = []
    unedited: list[float] = []
    for i in range(len(labels)):
        asked = other_value(values, i, labels, rng)
        logits = bench.judge.logits(bench.subject.intervene(images, i, asked, rng))
        after.append(log_probability(logits, bench.values, labels))
        known = bench.values[:, i] != MISSING
        for shares, seen in ((reached, logits), (unedited, unchanged)):
            shares.append(share(predicted(seen, labels)[known, i] == asked[known]))
    found = measure_effects(before, np.stack(after))
    names = labels.names
    columns = dict(zip(names, found.matrix.T, strict=True))
    return Finding(
        figures={
            "diagonal dominance": mean_of(found.dominance),
            "condition number": found.condition,
            "reached": mean_of(np.array(reached)),
            "reached, unedited": mean_of(np.array(unedited)),
        },
        tables=(
            by_label("interventions-matrix", names, columns),
            by_label(
                NAME, names, {"reached": reached, "unedited": unedited, "dominance": found.dominance}, shares=True
            ),
        ),
        note="Row: the label that was changed; column: mean |change of log p(true label)|. 'reached' is the share of "
        "changed images that the judge sees as asked, 'unedited' that of the same requests on unchanged "
        "reconstructions: what a model scores that changes nothing.",
    )
