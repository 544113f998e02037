"""How someone else's classifier is fed: read from its file where that says it, told by options where not. Pure data.

Pixels are brought to the input's size by Pillow's antialiased bilinear filter, aspect ratio not kept; then

    x = (scale * pixel / 255 - mean) / std

Of the file count the input's static shape and type, and ONNX's own metadata of images: `Image.BitmapPixelFormat` and
`Image.NominalPixelRange` (https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, nearest, one_line
from ..given import real, reals
from ..pictures.pixels import Pixels
from ..schema import Frozen

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

Layout = Literal["nchw", "nhwc"]
Order = Literal["rgb", "bgr", "grey"]
DType = Literal["float32", "float16", "uint8"]

DTYPES: dict[int, DType] = {1: "float32", 10: "float16", 2: "uint8"}
"""By their number in TensorProto."""
FORMATS: dict[str, Order] = {"Gray8": "grey", "Rgb8": "rgb", "Bgr8": "bgr"}
RANGES = {"NominalRange_0_255": (255.0, 0.0, 1.0), "Normalized_0_1": (1.0, 0.0, 1.0), "Normalized_1_1": (1.0, 0.5, 0.5)}
"""Scale, mean and std that a pixel range means."""
MAX_SIDE = 4096
MAX_BATCH = 4096
Dims = tuple[int | None, ...]


class Feeding(Frozen):
    """What a classifier wants to be given.

    Attributes:
        batch: images per run, 0 for any number.
        scale: what white is, 1 or 255, before mean and std.
        mean, std: one value per channel, in the order of the channels.
    """

    name: str
    dtype: DType
    batch: int
    layout: Layout
    order: Order
    height: int
    width: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def mode(self) -> Literal["L", "RGB"]:
        """Pillow's name of the colour space."""
        return "L" if self.order == "grey" else "RGB"

    def feed(self, pixels: Pixels) -> NDArray[Any]:
        """The input of pixels (N, H, W, C), RGB or grey."""
        x = pixels[..., ::-1] if self.order == "bgr" else pixels
        if self.dtype != "uint8":
            scaled = x.astype(np.float32) * np.float32(self.scale / 255)
            x = ((scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)).astype(self.dtype)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "nchw" else x)

    def text(self) -> str:
        """One line for people."""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        values = "0 to 255 as bytes" if self.dtype == "uint8" else f"0 to {self.scale:g}, mean {mean}, std {std}"
        return f"{self.height}x{self.width} {self.order}, {self.layout}, {values}"


def read_feeding(
    model: "ModelProto",
    *,
    size: int | str | None = None,
    layout: str | None = None,
    order: str | None = None,
    scale: float | None = None,
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
) -> Feeding:
    """Settle how a vetted model is fed.

    Args:
        size: `224`, or height and width such as `224x192`.
        layout: nchw or nhwc.
        order: rgb, bgr or grey.
        scale: 1 or 255.
        mean, std: none, one value, or one per channel.

    Raises:
        UsageError: the file leaves something open that no option tells, or contradicts an option.
    """
    given = _only_input(model)
    dtype = DTYPES.get(given.type.tensor_type.elem_type)
    if dtype is None:
        raise UsageError(f"--model takes {one_line(given.name, 40)} of another type than float32, float16 or uint8")
    # some converters write -1 for a size that is free
    dims = tuple(d.dim_value if d.dim_value > 0 else None for d in given.type.tensor_type.shape.dim)
    if (dims[0] or 0) > MAX_BATCH:
        raise UsageError(f"--model takes {dims[0]:,} images at once, expected at most {MAX_BATCH:,}")
    chosen = _layout(dims, layout)
    channels, height, width = (dims[1:4]) if chosen == "nchw" else (dims[3], dims[1], dims[2])
    said = {prop.key: prop.value for prop in model.metadata_props}
    colour = _order(channels, order, FORMATS.get(said.get("Image.BitmapPixelFormat", "")))
    rows, columns = _size((height, width), size)
    white, middle, spread = _range(dtype, scale, mean, std, RANGES.get(said.get("Image.NominalPixelRange", "")))
    count = 1 if colour == "grey" else 3
    return Feeding(
        name=given.name,
        dtype=dtype,
        batch=dims[0] or 0,
        layout=chosen,
        order=colour,
        height=rows,
        width=columns,
        scale=white,
        mean=_per_channel("--mean", middle, count),
        std=_per_channel("--std", spread, count),
    )


