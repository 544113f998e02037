"""The images of one training step with all that a model needs to compute its terms on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ccvae_train.config import SettledConfig
from ccvae_train.device import Device
from ccvae_train.noise import Noise

from .terms import Labels, NamedTermsT, bernoulli_log_likelihood, laplace_log_likelihood


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step.

    Attributes:
        image: (N, C, S, S) in [0, 1].
        step: the steps that lie behind.
        done: the share of the run's steps that lie behind, in [0, 1).
    """

    image: Tensor
    labels: Labels
    noise: Noise
    config: SettledConfig
    device: Device
    step: int = 0
    done: float = 0.0

    def run(self, network: nn.Module, given: Tensor) -> Any:
        """A network in the number format of the device."""
        with self.device.autocast():
            return network(given)

    def log_likelihood(self, decoder: nn.Module, code: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p(x|code) in nats, (N,); with `rows` (M,) of the images that the codes (M, D) belong to, (M,)."""
        mean = self.run(decoder, code)
        image = self.image if rows is None else self.image[rows]
        if self.config.likelihood == "bernoulli":
            return bernoulli_log_likelihood(image, mean)
        return laplace_log_likelihood(image, mean, self.config.likelihood_scale)

    def averaged(self, draw: Callable[[], NamedTermsT]) -> NamedTermsT:
        """The mean of terms over as many draws as the settings say."""
        draws = [draw() for _ in range(self.config.draws)]
        return draws[0].average(draws)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of a tensor's shape, its first axis counting images."""
        return self.noise.normal(tuple(like.shape), like)
