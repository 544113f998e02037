"""How someone else's classifier is read: which of its numbers count, as what, and what it decides. Pure data.

| `--activation` | value of an output                | decision                                     |
|----------------|-----------------------------------|----------------------------------------------|
| none           | as it comes                       | above the threshold; the largest of a Softmax |
| sigmoid        | 1 / (1 + exp(-x))                 | above the threshold                          |
| softmax        | exp(x_i) / sum over its tensor    | the largest of its tensor                    |

Where a Softmax gives several rows an image, such as 40 of yes and no, no output is the largest of all: the threshold
decides.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, nearest, one_line
from ..given import each, real
from ..schema import Frozen

if TYPE_CHECKING:
    from onnx import ModelProto

Activation = Literal["none", "sigmoid", "softmax"]
PASSING = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Cast".split())
"""Operators that leave values as they are."""
MAX_OUTPUTS = 64
Raw = Mapping[str, NDArray[np.float32]]
"""Output tensors by name, (N, columns)."""


class Output(Frozen):
    """One number of a classifier.

    Attributes:
        name: what people call it.
        tensor, column: where it stands.
    """

    name: str
    tensor: str
    column: int


class Reading(Frozen):
    """The outputs that count, and what is made of them."""

    outputs: tuple[Output, ...]
    activation: Activation
    argmax: bool
    threshold: float

    @property
    def names(self) -> tuple[str, ...]:
        """What the outputs are called."""
        return tuple(output.name for output in self.outputs)

    def values(self, raw: Raw) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Value and decision of every output, both (N, outputs)."""
        tensors = {output.tensor: self._activated(raw[output.tensor]) for output in self.outputs}
        values = np.stack([tensors[output.tensor][:, output.column] for output in self.outputs], axis=1)
        if not self.argmax:
            return values.astype(np.float32), values > self.threshold
        winners = {tensor: array.argmax(axis=1) for tensor, array in tensors.items()}
        decided = np.stack([winners[output.tensor] == output.column for output in self.outputs], axis=1)
        return values.astype(np.float32), decided

    def _activated(self, raw: NDArray[np.float32]) -> NDArray[np.float64]:
        x = raw.astype(np.float64)
        if self.activation == "sigmoid":
            x = 1 / (1 + np.exp(-np.clip(x, -700, 700)))
        elif self.activation == "softmax":
            x = np.exp(x - x.max(axis=1, keepdims=True))
            x /= x.sum(axis=1, keepdims=True)
        return x

    def text(self) -> str:
        """One line for people."""
        decision = "the largest is its decision" if self.argmax else f"above {self.threshold:g} is yes"
        given = "as given" if self.activation == "none" else f"after {self.activation}"
        return f"{', '.join(self.names)}: {given}, {decision}"


def read_reading(
    model: "ModelProto",
    widths: Mapping[str, int],
    asked: str | Sequence[str],
    activation: str | None,
    threshold: float,
    rows: Collection[str] = (),
) -> Reading:
    """Settle how a model is read.

    Args:
        widths: columns of each of its output tensors.
        asked: `INDEX`, `TENSOR` or `TENSOR:INDEX`, each with `=NAME` behind it where it is to be called otherwise; none
            means all of the only tensor.
        activation: None takes `none` where the graph itself ends in Sigmoid or Softmax.
        rows: tensors that hold several rows of an image.

    Raises:
        UsageError: an output that is not there, or what the outputs are is left open or contradicted.
    """
    if activation is not None and activation not in get_args(Activation):
        raise UsageError(f"--activation {activation!r}: {nearest(activation, get_args(Activation))}")
    threshold = real("--threshold", threshold)
    if not math.isfinite(threshold):
        raise UsageError(f"--threshold {threshold}: expected a number")
    outputs = _chosen(widths, each("--outputs", asked))
    endings = {output.tensor: _ending(model, output.tensor) for output in outputs}
    ended = next(iter(endings.values())) if len({*endings.values()}) == 1 else ""
    if activation is None and not ended:
        raise UsageError(
            "--model does not end in Sigmoid or Softmax; give --activation sigmoid or softmax for logits, none for "
            "values that are to be taken as they are"
        )
    done = [tensor for tensor, ending in endings.items() if ending]
    if activation in ("sigmoid", "softmax") and done:
        raise UsageError(
            f"--activation {activation}: {one_line(done[0], 40)} ends in {endings[done[0]]} already; "
            + ("leave it out" if ended else "audit it apart from the others, see --outputs")
        )
    narrow = [output.tensor for output in outputs if widths[output.tensor] < 2]
    if narrow and "softmax" in (activation, ended.lower()):
        raise UsageError(f"{one_line(narrow[0], 40)} has one column, of which a softmax is always 1; use sigmoid")
    several = [output.tensor for output in outputs if output.tensor in rows]
    if several and activation == "softmax":
        raise UsageError(f"{one_line(several[0], 40)} has several rows an image; end the graph in the Softmax of each")
    argmax = "softmax" in (activation, ended.lower()) and not several
    return Reading(outputs=outputs, activation=activation or "none", argmax=argmax, threshold=threshold)  # type: ignore[arg-type]


