"""Noise that is a function of what it is for, not of when it is drawn."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def latent_noise(seed: int, relative: str, samples: int, latents: int, attempt: int = 0) -> NDArray[np.float32]:
    """Standard normal draws for `latents` latents of every sample of one source, (samples, latents).

    Row k is keyed by (seed, relative path, k, attempt) through Philox, so it depends on no batch, order, worker or
    shard; and a label's draw does not depend on which other labels are asked for.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=_key(seed, relative, sample, attempt))).standard_normal(latents)
        for sample in range(samples)
    ]
    return np.asarray(rows, np.float32).reshape(samples, latents)


class Noise:
    """The noise of a batch of sources: one standard normal draw per latent of every output, and more where needed.

    Attributes:
        first: (N, K, Zc).
    """

    def __init__(self, seed: int, names: Sequence[str], samples: int, latents: int, attempt: int = 0) -> None:
        self.seed, self.names, self.attempt = seed, names, attempt
        self.first = np.stack([latent_noise(seed, name, samples, latents, attempt) for name in names])

    def further(self, row: int, sample: int, label: int) -> np.random.Generator:
        """A stream for the draws of one label of one output that have to be tried more than once.

        The same Philox, jumped ahead by 2^128 draws per label, so that no label's tries depend on another's.
        """
        key = _key(self.seed, self.names[row], sample, self.attempt)
        return np.random.Generator(np.random.Philox(key=key).jumped(label + 1))


def _key(seed: int, relative: str, sample: int, attempt: int) -> int:
    text = b"%d\0%d\0" % (seed, sample) + os.fsencode(relative)
    if attempt:
        # no path holds a zero byte, so no first attempt has this key
        text += b"\0%d" % attempt
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
