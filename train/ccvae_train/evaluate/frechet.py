"""Frechet distance between real and generated images in a feature space (Table 4: FID in that of Inception).

|m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)). Without Inception weights the features are the judge's, and the
figure is called so: it compares models of one data set, not with any published FID.
"""

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.arrays import Array
from ccvae_deploy.images import in_unit

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


def named(figure: str, images: int, features: int) -> str:
    """What a distance is called: the covariance of so many features takes more images than there are features."""
    return figure if images > features else f"{figure}, few images"


def run(bench: Bench) -> Finding:
    """Images of y ~ p(y) against as many real ones, and real against real as the least that is to be expected."""
    if len(bench.images) < FEWEST:
        raise Skipped(f"{len(bench.images)} images; a distance takes {FEWEST} or more")
    real = bench.judge.features(bench.images)
    made = bench.judge.features(generated(bench, len(bench.images)))
    rebuilt = bench.judge.features(bench.subject.reconstruct(bench.images))
    others, whence = other_images(bench)
    least = frechet_distance(real, bench.judge.features(others)) if len(others) >= FEWEST else float("nan")
    count, width = real.shape
    few = "" if count > width else f" {count} images are too few for {width} features."
    return Finding(
        figures={
            named("Frechet, judge features", count, width): frechet_distance(real, made),
            "Frechet, reconstructions": frechet_distance(real, rebuilt),
            "Frechet, real against real": least,
        },
        note=f"In the {width} features of the judge, from {count:,} images; not an FID. Lower is better.{few} "
        f"'real against real' is against {len(others):,} {whence}.",
    )


def other_images(bench: Bench) -> tuple[Array, str]:
    """As many real images as the bench holds, others than these, and what they are.

    The distance of few images is too large, by about as much as there are fewer; so both take as many.
    """
    count, valid, train = len(bench.images), bench.data.valid.images, bench.data.train.images
    if len(valid) >= 2 * count:
        return in_unit(valid[count : 2 * count]), "others of the same partition"
    return in_unit(train[:count]), "training images, which the judge has learned from"


def generated(bench: Bench, count: int) -> Array:
    """Images of labels drawn from p(y), each on its own; the same ones for every distance."""
    rng = bench.rng(NAME)
    return bench.subject.generate(prior_values(count, bench.labels, bench.prior, rng), rng)
