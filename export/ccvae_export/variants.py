"""The forms a graph can be exported in: formats, and precisions per format, the smallest first. Writes nothing."""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from ccvae_deploy.arrays import Array
from ccvae_deploy.errors import UsageError, nearest
from ccvae_deploy.schema import ENDINGS, GraphFormat, GraphName, graph_signature
from ccvae_train.checkpoint import TrainedRun

from .metadata import graph_metadata
from .onnx_graphs import in_float16, onnx_bytes, onnx_model
from .pt2_graphs import pt2_bytes
from .rewrite import Half, LinearTail, equalise, fast, fast_decoder
from .serialised import Maker, Precision, Serialised
from .split_model import split_model
from .torchscript_graphs import torchscript_bytes

PRECISIONS: dict[GraphFormat, tuple[Precision, ...]] = {
    "onnx": ("int8", "fp16", "fp32"),
    "torchscript": ("fp16", "fp32"),
    "pt2": ("fp16", "fp32"),
}
"""Per format, the smallest first."""


def refuse_combination(format: str, precision: str) -> None:
    """Refuse what cannot be exported, before any work.

    Raises:
        UsageError: an unknown format or precision, or one that the format does not have.
    """
    if format not in ENDINGS:
        raise UsageError(f"--format {format!r}: {nearest(format, ENDINGS)}")
    known = (*reversed(PRECISIONS["onnx"]), "auto")
    if precision not in known:
        raise UsageError(f"--precision {precision!r}: {nearest(precision, known)}")
    if precision not in (*PRECISIONS[format], "auto"):
        raise UsageError(f"--precision {precision} with --format {format}: only ONNX has it; use --format onnx")


def variants(run: TrainedRun, graph: GraphName, format: GraphFormat, precision: str, calibration: Array) -> list[Maker]:
    """Makers of a graph in the asked precision, or for `auto` in all, the preferred first; of the conditional prior in
    float32 always.

    Args:
        calibration: network inputs, (N, C, S, S); looked at for int8 only.
    """
    if graph == "conditional_prior":
        # some hundred numbers, with a scale of 0.001 beside one of 8: fewer bits would make it 0 and save nothing
        return [partial(_float, run, graph, format, "fp32")]
    found: list[Maker] = []
    for one in PRECISIONS[format] if precision == "auto" else [precision]:
        if one == "int8":
            found += _int8(run, graph, calibration)
        else:
            found.append(partial(_float, run, graph, format, one))  # type: ignore[arg-type]
    return found


def _float(run: TrainedRun, graph: GraphName, format: GraphFormat, precision: Precision) -> Serialised:
    inputs, outputs = graph_signature(graph, run.labels, run.layout, run.image)
    metadata = graph_metadata(run, graph, precision)
    network = fast(getattr(run.model, graph))
    if format == "onnx":
        model = onnx_model(network, graph, inputs, outputs)
        data = onnx_bytes(in_float16(model) if precision == "fp16" else model, graph, metadata)
    else:
        network = Half(network) if precision == "fp16" else network
        write = torchscript_bytes if format == "torchscript" else pt2_bytes
        data = write(network.eval(), inputs, metadata)
    return Serialised(data, precision)


def _int8(run: TrainedRun, graph: GraphName, calibration: Array) -> Iterator[Maker]:
    """The decoder comes in several forms: in 8 bits from its smallest picture on, or from a larger one on."""
    if graph != "decoder":
        yield partial(_int8_graph, run, graph, calibration)
        return
    # of the transposed convolutions `fast_decoder` makes the first a product of matrices and leaves the last as it is
    stages = sum(isinstance(layer, nn.ConvTranspose2d) for layer in split_model(run).decoder.layers) - 2
    for first in range(stages):
        yield partial(_int8_decoder, run, calibration, tuple(range(first, stages)))


def _int8_graph(run: TrainedRun, graph: GraphName, calibration: Array) -> Serialised:
    from .int8 import quantise, store_weights

    inputs, outputs = graph_signature(graph, run.labels, run.layout, run.image)
    if graph == "encoder":
        model = onnx_model(LinearTail(split_model(run).encoder), graph, inputs, outputs)
        first = next(node.name for node in model.graph.node if node.op_type == "Conv")
        head = next(node.name for node in reversed(model.graph.node) if node.op_type == "Gemm")
        model = quantise(model, "image", calibration, ("Conv", "Relu", "Reshape", "Gemm"), (first, head))
    else:
        model = onnx_model(fast(getattr(run.model, graph)), graph, inputs, outputs)
        store_weights(model, large=1)
    return Serialised(onnx_bytes(model, graph, graph_metadata(run, graph, "int8")), "int8")


def _int8_decoder(run: TrainedRun, calibration: Array, upsampled: tuple[int, ...]) -> Serialised:
    from .int8 import quantise

    inputs, outputs = graph_signature("decoder", run.labels, run.layout, run.image)
    z = latents(run, calibration)
    decoder = copy.deepcopy(split_model(run).decoder)
    equalise(list(decoder.layers), torch.from_numpy(z))
    model = onnx_model(fast_decoder(decoder, upsampled), "decoder", inputs, outputs)
    before = next(node.name for node in model.graph.node if node.op_type == "Reshape")
    model = quantise(model, "z", z, ("Conv", "Relu", "Transpose", "Reshape"), (before,))
    form = f"8 bits from {4 << upsampled[0]}x{4 << upsampled[0]} on"
    return Serialised(onnx_bytes(model, "decoder", graph_metadata(run, "decoder", "int8")), "int8", form)


@torch.inference_mode()
def latents(run: TrainedRun, images: Array) -> Array:
    """What a decoder is given in use: posterior means, also with every label at the ordinary look of its next value."""
    given, model = torch.from_numpy(images), split_model(run)
    z, logits = model.read(given)
    counts = torch.tensor([len(label.classes) for label in run.labels.labels])
    moved = model.changed(given, (model.states.likeliest(logits) + 1) % counts)
    both: Array = torch.cat([z, moved]).numpy()
    return both
