"""Conditional generation (Table 5; the accuracy of Table 7): does the judge see the labels that were asked?

y -> z_c ~ p(z_c|y), z_s ~ N(0, I) -> image -> share of labels on which the judge agrees with y. The paper's chance
level of one half says that it drew labels uniformly, which asks for people that do not exist (bearded women, three
colours of hair); so the figure is also given for label vectors of real images.
"""

import numpy as np

from ccvae_deploy.terminal.screen import counted

from ..accuracy import mean_of
from ..datasets.dataset import MISSING
from ..label_columns import Floats, Values, predicted, prior_values, uniform_values
from .bench import Bench
from .finding import Finding, Skipped, by_label

NAME = "generation"


def agreement(seen: Values, asked: Values) -> Floats:
    """Share of images on which the judge's value is the asked one, per label, (L,)."""
    share: Floats = (seen == asked).mean(axis=0)
    return share


def run(bench: Bench) -> Finding:
    """As many images of either kind as the settings say."""
    rng, count, labels = bench.rng(NAME), bench.settings.images, bench.labels
    uniform = uniform_values(count, labels, rng)
    real = real_values(bench, count, rng)
    shares = {
        name: agreement(predicted(bench.judge.logits(bench.subject.generate(asked, rng)), labels), asked)
        for name, asked in (("uniform labels", uniform), ("real labels", real))
    }
    seen = predicted(bench.judge.logits(bench.subject.reconstruct(bench.images)), labels)
    kept = np.where(bench.values == MISSING, np.nan, seen == bench.values)
    columns = {
        **shares,
        "reconstructions": np.array([mean_of(column) for column in kept.T]),
        "real labels, floor": agreement(np.broadcast_to(bench.majority, real.shape), real),
        "uniform labels, chance": np.array([1 / len(label.classes) for label in labels.labels]),
    }
    return Finding(
        figures={f"generation, {name}": mean_of(share) for name, share in columns.items()},
        tables=(by_label(NAME, labels.names, columns, shares=True),),
        images=count,
        note="Share of labels on which the judge agrees with what was asked, higher is better. The floor is what "
        "images score that always show each label's more frequent value; 'reconstructions' is the judge's agreement "
        f"with the true labels on unchanged reconstructions of {counted(len(bench.images), 'real image')}.",
    )


def real_values(bench: Bench, count: int, rng: np.random.Generator) -> Values:
    """Label vectors of random training images that show a label; a missing one is drawn from p(y)."""
    pool = np.asarray(bench.data.train.labels)
    shown = np.flatnonzero((pool != MISSING).any(axis=1))
    if not len(shown):
        raise Skipped("no training image shows a label")
    rows = rng.choice(shown, size=count)
    drawn = prior_values(count, bench.labels, bench.prior, rng)
    return np.where(pool[rows] == MISSING, drawn, pool[rows]).astype(np.int64)
