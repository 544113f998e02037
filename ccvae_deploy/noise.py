"""Noise that is a function of what it is for, not of when it is drawn."""

import hashlib
import os

import numpy as np
from numpy.typing import NDArray


def latent_noise(seed: int, relative: str, samples: int, latents: int) -> NDArray[np.float32]:
    """Standard normal draws for all characteristic latents of every sample of one source, (samples, latents).

    Row k is keyed by (seed, relative path, k) through Philox, so it depends on no batch, order, worker or shard; and
    a label's draw does not depend on which other labels are asked for.
    """
    rows = []
    for sample in range(samples):
        text = b"%d\0%d\0" % (seed, sample) + os.fsencode(relative)
        key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
        rows.append(np.random.Generator(np.random.Philox(key=key)).standard_normal(latents))
    return np.asarray(rows, np.float32).reshape(samples, latents)
