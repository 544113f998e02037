"""What is checked of an ONNX graph from a stranger before a session is made of it. Touches nothing but the bytes."""

from typing import TYPE_CHECKING

from .errors import BundleError
from .schema import GraphFile, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

OPERATORS = frozenset(
    # written by the exporter
    "Add Clip Concat Constant Conv ConvTranspose Exp Flatten Gemm Greater Identity Log MatMul Mul Relu Reshape Sigmoid "
    "Slice Softplus Split Squeeze Sub Transpose Unsqueeze Where "
    # written by conversion to fp16, by static quantisation, by the exact rewrite of transposed convolutions
    "Cast DepthToSpace DequantizeLinear QuantizeLinear".split()
)
"""All operators a CCVAE graph may hold: none draws random numbers, loops, branches, reads a file, or grows a small
tensor into a huge one."""

OPSETS = range(17, 22)


def vet(data: bytes, name: str, entry: GraphFile) -> None:
    """Refuse a graph that is not one of ours.

    Raises:
        BundleError: it does not parse or check, refers to files outside itself, has an operator outside the list,
            or its inputs and outputs are not those that the manifest names.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is not exported
        raise BundleError(f"{name} is not an ONNX file or is truncated; export the bundle again") from error
    _refuse_external_data(model, name)
    _refuse_operators(model, name)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # checker and shape inference raise several kinds
        reason = " ".join(str(error).split())[:160]
        raise BundleError(f"{name} is not a valid ONNX graph: {reason}; export the bundle again") from error
    found = tuple(map(_spec, model.graph.input)), tuple(map(_spec, model.graph.output))
    if found != (entry.inputs, entry.outputs):
        raise BundleError(f"{name} has other inputs or outputs than the manifest says; export the bundle again")


def _refuse_external_data(model: "ModelProto", name: str) -> None:
    from onnx import TensorProto

    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    if any(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise BundleError(f"{name} keeps weights in another file, which is not allowed; export the bundle again")


def _refuse_operators(model: "ModelProto", name: str) -> None:
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx") or opset.version not in OPSETS:
            domain = opset.domain or "ai.onnx"
            raise BundleError(
                f"{name} needs operators of {domain} {opset.version}; expected ai.onnx "
                f"{OPSETS.start} to {OPSETS.stop - 1}; export the bundle again"
            )
    if model.functions:
        raise BundleError(f"{name} defines operators of its own, which is not allowed; export the bundle again")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise BundleError(
                f"{name} uses the operator {node.op_type}, which no CCVAE graph needs; refuse this bundle"
            )


def _spec(value: "ValueInfoProto") -> TensorSpec | None:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return None
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorSpec(name=value.name, shape=shape)
