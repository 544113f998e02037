"""Frechet distance between real and generated images in a feature space (Table 4: FID in that of Inception).

|m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)). Without Inception weights the features are the judge's, and the
figure is called so: it compares models of one data set, not with any published FID.
"""

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.arrays import Array

from ..label_columns import prior_values
from .bench import Bench
from .finding import Finding, Skipped

NAME = "frechet"
FEWEST = 10


def frechet_distance(real: NDArray[np.floating], made: NDArray[np.floating]) -> float:
    """The distance between normals fitted to two sets of features, (N, F) and (M, F); 0 when both fits agree."""
    (mean_r, cov_r), (mean_g, cov_g) = (_normal(features) for features in (real, made))
    # (S_r S_g)^(1/2) has the trace of the symmetric (S_r^(1/2) S_g S_r^(1/2))^(1/2)
    values, vectors = np.linalg.eigh(cov_r)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_g @ root), 0, None)).sum()
    return float(np.square(mean_r - mean_g).sum() + np.trace(cov_r) + np.trace(cov_g) - 2 * cross)


def _normal(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = features.astype(np.float64)
    return wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False))


def run(bench: Bench) -> Finding:
    """Images of y ~ p(y) against as many real ones, and real against real as the least that is to be expected."""
    if len(bench.images) < FEWEST:
        raise Skipped(f"{len(bench.images)} images; a distance takes {FEWEST} or more")
    real = bench.judge.features(bench.images)
    made = bench.judge.features(generated(bench, len(bench.images)))
    rebuilt = bench.judge.features(bench.subject.reconstruct(bench.images))
    half = len(real) // 2
    return Finding(
        figures={
            "Frechet, judge features": frechet_distance(real, made),
            "Frechet, reconstructions": frechet_distance(real, rebuilt),
            "Frechet, real against real": frechet_distance(real[:half], real[half:]),
        },
        note=f"In the {real.shape[1]} features of the judge, from {len(real):,} images; not an FID. Lower is better. "
        "'real against real' is of two halves, so of fewer images.",
    )


def generated(bench: Bench, count: int) -> Array:
    """Images of labels drawn from p(y), each on its own; the same ones for every distance."""
    rng = bench.rng(NAME)
    return bench.subject.generate(prior_values(count, bench.labels, bench.prior, rng), rng)
