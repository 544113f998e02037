"""Mutual information of generated images (Table 7, D.6): how unsure a Bayesian classifier is for want of knowledge.

MI(y, w | x) = H[E_w p(y|x, w)] - E_w H[p(y|x, w)] in nats, from several draws of the classifier's function values; low
for images that look like those it was trained on. The classifier is a sparse variational Gaussian process (one latent
function per class, 200 inducing points) on the judge's features of real images. Needs the extra [gp].
"""

import warnings
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.images import in_unit
from ccvae_deploy.terminal.screen import counted

from ..accuracy import mean_of
from ..datasets.dataset import MISSING
from ..label_columns import Floats, uniform_values
from .bench import Bench
from .finding import Finding, Skipped, by_label

NAME = "information"
TRAINING, DRAWS = 4000, 64


def mutual_information(logits: NDArray[np.floating]) -> Floats:
    """MI in nats per image, (N,), from draws of logits (T, N, K)."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    found: Floats = _entropy(chances.mean(axis=0)) - _entropy(chances).mean(axis=0)
    return found


def _entropy(chances: Floats) -> Floats:
    entropy: Floats = -(chances * np.log(np.maximum(chances, 1e-300))).sum(axis=-1)
    return entropy


def run(bench: Bench) -> Finding:
    """Every categorical label, images of uniform labels; real images as the least that is to be expected."""
    chosen = [i for i, label in enumerate(bench.labels.labels) if label.kind == "categorical"]
    if not chosen:
        raise Skipped("needs a categorical label, such as MNIST's digit")
    if find_spec("gpytorch") is None:
        raise Skipped("needs the extra [gp]: pip install 'ccvae-deploy[gp]'")
    with warnings.catch_warnings():
        # gpytorch still imports what torch has deprecated
        warnings.simplefilter("ignore")
        from .gaussian_process import fit_process

    rng = bench.rng(NAME)
    made = bench.judge.features(bench.subject.generate(uniform_values(bench.settings.images, bench.labels, rng), rng))
    real, train = bench.judge.features(bench.images), bench.data.train
    rows = []
    for i in chosen:
        shown = np.flatnonzero(np.asarray(train.labels[:, i]) != MISSING)[:TRAINING]
        if not len(shown):
            raise Skipped(f"no training image shows {bench.labels.names[i]}")
        features = bench.judge.features(in_unit(train.images[shown]))
        values, classes = np.asarray(train.labels[shown, i]), len(bench.labels.labels[i].classes)
        process = fit_process(features, values, classes, seed=bench.settings.seed)
        rows.append([float(mutual_information(process.draw(one, DRAWS)).mean()) for one in (made, real)])
    names = [bench.labels.names[i] for i in chosen]
    generated, held_out = (list(column) for column in zip(*rows, strict=True))
    return Finding(
        figures={
            "mutual information": mean_of(np.array(generated)),
            "mutual information, real images": mean_of(np.array(held_out)),
        },
        tables=(by_label(NAME, names, {"generated": generated, "real": held_out}),),
        images=len(made),
        note=f"In nats, lower is better; of {counted(len(made), 'generated image')}, and of {len(real):,} real ones as "
        "the least that is to be expected.",
    )
