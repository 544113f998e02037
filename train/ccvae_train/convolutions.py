"""Convolutions as torch's own, with the values of torch's own, computed in the way that is quick on a CPU.

In training only where it says so; a graph that is exported holds torch's own operators.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, conv_transpose2d, linear

FEW_CHANNELS = 4
"""Up to so many output channels a transposed convolution leaves the processor's lanes empty."""


class Collapse(nn.Conv2d):
    """A convolution whose kernel covers its input, as the product of matrices that it is: a fifth of the time.

    Sums run in the order of channels-last memory, in which input and kernel are flat without a copy.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, Cin, k, k) to (N, Cout, 1, 1)."""
        flat = input.permute(0, 2, 3, 1).flatten(1)
        return linear(flat, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)[:, :, None, None]


class Expand(nn.ConvTranspose2d):
    """The mirror of it: a transposed convolution of a single pixel."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, Cin, 1, 1) to (N, Cout, k, k)."""
        assert self.bias is not None
        rows, columns = self.kernel_size
        kernel = self.weight.permute(0, 2, 3, 1).flatten(1)
        flat = torch.addmm(self.bias.repeat(rows * columns), input.flatten(1), kernel)
        return flat.view(len(flat), rows, columns, self.out_channels).permute(0, 3, 1, 2)


class Double(nn.ConvTranspose2d):
    """A transposed convolution of 4x4 taps at stride 2, which doubles a picture. `_Double` trains it on a CPU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, Cin, H, W) to (N, Cout, 2H, 2W)."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        given: tuple[Tensor | None, ...] = (input, self.weight, self.bias)
        if torch.is_autocast_enabled("cpu"):
            given = tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in given if tensor is not None)
        found: Tensor = _Double.apply(*given)
        return found


class _Double(torch.autograd.Function):
    """The bias's gradient as a sum: asked for it, oneDNN takes three times as long for that of the kernel (bf16)."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        if len(bias) <= FEW_CHANNELS:
            return double_by_squares(input, weight, bias)
        return conv_transpose2d(input, weight, bias, stride=2, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        input, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, input, weight, None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1, wanted
        )
        return to_input, to_weight, gradient.sum((0, 2, 3))


def double_by_squares(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The transposed convolution of `Double` as a convolution of 2x2 taps, by pixels of the smaller picture.

    Every pixel of the larger picture sees 2x2 pixels of the smaller one: which, and through which taps, depends on its
    place in a square of 2x2. So there are four kernels, and each fills one place of all squares.

    Args:
        input: (N, Cin, H, W), channels last.
        weight: (Cin, Cout, 4, 4).
        bias: (Cout,).

    Returns:
        (N, Cout, 2H, 2W), channels last.
    """
    count, _, rows, columns = input.shape
    wide = len(bias)
    taps = torch.tensor([[3, 1], [2, 0]])  # by place in the square, then by pixel seen
    kernels = weight[:, :, taps][..., taps].permute(2, 4, 1, 0, 3, 5).flatten(0, 2)
    seen = conv2d(input, kernels.contiguous(memory_format=torch.channels_last), bias.repeat(4), padding=1)
    by_place = seen.permute(0, 2, 3, 1).view(count, rows + 1, columns + 1, 2, 2, wide)
    image = seen.new_empty(count, rows, 2, columns, 2, wide)
    for down in range(2):
        for right in range(2):
            image[:, :, down, :, right] = by_place[:, down : down + rows, right : right + columns, down, right]
    return image.view(count, 2 * rows, 2 * columns, wide).permute(0, 3, 1, 2)