def _chosen(widths: Mapping[str, int], asked: Sequence[str]) -> tuple[Output, ...]:
    if not asked and len(widths) > 1:
        raise UsageError(f"--model has the outputs {_listed(widths)}; choose with --outputs")
    chosen: list[Output] = []
    for text in asked or list(widths):
        chosen += _parsed(widths, text, bool(asked))
        if len(chosen) > MAX_OUTPUTS:
            total = len(chosen) if asked else sum(widths.values())
            raise UsageError(f"{total:,} outputs; choose up to {MAX_OUTPUTS} with --outputs, such as 0=cat,1=dog")
    names = [output.name for output in chosen]
    twins = [name for name in names if names.count(name) > 1]
    if twins:
        raise UsageError(
            f"--outputs has {one_line(twins[0], 40)} twice; leave one out, or name it otherwise with =NAME"
        )
    return tuple(chosen)


def _parsed(widths: Mapping[str, int], text: str, named: bool) -> list[Output]:
    place, _, alias = text.rpartition("=") if named and "=" in text else (text, "", "")
    place, alias = place.strip(), alias.strip()
    if place in widths:
        columns = range(widths[place])
        if alias and len(columns) > 1:
            raise UsageError(f"--outputs {text!r}: {one_line(place, 40)} has {len(columns)} columns; add :INDEX")
        single, some = len(columns) == 1, columns[: MAX_OUTPUTS + 1]
        return [Output(name=alias or (place if single else f"{place}:{i}"), tensor=place, column=i) for i in some]
    tensor, _, index = place.rpartition(":")
    if not tensor and len(widths) == 1:
        tensor = next(iter(widths))
    if tensor not in widths or not (index.isascii() and index.isdigit() and len(index) < 9):
        raise UsageError(f"--outputs {text!r}: expected INDEX, TENSOR or TENSOR:INDEX of {_listed(widths)}")
    if int(index) >= widths[tensor]:
        raise UsageError(f"--outputs {text!r}: {one_line(tensor, 40)} has {widths[tensor]} columns, counted from 0")
    return [Output(name=alias or f"{tensor}:{int(index)}", tensor=tensor, column=int(index))]


def _listed(widths: Mapping[str, int]) -> str:
    shown = [f"{one_line(name, 40)} ({width} columns)" for name, width in list(widths.items())[:8]]
    return ", ".join(shown) + (", …" if len(widths) > 8 else "")


def _ending(model: "ModelProto", tensor: str) -> str:
    """`Sigmoid` or `Softmax` where that is what makes an output, else nothing."""
    makers = {made: node for node in model.graph.node for made in node.output}
    for _ in range(8):
        node = makers.get(tensor)
        if node is None or node.op_type not in PASSING:
            break
        tensor = node.input[0]
    return node.op_type if node is not None and node.op_type in ("Sigmoid", "Softmax") else ""
