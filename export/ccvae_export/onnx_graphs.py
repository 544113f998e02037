"""One network as an ONNX graph, by torch's dynamo exporter, in float32 or float16. Writes nothing; gives bytes.

Opset 18 is the one that torch's operator library is written in, so nothing is converted; runtimes of 2023 and later
read it, and quantised kernels exist for it. The example batch is 2, since 0 and 1 are taken for constants.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from ccvae_deploy.errors import ParityError
from ccvae_deploy.graphs.artefact import KEY
from ccvae_deploy.schema import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18


def onnx_model(
    module: nn.Module, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> "ModelProto":
    """A network of one input as an ONNX model in float32 with a dynamic batch dimension.

    Raises:
        ParityError: the exporter cannot turn the network into a graph.
    """
    example = torch.zeros(2, *inputs[0].shape[1:])
    with quiet("torch.onnx"):
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error).split())[:200]
            raise ParityError(f"{name} cannot be exported to ONNX: {reason}") from error
    assert program is not None
    model: ModelProto = program.model_proto
    return model


def in_float16(model: "ModelProto") -> "ModelProto":
    """The same graph with weights and arithmetic in float16; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with quiet("onnxruntime.transformers.float16"):
        converted: ModelProto = convert_float_to_float16(model, keep_io_types=True)
        # the converter appends the casts of the inputs, which must come first
        OnnxModel(converted).topological_sort()
    return converted


def onnx_bytes(model: "ModelProto", name: str, metadata: str) -> bytes:
    """The file: the same bytes for the same graph, with `metadata` inside and nothing of the machine it was made on."""
    model.graph.name = name
    model.ClearField("doc_string")
    # the exporter notes source files and stack traces of the machine it ran on
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.metadata_props.add(key=KEY, value=metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """A converter's chatter on stdout, its warnings and its log lines are about itself, not about the user's run."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, loggers)]
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
