"""The trained networks in other forms that compute the same: what runs fastest, and what survives 8 bits. Pure torch.

Every form is exact up to the rounding of float32 sums (1e-6 in a latent, 1e-7 in a pixel).
"""

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from ccvae_train.networks import Classifier, ConditionalPrior, Decoder, Encoder

RARE = 1e-3
"""A channel whose peak is below this share of the highest one is not raised further."""


class Unfolded(nn.Module):
    """ConvTranspose2d(k, stride 1, no padding) on a 1x1 input, as one matrix product."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.shape = (layer.out_channels, *layer.kernel_size)
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        self.linear = _linear(layer.weight.flatten(1).T, layer.bias.repeat_interleave(taps))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin) or (N, Cin, 1, 1) to (N, Cout, k, k)."""
        unfolded: Tensor = self.linear(x.flatten(1)).unflatten(1, self.shape)
        return unfolded


class Upsample(nn.Module):
    """ConvTranspose2d(4, stride 2, padding 1) and its ReLU as a 3x3 convolution, ReLU and depth to space.

    Output pixel (2i + a, 2j + b) of a transposed convolution sees input pixels i + d, d in {-1, 0, 1}, through kernel
    row a + 1 - 2d where there is one (columns alike); so the four outputs of an input pixel are four sets of channels
    of one 3x3 convolution with zeros where there is none. The zeros cost arithmetic in float32; in 8 bits, for which
    there are no transposed kernels, the whole is faster.

    Depth to space is written as transpositions with channels last: 8-bit convolutions have them so, and then whole
    pixels move, not single bytes, at a third of the time of the DepthToSpace operator.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        wide, self.narrow = layer.in_channels, layer.out_channels
        kernel = torch.zeros(2, 2, self.narrow, wide, 3, 3)
        source = layer.weight.detach().transpose(0, 1)
        for a, b, d, e in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 3))).tolist():
            row, column = a + 3 - 2 * d, b + 3 - 2 * e
            if 0 <= row < 4 and 0 <= column < 4:
                kernel[a, b, :, :, d, e] = source[:, :, row, column]
        self.conv = nn.Conv2d(wide, 4 * self.narrow, 3, padding=1)
        self.conv.weight.data = kernel.reshape(4 * self.narrow, wide, 3, 3)
        self.conv.bias.data = layer.bias.detach().repeat(4)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) to (N, Cout, 2H, 2W); the ReLU stands before the shuffle, so that it fuses with the conv."""
        height, width = x.shape[2:]
        last = torch.relu(self.conv(x)).permute(0, 2, 3, 1).reshape(-1, height, width, 2, 2, self.narrow)
        rows = last.permute(0, 1, 3, 2, 4, 5).reshape(-1, 2 * height, 2 * width, self.narrow)
        return rows.permute(0, 3, 1, 2)


class LinearTail(nn.Module):
    """An encoder whose last convolution, which sees its whole input at once, is a matrix product."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        *convolutions, last, relu, flatten = self.encoder.features
        assert isinstance(last, nn.Conv2d)
        tail = _linear(last.weight.flatten(1), last.bias)
        self.encoder.features = nn.Sequential(*convolutions, flatten, tail, relu)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `Encoder`."""
        found: tuple[Tensor, Tensor] = self.encoder(image)
        return found


class Half(nn.Module):
    """A network with weights and arithmetic in float16 between a float32 input and float32 outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the network."""
        found = self.network(x.half())
        return tuple(one.float() for one in found) if isinstance(found, tuple) else found.float()


class LinearPrior(nn.Module):
    """A conditional prior as two matrix products, which is what it is in y."""

    def __init__(self, prior: ConditionalPrior) -> None:
        super().__init__()
        states = prior.states
        self.loc, self.scale = (
            _linear((states.from_columns @ table).T, states.offset @ table)
            for table in (states.table(prior.loc.detach()), states.table(prior.scale.detach()))
        )

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `ConditionalPrior`."""
        return self.loc(y), self.scale(y)


def fast(network: nn.Module) -> nn.Module:
    """The form of a network that runs fastest in float32, without tables of indices."""
    match network:
        case Encoder():
            return LinearTail(network)
        case Decoder():
            return fast_decoder(network)
        case Classifier():
            return _linear(network.matrix.detach().T, network.bias)
        case ConditionalPrior():
            return LinearPrior(network)
        case _:
            return network


def fast_decoder(decoder: Decoder, upsampled: Collection[int] = ()) -> Decoder:
    """A decoder whose first transposed convolution is a matrix product.

    Args:
        upsampled: which of the transposed convolutions after it, counted from 0 at the smallest picture, become
            `Upsample`; the last one has no ReLU and stays.
    """
    form = copy.deepcopy(decoder)
    first, *rest = (layer for layer in form.layers if isinstance(layer, nn.ConvTranspose2d))
    layers: list[nn.Module] = [form.layers[0], nn.ReLU(), Unfolded(first), nn.ReLU()]
    for position, layer in enumerate(rest[:-1]):
        layers += [Upsample(layer)] if position in upsampled else [layer, nn.ReLU()]
    form.layers = nn.Sequential(*layers, rest[-1])
    return form


@torch.no_grad()
def equalise(layers: list[nn.Module], inputs: Tensor) -> None:
    """Give the channels of every ReLU's output the same peak over `inputs`, in place (Nagel et al. 2019, section 4.1).

    relu(s x) = s relu(x) for s > 0, so a channel may be divided by s where it is made and multiplied where it is used.
    A tensor has one scale in 8 bits: without this its loudest channel sets the step of all others.
    """
    x = inputs
    for position, layer in enumerate(layers):
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            made = next(one for one in reversed(layers[:position]) if hasattr(one, "weight"))
            used = next(one for one in layers[position:] if hasattr(one, "weight"))
            peak = x.transpose(0, 1).flatten(1).amax(dim=1)
            scale = (peak / peak.max()).clamp_min(RARE)
            _channels(made, out=True).div_(scale)
            made.bias.div_(scale)  # type: ignore[operator]
            _channels(used, out=False).mul_(scale)
            x = x / scale.view(-1, *[1] * (x.dim() - 2))


def _channels(layer: nn.Module, *, out: bool) -> Tensor:
    """A layer's weight with its output or input channels last."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    transposed = isinstance(layer, nn.ConvTranspose2d)
    return weight.movedim(1 if out == transposed else 0, -1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = weight.detach().contiguous()
    assert bias is not None
    layer.bias.data = bias.detach().clone()
    return layer
