"""What training, validation, pictures and evaluation ask of a model, whichever its family. Computes nothing."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ccvae_deploy.schema import LabelSet, LatentLayout

from .states import States

if TYPE_CHECKING:
    from .config import SettledConfig
    from .objective import Batch, NamedTerms


class Model(nn.Module, ABC):
    """A model of images and labels. What its decoder takes is called a code, (N, D): its latents first.

    Attributes:
        encoder, decoder: the two large networks.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, labels: LabelSet, layout: LatentLayout) -> None:
        super().__init__()
        self.labels, self.layout = labels, layout
        self.states = States(labels, layout)

    @abstractmethod
    def terms(self, batch: "Batch") -> "NamedTerms":
        """The terms of the objective on the images of a training step."""

    @abstractmethod
    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) to their codes at the posterior mean, (N, D), and logits of the labels, (N, Y)."""

    @abstractmethod
    def changed(self, image: Tensor, values: Tensor) -> Tensor:
        """The codes of images with labels made `values` (N, L), -1 where one is not asked for; no draw."""

    @classmethod
    def choices(cls, config: "SettledConfig") -> dict[str, Any]:
        """What the model's source leaves open and how it was settled; a run's provenance carries it."""
        return {}
