"""What a model says of itself, without any judge: is its prior its classifier's inverse, is its estimator sound?

Self-consistency (does q(y|z_c) agree with y for z_c ~ p(z_c|y)? it bounds conditional generation), the weights
w = q(y|z_c) / q(y|x) of eq. 4 (mean and effective sample size), the classification weight 1 - E[w f] that the paper's
stop-gradient hides, KL(q(y|z_c) || p(y|z_c)), and characteristic latents that only repeat their prior.
"""

import numpy as np
import torch

from ccvae_deploy.arrays import Array

from ..label_columns import Floats, Values, class_log_probabilities, log_probability, prior_chances, prior_values
from .bench import Bench
from .finding import Finding, by_label
from .subject import SplitSubject

NAME = "diagnostics"
CONSISTENCY, IMAGES, PREDICTIVE, WEIGHTS, DECODED = 500, 200, 400, 64, 4


def run(bench: Bench) -> Finding:
    """The first images; draws as many as the constants above say."""
    subject, rng = bench.split(), bench.rng(NAME)
    images, values = bench.images[:IMAGES], bench.known_values[:IMAGES]
    loc, scale = subject.encode(images)
    consistent = self_consistency(subject, bench.prior, rng)
    log_q = log_predictive(subject, loc, scale, values, rng)
    mean_w, share, hidden = _weights(subject, images, loc, scale, values, log_q, rng)
    kl = classifier_divergence(subject, loc, scale, bench.prior, rng)
    prior_scale = subject.prior(values)[1]
    ratio = (scale[:, : subject.layout.z_c] / prior_scale).mean(axis=0)
    return Finding(
        figures={
            "self-consistency": float(consistent.mean()),
            "E[w]": mean_w,
            "ESS of w": share,
            "hidden label weight": hidden,
            "KL(q(y|z) || p(y|z))": float(kl.mean()),
            "collapsed latents": float((np.abs(ratio - 1) < 0.1).mean()),
            "L1 of reconstructions": float(np.abs(subject.decode(loc) - images).mean()),
        },
        tables=(by_label(NAME, bench.labels.names, {"self-consistency": consistent, "KL": kl}, shares=True),),
        images=len(images),
        note="E[w] is 1 when q(y|x) is integrated soundly; ESS is a share of the draws; KL in nats per label; a latent "
        "is collapsed when its posterior is as wide as its prior.",
    )


def self_consistency(subject: SplitSubject, prior: Floats, rng: np.random.Generator) -> Floats:
    """Mean over the values of a label of P(own classifier says the value | z_c ~ p(z_c|y)), (L,)."""
    found = []
    for i, label in enumerate(subject.labels.labels):
        values = np.repeat(prior_values(CONSISTENCY, subject.labels, prior, rng), len(label.classes), axis=0)
        values[:, i] = np.tile(np.arange(len(label.classes)), CONSISTENCY)
        z_c = subject.draw(values, rng)[:, : subject.layout.z_c]
        said = class_log_probabilities(subject.classify(z_c), subject.labels)[i].argmax(axis=1)
        found.append((said == values[:, i]).mean())
    return np.array(found)


def log_predictive(subject: SplitSubject, loc: Array, scale: Array, values: Values, rng: np.random.Generator) -> Floats:
    """log q(y_i|x) = log E_q(z|x) q(y_i|z_i) of every label on its own, from 400 draws, (N, L)."""
    log_p = _log_q_of_draws(subject, loc, scale, values, PREDICTIVE, rng)[1]
    top = log_p.max(axis=1)
    found: Floats = top + np.log(np.exp(log_p - top[:, None]).mean(axis=1))
    return found


def classifier_divergence(
    subject: SplitSubject, loc: Array, scale: Array, prior: Floats, rng: np.random.Generator
) -> Floats:
    """KL(q(y_i|z_i) || p(y_i|z_i)) at z ~ q(z|x), with p(y_i|z_i) from the conditional prior, mean per label, (L,)."""
    split, labels = subject.layout.z_c, subject.labels
    z = loc[:, :split] + scale[:, :split] * rng.standard_normal((len(loc), split), dtype=np.float32)
    found, chances = [], prior_chances(labels, prior)
    for i, log_q in enumerate(class_log_probabilities(subject.classify(z), labels)):
        block = subject.layout.slices[i]
        values = np.zeros((log_q.shape[1], len(labels)), np.int64)
        values[:, i] = np.arange(len(values))
        mean, spread = (part[:, block].astype(np.float64) for part in subject.prior(values))
        joint = log_normal(z[:, None, block], mean, spread).sum(axis=2) + np.log(np.maximum(chances[i], 1e-12))
        top = joint.max(axis=1, keepdims=True)
        log_p = joint - top - np.log(np.exp(joint - top).sum(axis=1, keepdims=True))
        found.append((np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean())
    return np.array(found)


def log_normal(z: Array, loc: Floats, scale: Floats) -> Floats:
    """log N(z; loc, scale^2), elementwise."""
    density: Floats = -np.square((z - loc) / scale) / 2 - np.log(scale) - np.log(2 * np.pi) / 2
    return density


def _log_q_of_draws(
    subject: SplitSubject, loc: Array, scale: Array, values: Values, draws: int, rng: np.random.Generator
) -> tuple[Array, Floats]:
    """Draws of z, (N, K, Z), and log q(y_i|z_i) of each, (N, K, L)."""
    z = loc[:, None] + scale[:, None] * rng.standard_normal((len(loc), draws, loc.shape[1]), dtype=np.float32)
    logits = subject.classify(z[..., : subject.layout.z_c].reshape(len(loc) * draws, -1))
    log_p = log_probability(logits, np.repeat(values, draws, axis=0), subject.labels)
    return z, log_p.reshape(len(loc), draws, -1)


def _log_likelihood(subject: SplitSubject, images: Array, z: Array) -> Floats:
    """log p(x|z) of draws (N, K, Z), (N, K)."""
    decoded = torch.from_numpy(subject.decode(z.reshape(-1, z.shape[2])))
    repeated = torch.from_numpy(np.repeat(images, z.shape[1], axis=0))
    return subject.log_likelihood(repeated, decoded).double().numpy().reshape(z.shape[:2])


def _weights(
    subject: SplitSubject,
    images: Array,
    loc: Array,
    scale: Array,
    values: Values,
    log_q: Floats,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Mean and effective sample share of w, and 1 - E[w f], f the log-ratio of eq. 4 with the likelihood's constant."""
    z, log_p = _log_q_of_draws(subject, loc, scale, values, WEIGHTS, rng)
    weight = np.exp((log_p - log_q[:, None]).sum(axis=2))
    share = np.square(weight.sum(axis=1)) / np.square(weight).sum(axis=1) / WEIGHTS
    prior_loc, prior_scale = (part[:, None].astype(np.float64) for part in subject.prior(values))
    some, split = z[:, :DECODED], subject.layout.z_c
    f = _log_likelihood(subject, images, some)
    f += log_normal(some[..., :split], prior_loc, prior_scale).sum(axis=2)
    f += log_normal(some[..., split:], np.zeros(1), np.ones(1)).sum(axis=2)
    f -= log_normal(some, loc[:, None].astype(np.float64), scale[:, None].astype(np.float64)).sum(axis=2)
    f -= log_p[:, :DECODED].sum(axis=2)
    return float(weight.mean()), float(share.mean()), float(1 - (weight[:, :DECODED] * f).mean())
