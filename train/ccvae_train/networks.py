"""The CCVAE's networks and nothing else: encoder, decoder, classifier, conditional prior (docs/mathematics.md, 1).

Four modules, each exported as a graph of its own. They hold no noise: draws are made outside.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ccvae_deploy.schema import ImageSpec, LabelSet, LatentLayout

from .datasets.selection import require_binary

HIDDEN = 256
SCALE_FLOOR = 1e-3
"""Added to every softplus, so that no scale collapses and no gradient is cut off, as a hard clamp would."""


def stage_channels(size: int) -> list[int]:
    """Channels after each stride-2 convolution, from the image down to 4x4: 32, …, 32, 64, 128."""
    depth = size.bit_length() - 3
    return [32] * (depth - 2) + [64, 128]


def initialise(network: nn.Module, last: nn.Module) -> None:
    """Draw weights that keep the variance of a ReLU network (He et al. 2015), halved in its last layer.

    torch's own default shrinks the signal at every layer, and these networks have six. An output pixel of a transposed
    convolution sees 1 / stride^2 of the kernel's taps, and a single one where the input is 1x1.
    """
    for layer in network.modules():
        match layer:
            case nn.ConvTranspose2d():
                taps = (layer.kernel_size[0] // layer.stride[0]) ** 2 if layer.stride[0] > 1 else 1
                fan_in = layer.in_channels * taps
            case nn.Conv2d():
                fan_in = layer.in_channels * layer.kernel_size[0] ** 2
            case nn.Linear():
                fan_in = layer.in_features
            case _:
                continue
        gain = 0.5 if layer is last else 1.0
        nn.init.normal_(layer.weight, std=gain * (2 / fan_in) ** 0.5)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """q(z|x) = N(z_loc, diag z_scale^2): strided convolutions, then one linear head."""

    def __init__(self, image: ImageSpec, latents: int) -> None:
        super().__init__()
        widths = [image.channels, *stage_channels(image.size)]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Conv2d(widths[-1], HIDDEN, 4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(HIDDEN, 2 * latents)
        initialise(self, self.head)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image (N, C, S, S) in [0, 1] to z_loc and z_scale, both (N, Z)."""
        loc, raw = self.head(self.features(image)).float().chunk(2, dim=1)
        return loc, softplus(raw) + SCALE_FLOOR


class Decoder(nn.Module):
    """The mean of p(x|z): the mirror of the encoder, ending in a sigmoid."""

    def __init__(self, image: ImageSpec, latents: int) -> None:
        super().__init__()
        widths = [*reversed(stage_channels(image.size)), image.channels]
        layers: list[nn.Module] = [nn.Linear(latents, HIDDEN), nn.ReLU(), nn.Unflatten(1, (HIDDEN, 1, 1))]
        layers += [nn.ConvTranspose2d(HIDDEN, widths[0], 4), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        initialise(self, layers[-2])

    def forward(self, z: Tensor) -> Tensor:
        """z (N, Z) to an image (N, C, S, S) in [0, 1]."""
        return torch.sigmoid(self.layers(z).float())


class Classifier(nn.Module):
    """q(y|z_c): label i sees its own block only, logit_i = w_i . z_i + b_i."""

    membership: Tensor

    def __init__(self, membership: Tensor) -> None:
        super().__init__()
        self.register_buffer("membership", membership, persistent=False)
        self.weight = nn.Parameter(torch.ones(len(membership)))
        self.bias = nn.Parameter(torch.zeros(membership.shape[1]))

    def forward(self, z_c: Tensor) -> Tensor:
        """z_c (N, Zc) to logits (N, L)."""
        return (z_c * self.weight) @ self.membership + self.bias


class ConditionalPrior(nn.Module):
    """p(z_c|y): a table with one entry per state of a label; y in between interpolates loc and scale."""

    membership: Tensor

    def __init__(self, membership: Tensor) -> None:
        super().__init__()
        self.register_buffer("membership", membership, persistent=False)
        latents = len(membership)
        self.loc_true, self.loc_false = (nn.Parameter(torch.full((latents,), at)) for at in (2.0, -2.0))
        self.raw_true, self.raw_false = (nn.Parameter(torch.ones(latents)) for _ in range(2))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (N, L) in [0, 1] to z_c_loc and z_c_scale, both (N, Zc)."""
        state = y @ self.membership.T
        scale_false, scale_true = softplus(self.raw_false), softplus(self.raw_true)
        loc = self.loc_false + state * (self.loc_true - self.loc_false)
        return loc, scale_false + state * (scale_true - scale_false) + SCALE_FLOOR


class CCVAE(nn.Module):
    """The four networks over one latent layout.

    Raises:
        LabelError: a label is categorical; training takes binary labels.
    """

    def __init__(self, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> None:
        super().__init__()
        require_binary(labels.labels)
        self.layout = layout
        membership = torch.zeros(layout.z_c, len(labels))
        for position, block in enumerate(layout.slices):
            membership[block, position] = 1.0
        self.encoder = Encoder(image, layout.size)
        self.decoder = Decoder(image, layout.size)
        self.classifier = Classifier(membership)
        self.conditional_prior = ConditionalPrior(membership)
