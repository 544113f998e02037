"""Someone else's classifier, opened: pixels in, values and decisions out. Reads one file.

It always runs on batches of one size, the last one padded, so that a value does not depend on what is beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ImageError, UsageError, one_line
from ..limits import BATCH
from ..pictures.pixels import Pixels
from ..providers import choose_provider, make_session
from .input import Feeding, read_feeding
from .output import Raw, Reading, read_reading
from .vet import read_model

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PIXEL_LIMIT = 1 << 27
"""Values of the images that the model is given at once; 64 images of 800 x 800 in colour are within it."""
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class ModelOptions(TypedDict, total=False):
    """How a model is fed and read; what its file tells need not be given, see `read_feeding` and `read_reading`."""

    size: int | str | None
    layout: str | None
    order: str | None
    scale: float | None
    mean: float | Sequence[float]
    std: float | Sequence[float]
    outputs: str | Sequence[str]
    activation: str | None
    threshold: float


@dataclass(frozen=True)
class AuditedModel:
    """A classifier that is ready to run.

    Attributes:
        sha256: of its file.
        provider: what it runs on, as the session itself names it.
        batch_size: images per run.
    """

    path: Path
    sha256: str
    provider: str
    feeding: Feeding
    reading: Reading
    batch_size: int
    session: "InferenceSession"

    def run(self, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values and decisions, both (N, outputs), of pixels (N, H, W, C) at the model's size, RGB or grey.

        Raises:
            ImageError: the model gives numbers that are not finite.
            UsageError: it cannot run on them.
        """
        tensors = list(dict.fromkeys(output.tensor for output in self.reading.outputs))
        parts: list[Raw] = []
        for start in range(0, len(pixels), self.batch_size):
            part = pixels[start : start + self.batch_size]
            padded = np.concatenate([part, np.repeat(part[:1], self.batch_size - len(part), axis=0)])
            raw = _columns(_arrays(self.session, tensors, self.feeding, padded, self.path), len(padded))
            parts.append({name: array[: len(part)] for name, array in raw.items()})
        return self.reading.values({name: np.concatenate([part[name] for part in parts]) for name in tensors})


def open_model(
    model: Path,
    *,
    provider: str = "auto",
    batch_size: int = BATCH,
    size: int | str | None = None,
    layout: str | None = None,
    order: str | None = None,
    scale: float | None = None,
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
    outputs: str | Sequence[str] = (),
    activation: str | None = None,
    threshold: float = 0.5,
) -> AuditedModel:
    """Open an ONNX image classifier; see `read_feeding` and `read_reading` for the other arguments.

    Raises:
        UsageError: the file is refused, cannot run, or leaves open what no option tells.
        ProviderError: the provider cannot be used.
    """
    vetted = read_model(model)
    feeding = read_feeding(vetted.model, size=size, layout=layout, order=order, scale=scale, mean=mean, std=std)
    try:
        session = make_session(vetted.graph, choose_provider(provider), 0, alone=False)
    except BundleError as error:
        raise UsageError(f"--model {model}: onnxruntime refuses it: {one_line(error.__cause__)}") from error
    count = feeding.batch or batch_size
    usable = [one.name for one in session.get_outputs() if one.type in FLOATS]
    if not usable:
        raise UsageError(f"--model {model} has no output of floating-point numbers; audit needs scores, not indices")
    shape = (count, feeding.height, feeding.width, 1 if feeding.mode == "L" else 3)
    if math.prod(shape) > PIXEL_LIMIT:
        remedy = "export it for smaller batches" if feeding.batch else "give a smaller --batch-size"
        raise UsageError(
            f"--model {model} takes {count} images of {feeding.height} x {feeding.width} at once, more than "
            f"{PIXEL_LIMIT:,} values; {remedy}"
        )
    # no even grey, which a model that divides by an image's deviation cannot take
    trial = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)
    arrays = _arrays(session, usable, feeding, trial, model)
    fitting = [name for name in usable if arrays[name].ndim and len(arrays[name]) == count]
    # what nobody asks for may have any shape and value
    widths = {name: math.prod(arrays[name].shape[1:]) for name in fitting or usable}
    rows = [name for name in widths if sum(side > 1 for side in arrays[name].shape[1:]) > 1]
    reading = read_reading(vetted.model, widths, outputs, activation, threshold, rows)
    try:
        _columns({output.tensor: arrays[output.tensor] for output in reading.outputs}, count)
    except ImageError as error:
        raise UsageError(f"{error}; check --scale, --mean and --std") from error
    return AuditedModel(model, vetted.sha256, session.get_providers()[0], feeding, reading, count, session)


def _arrays(
    session: "InferenceSession", tensors: Sequence[str], feeding: Feeding, pixels: Pixels, path: Path
) -> dict[str, NDArray[np.floating]]:
    """Output tensors as the model gives them."""
    try:
        return dict(zip(tensors, session.run(list(tensors), {feeding.name: feeding.feed(pixels)}), strict=True))
    except Exception as error:  # onnxruntime's errors share no base but Exception
        raise UsageError(
            f"--model {path} cannot run on {len(pixels)} images as {feeding.text()}: {one_line(error)}; "
            "see --size, --layout and --batch-size"
        ) from error


def _columns(arrays: Mapping[str, NDArray[np.floating]], images: int) -> Raw:
    """Output tensors as (N, columns)."""
    raw = {}
    for name, array in arrays.items():
        if not array.ndim or len(array) != images:
            raise UsageError(
                f"--model gives {one_line(name, 40)} of shape {array.shape} for {images} images; give --batch-size 1 "
                "if it takes one at a time, or choose others with --outputs"
            )
        if not np.isfinite(array).all():
            raise ImageError(f"--model gives {one_line(name, 40)} that is not finite")
        raw[name] = array.reshape(len(array), -1).astype(np.float32)
    return raw
