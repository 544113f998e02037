"""The model's own classifier on real images (Table 1, Table 6), over the whole validation partition.

Of a model whose latents are split by label it is taken twice: at the posterior mean, as edits and receipts have it, and
of q(y|x) = E_q(z|x) q(y|z_c), which is what a calibration error speaks of. A binary label's value is the same by both.
"""

import numpy as np

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import in_unit
from ccvae_deploy.schema import LabelSet

from ..accuracy import Accuracy, measure_accuracy
from ..label_columns import class_log_probabilities
from .bench import Bench
from .finding import Finding, by_label
from .subject import SplitSubject

NAME = "accuracy"
CHUNK, DRAWS = 500, 100


def run(bench: Bench) -> Finding:
    """Every validation image."""
    valid, rng = bench.data.valid, bench.rng(NAME)
    at_mean, predictive = [], []
    for start in range(0, len(valid), CHUNK):
        images = in_unit(valid.images[start : start + CHUNK])
        if isinstance(bench.subject, SplitSubject):
            loc, scale = bench.subject.encode(images)
            at_mean.append(bench.subject.classify(loc[:, : bench.subject.layout.z_c]))
            predictive.append(predictive_logits(bench.subject, loc, scale, rng))
        else:
            at_mean.append(bench.subject.predict(images))
    found = _measured(bench, at_mean)
    columns = {
        "accuracy": found.accuracy,
        "floor": found.floor,
        "balanced": found.balanced,
        "AUROC": found.auroc,
        "AP": found.average_precision,
        "ECE": found.ece,
        "images": found.count,
    }
    means = found.means()
    figures = {
        "accuracy": means["accuracy"],
        "floor": means["floor"],
        "balanced accuracy": means["balanced"],
        "AUROC": means["auroc"],
        "average precision": means["average_precision"],
        "calibration error": means["ece"],
    }
    if predictive:
        whole = _measured(bench, predictive).means()
        figures |= {
            "accuracy, q(y|x)": whole["accuracy"],
            "AUROC, q(y|x)": whole["auroc"],
            "average precision, q(y|x)": whole["average_precision"],
            "calibration error, q(y|x)": whole["ece"],
        }
    which = "test" if bench.settings.partition == "test" else "validation"
    return Finding(
        figures=figures,
        tables=(by_label(NAME, bench.labels.names, columns, shares=True),),
        images=len(valid),
        note=f"The whole {which} partition; the floor always says each label's more frequent training value. "
        f"q(y|x) is the classifier's mean over {DRAWS} draws of q(z|x), all else is at the posterior mean.",
    )


def _measured(bench: Bench, logits: list[Array]) -> Accuracy:
    return measure_accuracy(np.concatenate(logits), np.asarray(bench.data.valid.labels), bench.majority, bench.labels)


def predictive_logits(subject: SplitSubject, loc: Array, scale: Array, rng: np.random.Generator) -> Array:
    """Logits of q(y|x) from draws of z_c, (N, Y): the log odds of a binary label, the log probabilities of classes.

    Draws come in pairs about the mean, so that a binary label is as likely as not exactly where it is so at the mean.
    """
    split = subject.layout.z_c
    half = rng.standard_normal((DRAWS // 2, len(loc), split), dtype=np.float32)
    noise = np.concatenate([half, -half])
    drawn = loc[:, :split] + scale[:, :split] * noise
    logits = subject.classify(drawn.reshape(-1, split))
    return _mean_of_draws(logits, len(loc), subject.labels)


def _mean_of_draws(logits: Array, images: int, labels: LabelSet) -> Array:
    """Logits (K N, Y), draw by draw, to those of the mean probability, (N, Y)."""
    columns = []
    for log_p in class_log_probabilities(logits, labels):
        mean = np.exp(log_p).reshape(DRAWS, images, -1).mean(axis=0)
        log_mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
        columns.append(log_mean[:, 1:] - log_mean[:, :1] if log_mean.shape[1] == 2 else log_mean)
    return np.concatenate(columns, axis=1).astype(np.float32)
