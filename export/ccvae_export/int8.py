"""Static 8-bit graphs: weights and activations in 8 bits, ranges measured on calibration inputs. Never dynamic int8.

What stays in float32 stays for a measured reason (docs/bundle.md): the first convolution, whose few weights carry half
of the encoder's error and whose float kernel is as fast; the encoder's head, which is the latents; the decoder's last
layer, which is the pixels; and as many of the decoder's small pictures as the quality gate asks for. Their large
matrices are still stored in 8 bits, and their large kernels in float16. Writes to a temporary folder only.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccvae_deploy.arrays import Array

from .onnx_graphs import quiet

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


BATCH = 32
PERCENTILE = 99.999
"""Of an activation's values: the few beyond it are clipped, and all others get finer steps."""
WEIGHTED = ("Gemm", "MatMul", "Conv", "ConvTranspose")
LARGE = 32_768
"""Float weights of as many numbers or more are stored in fewer bits; below that they would save nothing."""


def quantise(
    model: "ModelProto", given: str, calibration: Array, operators: Sequence[str], keep: Sequence[str]
) -> "ModelProto":
    """A float32 graph with static QDQ in 8 bits: uint8 activations per tensor, int8 weights per channel.

    Args:
        given: name of the graph's input.
        calibration: inputs whose activations set the ranges, (N, ...).
        operators: the kinds of node to quantise.
        keep: names of nodes that stay in float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with quiet("root", "onnxruntime.quantization"), tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            model,
            target,
            _Calibration(given, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_exclude=list(keep),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": PERCENTILE,
                # it keeps every activation of as many batches; the histograms of several are added up
                "CalibStridedMinMax": 1,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
        )
        quantised = onnx.load(target)
    store_weights(quantised)
    return quantised


def store_weights(model: "ModelProto", large: int = LARGE) -> None:
    """Keep the large float32 weights of a graph in fewer bits, in place: what is computed in float stays so.

    Matrices become int8 with one scale per output channel; kernels, on which pixels hang more, float16. Cast and Mul
    bring them back when a session is made, once: both are folded, which DequantizeLinear is not.

    Args:
        large: how many numbers a weight must have.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    users = {node.input[1]: node for node in graph.node if node.op_type in WEIGHTED}
    floats = [one for one in graph.initializer if one.name in users and one.data_type == 1]
    for initializer in [one for one in floats if np.prod(one.dims) >= large]:
        name, weight = initializer.name, numpy_helper.to_array(initializer)
        graph.initializer.remove(initializer)
        if weight.ndim > 2:
            graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), f"{name}_float16"))
            graph.node.insert(0, helper.make_node("Cast", [f"{name}_float16"], [name], to=1))
            continue
        peak = np.abs(weight).max(axis=_input_axis(users[name]), keepdims=True)
        scale = np.maximum(peak, np.finfo(np.float32).tiny) / np.float32(127)
        narrow = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(narrow, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.node.insert(0, helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=1))


def _input_axis(node: "NodeProto") -> int:
    """Which axis of a matrix that a node multiplies by counts its inputs."""
    return 1 if any(one.name == "transB" and one.i for one in node.attribute) else 0


class _Calibration:
    """The calibration inputs in batches, as onnxruntime asks for them: range by range."""

    def __init__(self, name: str, inputs: Array) -> None:
        self._name, self._inputs, self._range = name, inputs, iter(range(0))

    def __len__(self) -> int:
        return -(-len(self._inputs) // BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._range, None)
        return None if batch is None else {self._name: self._inputs[batch * BATCH : (batch + 1) * BATCH]}