def _only_input(model: "ModelProto") -> "ValueInfoProto":
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    rank = len(inputs[0].type.tensor_type.shape.dim) if len(inputs) == 1 else 0
    if rank != 4:
        shapes = [len(value.type.tensor_type.shape.dim) for value in inputs]
        raise UsageError(f"--model has inputs of {shapes} dimensions; expected one, an image of 4 dimensions")
    found: ValueInfoProto = inputs[0]
    return found


def _layout(dims: Dims, asked: str | None) -> Layout:
    if asked is not None and asked not in get_args(Layout):
        raise UsageError(f"--layout {asked!r}: {nearest(asked, get_args(Layout))}")
    first, last = dims[1] in (1, 3), dims[3] in (1, 3)
    if asked is None:
        if first == last:
            raise UsageError(f"--model's input {_shown(dims)} does not tell where the channels are; give --layout")
        return "nchw" if first else "nhwc"
    channels = dims[1] if asked == "nchw" else dims[3]
    if channels not in (1, 3, None):
        raise UsageError(f"--layout {asked}: the input {_shown(dims)} has {channels} channels then, expected 1 or 3")
    return asked  # type: ignore[return-value]


def _order(channels: int | None, asked: str | None, said: Order | None) -> Order:
    if asked is not None and asked not in get_args(Order):
        raise UsageError(f"--order {asked!r}: {nearest(asked, get_args(Order))}")
    chosen: Order = asked or said or ("grey" if channels == 1 else "rgb")  # type: ignore[assignment]
    if channels not in (None, 1 if chosen == "grey" else 3):
        where = "--order" if asked else "its metadata say"
        raise UsageError(f"{where} {chosen}, but --model takes {channels} channels; give another --order")
    return chosen


def _size(static: tuple[int | None, int | None], asked: int | str | None) -> tuple[int, int]:
    if asked is None:
        if static[0] is None or static[1] is None:
            raise UsageError("--model takes images of any size; give --size, such as 224 or 224x192 (height x width)")
        wanted = static[0], static[1]
    else:
        parts = str(asked).lower().split("x")
        if len(parts) not in (1, 2) or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
            raise UsageError(f"--size {asked!r}: expected a number such as 224, or height x width such as 224x192")
        wanted = int(parts[0]), int(parts[-1])
        if any(side not in (None, want) for side, want in zip(static, wanted, strict=True)):
            raise UsageError(f"--size {asked}: --model takes {static[0]}x{static[1]} only; leave --size out")
    if not all(1 <= side <= MAX_SIDE for side in wanted):
        raise UsageError(f"--model takes {wanted[0]}x{wanted[1]} pixels; expected sides of 1 to {MAX_SIDE}")
    return wanted


def _range(
    dtype: DType,
    scale: float | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    said: tuple[float, float, float] | None,
) -> tuple[float, Sequence[float], Sequence[float]]:
    """What white is, mean and std."""
    scale = None if scale is None else real("--scale", scale)
    mean, std = reals("--mean", mean), reals("--std", std)
    if scale is not None and scale not in (1, 255):
        raise UsageError(f"--scale {scale:g}: expected 1 (pixels from 0 to 1) or 255, before --mean and --std")
    if dtype == "uint8":
        if scale == 1 or mean or std:
            raise UsageError("--model takes bytes from 0 to 255; leave out --scale, --mean and --std")
        return 255.0, (0.0,), (1.0,)
    if scale is None:
        if said is None:
            raise UsageError(
                "--model does not say what its pixels are; give --scale 1 or --scale 255, and --mean and --std where "
                "it was trained with them"
            )
        if mean or std:
            raise UsageError("--mean and --std need --scale, which says what they are in units of; give it")
        return said[0], (said[1],), (said[2],)
    return float(scale), mean or (0.0,), std or (1.0,)


def _per_channel(option: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise UsageError(f"{option} has {len(values)} values; expected one, or one for each of {channels} channels")
    if not all(map(math.isfinite, values)) or (option == "--std" and min(values) <= 0):
        raise UsageError(f"{option} {', '.join(f'{v:g}' for v in values)}: expected finite numbers, --std above 0")
    return tuple(map(float, values)) * (channels if len(values) == 1 else 1)


def _shown(dims: Dims) -> str:
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims)})"
