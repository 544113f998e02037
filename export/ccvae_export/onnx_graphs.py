"""One network as an ONNX graph, by torch's dynamo exporter. Writes nothing; gives bytes.

Opset 18 is the one that torch's operator library is written in, so nothing is converted; runtimes of 2023 and later
read it, and quantised kernels exist for it. The example batch is 2, since 0 and 1 are taken for constants.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from ccvae_deploy.errors import ParityError
from ccvae_deploy.schema import GraphName, TensorSpec

from .metadata import KEY

OPSET = 18


def onnx_graph(
    module: nn.Module, name: GraphName, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], metadata: str
) -> bytes:
    """Serialise a network of one input with a dynamic batch dimension and `metadata` inside.

    Raises:
        ParityError: the exporter cannot turn the network into a graph.
    """
    example = torch.zeros(2, *inputs[0].shape[1:])
    with _quiet():
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
    model = program.model_proto
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
def _quiet() -> Iterator[None]:
    """The exporter's chatter on stdout, its warnings and its log lines are about torch, not about the user's run."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
