"""The CCVAE and its networks: encoder, decoder, classifier, conditional prior (docs/mathematics.md, 1).

Four modules, each exported as a graph of its own. They hold no noise: draws are made outside.
"""

from abc import abstractmethod
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout

from .convolutions import Collapse, Double, Expand
from .model import Model
from .objective import AgreeingTerms, Batch, NamedTerms, Posterior, agreement, exact_terms, paper_terms
from .states import States

HIDDEN = 256
APART = 4.0
"""Distance scale of the classes of a categorical label in a new conditional prior."""
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


def image_features(image: ImageSpec) -> nn.Sequential:
    """Strided convolutions from an image (N, C, S, S) to features (N, HIDDEN)."""
    widths = [image.channels, *stage_channels(image.size)]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, Collapse(widths[-1], HIDDEN, 4), nn.ReLU(), nn.Flatten())


class Encoder(nn.Module):
    """q(z|x) = N(z_loc, diag z_scale^2): strided convolutions, then one linear head."""

    def __init__(self, image: ImageSpec, latents: int) -> None:
        super().__init__()
        self.features = image_features(image)
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
        layers += [Expand(HIDDEN, widths[0], 4), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            layers += [Double(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        initialise(self, layers[-2])

    def forward(self, z: Tensor) -> Tensor:
        """z (N, Z) to an image (N, C, S, S) in [0, 1]."""
        return torch.sigmoid(self.layers(z).float())


class Classifier(nn.Module):
    """q(y|z_c): label i sees its own block only, logits = W z_i + b; one logit for a binary label, K for K classes."""

    latent: Tensor
    column: Tensor

    def __init__(self, labels: LabelSet, layout: LatentLayout, means: list[Tensor]) -> None:
        super().__init__()
        blocks = list(zip(labels.labels, labels.columns, layout.slices, strict=True))
        pairs = [
            (latent, column)
            for _, columns, block in blocks
            for column in range(columns.start, columns.stop)
            for latent in range(block.start, block.stop)
        ]
        latent, column = torch.tensor(pairs).T.contiguous()
        self.register_buffer("latent", latent, persistent=False)
        self.register_buffer("column", column, persistent=False)
        weights, biases = zip(*map(_first_head, labels.labels, means), strict=True)
        self.weight = nn.Parameter(torch.cat(weights))
        self.bias = nn.Parameter(torch.cat(biases))
        self.latents = layout.z_c

    @property
    def matrix(self) -> Tensor:
        """The weights as a matrix (Zc, Y), 0 between a label and the latents of others."""
        empty = torch.zeros(self.latents, len(self.bias), dtype=self.weight.dtype, device=self.weight.device)
        return empty.index_put((self.latent, self.column), self.weight)

    def forward(self, z_c: Tensor) -> Tensor:
        """z_c (…, Zc) to logits (…, Y)."""
        return z_c @ self.matrix + self.bias


class ConditionalPrior(nn.Module):
    """p(z_c|y): a table of loc and scale with one row per state of a label; soft y interpolates between rows."""

    def __init__(self, states: States, means: list[Tensor]) -> None:
        super().__init__()
        self.states = states
        self.loc = nn.Parameter(torch.cat([mean.flatten() for mean in means]))
        self.raw = nn.Parameter(torch.ones_like(self.loc))

    @property
    def scale(self) -> Tensor:
        """The scale of every pair of state and latent, (P,)."""
        return softplus(self.raw) + SCALE_FLOOR

    def at(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the states (…, S) to z_c_loc and z_c_scale, both (…, Zc)."""
        return state @ self.states.table(self.loc), state @ self.states.table(self.scale)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (…, Y) in [0, 1] to z_c_loc and z_c_scale, both (…, Zc)."""
        return self.at(self.states.of_columns(y))


class SplitVAE(Model):
    """A model whose z is split by label: encoder and decoder, and a classifier of each label's own block."""

    encoder: Encoder
    decoder: Decoder

    def __init__(self, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> None:
        super().__init__(labels, layout)
        self.encoder = Encoder(image, layout.size)
        self.decoder = Decoder(image, layout.size)
        self.first_means = [first_means(label) for label in labels.labels]
        self.classifier = Classifier(labels, layout, self.first_means)

    @abstractmethod
    def typical(self, values: Tensor) -> Tensor:
        """The most ordinary z_c of labels `values` (N, L), (N, Zc)."""

    def posterior(self, batch: Batch) -> Posterior:
        """q(z|x) of the images of a training step."""
        return Posterior(*batch.run(self.encoder, batch.image))

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """z at the posterior mean and the classifier's logits there."""
        loc, _ = self.encoder(image)
        # the label head computes in float32 wherever it is used
        with torch.autocast(image.device.type, enabled=False):
            return loc, self.classifier(loc[:, : self.layout.z_c])

    def changed(self, image: Tensor, values: Tensor) -> Tensor:
        """z at the posterior mean, with the blocks of the asked labels at the most ordinary look of their values."""
        z, _ = self.encoder(image)
        asked = (values >= 0).float() @ self.states.latents.T > 0
        return torch.cat(
            [torch.where(asked, self.typical(values), z[:, : self.layout.z_c]), z[:, self.layout.z_c :]], dim=1
        )


class CCVAE(SplitVAE):
    """The four networks over one latent layout, trained by either estimator of eq. 3 to 6."""

    def __init__(self, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> None:
        super().__init__(labels, layout, image)
        self.conditional_prior = ConditionalPrior(self.states, self.first_means)

    def terms(self, batch: Batch) -> NamedTerms:
        """The bound by the estimator that the settings name."""
        estimator = paper_terms
        if batch.config.estimator == "exact":
            estimator = partial(exact_terms, jensen=batch.config.unlabelled == "jensen")
        q, log_likelihood = self.posterior(batch), partial(batch.log_likelihood, self.decoder)
        found = batch.averaged(lambda: estimator(self, q, batch.labels, log_likelihood, batch.noise))
        if not batch.config.agreement_weight:
            return found
        return AgreeingTerms(**vars(found), agreement=agreement(self, q, batch))

    def typical(self, values: Tensor) -> Tensor:
        """The mean of p(z_c|y)."""
        return self.conditional_prior.at(self.states.of_values(values))[0]


def first_means(label: Label) -> Tensor:
    """Where the conditional prior of a label starts, (K, d): two apart from 0 in every latent for a binary label; for
    classes the corners of a simplex where the block has room, else evenly along the line, or at random.
    """
    classes, dims = len(label.classes), label.dims
    if label.kind == "binary":
        return torch.tensor([[-2.0], [2.0]]).expand(2, dims)
    if dims >= classes:
        return APART * torch.eye(classes, dims)
    if dims == 1:
        return APART * (torch.arange(classes) - (classes - 1) / 2).unsqueeze(1)
    return APART * torch.randn(classes, dims)


def _first_head(label: Label, means: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (by column, then latent) and biases of a new label: 1 and 0 for a binary one, for classes Bayes' rule
    between the means of the conditional prior at scale `APART` / 2.
    """
    if label.kind == "binary":
        return torch.ones(label.dims), torch.zeros(1)
    variance = (APART / 2) ** 2
    return (means / variance).flatten(), -means.square().sum(1) / (2 * variance)
