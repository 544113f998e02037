"""Small models on small images for the objectives, and the batches they are given."""

import torch
from torch import Tensor, nn

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.config import SettledConfig, TrainConfig
from ccvae_train.datasets.source import settled
from ccvae_train.device import choose_device
from ccvae_train.networks import HIDDEN
from ccvae_train.noise import Noise
from ccvae_train.objective import Batch, Labels

BINARY = LabelSet(labels=(Label(name="a"), Label(name="b", dims=2)))
MIXED = LabelSet(labels=(Label(name="a"), Label(name="k", kind="categorical", classes=("x", "y", "z"), dims=2)))
SINGLE = LabelSet(labels=(Label(name="k", kind="categorical", classes=("x", "y", "z"), dims=3),))
IMAGE = ImageSpec(size=32, channels=1)
CONFIG = settled(TrainConfig(likelihood_scale=0.5))


class Painted(nn.Module):
    """A decoder of one matrix product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 32 * 32)

    def forward(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(code)).view(-1, 1, 32, 32)


def small(model):
    """The model with features and decoder of one matrix product each, and weights that are not at their start."""
    width = model.decoder.layers[0].in_features
    model.decoder = Painted(width)
    model.encoder.features = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, HIDDEN), nn.Tanh())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def layout(labels: LabelSet, residual: int = 2) -> LatentLayout:
    return LatentLayout(blocks=tuple(label.dims for label in labels.labels), residual=residual)


def make(family, labels: LabelSet):
    torch.manual_seed(0)
    return small(family(labels, layout(labels), IMAGE))


def prior_of(labels: LabelSet) -> Tensor:
    """p(y) by column: 0.3 for a binary label, falling shares for classes."""
    columns = []
    for label in labels.labels:
        count = len(label.classes)
        columns += [0.3] if label.kind == "binary" else [(count - k) * 2 / (count * (count + 1)) for k in range(count)]
    return torch.tensor(columns)


def batch(
    model, values, *, seed: int = 1, config: SettledConfig = CONFIG, step=0, done=0.5, image=None, share=None
) -> Batch:
    """A step's images, random ones unless given, with these values, -1 where missing; or a share (slice) of them."""
    values = torch.as_tensor(values)
    if image is None:
        image = torch.rand(len(values), 1, 32, 32, generator=torch.Generator().manual_seed(9))
    log_prior = model.states.of_columns(prior_of(model.labels)).log()
    noise, count = Noise(torch.Generator().manual_seed(seed)), len(values)
    if share is not None:
        values, image = values[share], image[share]
        noise = Noise(noise.generator, share.start, count)
    observed = values >= 0
    labels = Labels(model.states.of_values(values), observed, log_prior, 1.0, bool(observed.all()))
    return Batch(image, labels, noise, config, choose_device("cpu", "fp32"), step, done)


def log_likelihood(image: Tensor, mean: Tensor) -> Tensor:
    """log Laplace(image; mean, 0.5), by torch's own."""
    return torch.distributions.Laplace(mean, 0.5).log_prob(image).flatten(1).sum(1)
