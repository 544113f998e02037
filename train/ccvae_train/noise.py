"""Random numbers of a batch, the same for an image in whichever process it is trained. Pure tensor functions."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Draws for the rows of a batch, or for a share of them: made for the whole batch, then cut.

    Attributes:
        first: where the share begins in the batch.
        batch: the rows of the whole batch; None where the share is all of it.
    """

    generator: torch.Generator
    first: int = 0
    batch: int | None = None

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """N(0, 1) in the type of `like`; the first axis of `shape` counts the share's rows."""
        whole = (self.batch or shape[0], *shape[1:])
        drawn = torch.randn(whole, generator=self.generator, device=like.device, dtype=like.dtype)
        return drawn[self.first : self.first + shape[0]]

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform on [0, 1), float32; the first axis of `shape` counts the share's rows."""
        whole = (self.batch or shape[0], *shape[1:])
        drawn = torch.rand(whole, generator=self.generator, device=self.generator.device)
        return drawn[self.first : self.first + shape[0]]
