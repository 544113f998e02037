"""What is checked of an ONNX graph from a stranger before a session is made of it. Touches nothing but the bytes.

The order matters: nothing is parsed before its size is known, and no native code sees a number that was not looked at.
What was checked is what runs: the graph is written anew from its checked parts, so that a second parser cannot find
in the same bytes something that the first one did not see.
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, one_line
from ..schema import GraphFile, TensorSpec
from .cost import RANK_LIMIT, require_affordable
from .wire import structure_bytes

if TYPE_CHECKING:
    from google.protobuf.message import Message  # type: ignore[import-untyped]
    from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto

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
IR_VERSIONS = range(8, 12)

STRUCTURE_LIMIT = 1 << 20
"""Bytes of a graph file that are not weights; real ones have about 10,000."""
NODE_LIMIT = 1000

ELEMENTS = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2}
"""Bytes per element of the types a tensor may have: float32, uint8, int8, int32, int64, float16."""

BOOL = 9

FIELDS = {
    "ModelProto": "ir_version producer_name producer_version domain model_version doc_string graph opset_import "
    "metadata_props",
    "OperatorSetIdProto": "domain version",
    "StringStringEntryProto": "key value",
    "GraphProto": "node name initializer doc_string input output value_info metadata_props",
    "NodeProto": "input output name op_type domain attribute doc_string metadata_props",
    "AttributeProto": "name type doc_string f i s t floats ints",
    "TensorProto": "dims data_type float_data int32_data int64_data name doc_string raw_data metadata_props",
    "ValueInfoProto": "name type doc_string metadata_props",
    "TypeProto": "tensor_type denotation",
    "Tensor": "elem_type shape",
    "TensorShapeProto": "dim",
    "Dimension": "dim_value dim_param denotation",
}
"""All a graph file may hold, message by message. So no graph inside a graph, no sparse tensor, no training graph."""

REASONS = {
    "external_data": "keeps weights in another file",
    "data_location": "keeps weights in another file",
    "functions": "defines operators of its own",
    "g": "holds a graph inside a graph",
    "graphs": "holds a graph inside a graph",
}

ATTRIBUTES: dict[str, range | frozenset[int] | frozenset[bytes]] = {
    **dict.fromkeys("strides dilations kernel_shape group blocksize num_outputs".split(), range(1, 4097)),
    **dict.fromkeys("pads output_padding block_size".split(), range(4097)),
    **dict.fromkeys("transA transB allowzero saturate".split(), range(2)),
    **dict.fromkeys("axis perm start end".split(), range(-RANK_LIMIT, RANK_LIMIT)),
    **dict.fromkeys("to output_dtype".split(), frozenset({0, BOOL, *ELEMENTS})),
    **dict.fromkeys("value_int value_ints".split(), range(-(1 << 63), 1 << 63)),
    "auto_pad": frozenset({b"NOTSET"}),
    "mode": frozenset({b"DCR", b"CRD"}),
}
"""Integers and strings that an attribute may have. Strides of zero and the like end native code in a crash."""

FLOAT_ATTRIBUTES = frozenset("alpha beta value_float value_floats".split())


def vet(data: bytes, name: str, entry: GraphFile) -> bytes:
    """Refuse a graph that is not one of ours; give the graph to run.

    Raises:
        BundleError: it is too large in any way, does not parse or check, refers to files outside itself, has an
            operator, an attribute or a part outside the lists, or its inputs and outputs are not those that the
            manifest names.
    """
    import onnx

    model = parse_graph(data, name)
    _refuse_fields(model, name)
    _refuse_operators(model, name)
    _refuse_numbers(model, name)
    _refuse_names(model, name)
    written = _written_anew(model)
    try:
        onnx.checker.check_model(written)
    except Exception as error:  # the checker raises several kinds
        raise BundleError(f"{name} is not a valid ONNX graph: {one_line(error)}; export the bundle again") from error
    found = tuple(map(_spec, model.graph.input)), tuple(map(_spec, model.graph.output))
    if found != (entry.inputs, entry.outputs):
        raise BundleError(f"{name} has other inputs or outputs than the manifest says; export the bundle again")
    require_affordable(model, name)
    return written


def parse_graph(data: bytes, name: str) -> "ModelProto":
    """An ONNX file as a message, if it is small enough to be one; nothing in it is checked.

    Raises:
        BundleError: it is no ONNX file, is truncated, or holds much that is not weights.
    """
    import onnx

    try:
        structure = structure_bytes(data)
        if structure > STRUCTURE_LIMIT:
            raise BundleError(
                f"{name} has {structure:,} bytes beside its weights, expected at most {STRUCTURE_LIMIT:,}; "
                "refuse this bundle"
            )
        model = onnx.load_model_from_string(data)
    except BundleError:
        raise
    except Exception as error:  # protobuf's DecodeError is not exported
        raise BundleError(f"{name} is not an ONNX file or is truncated; export the bundle again") from error
    return model


def _refuse_fields(message: "Message", name: str) -> None:
    allowed = FIELDS[message.DESCRIPTOR.name].split()
    for field, value in message.ListFields():
        if field.name not in allowed and not (field.name == "data_location" and value == 0):
            reason = REASONS.get(field.name, f"has {message.DESCRIPTOR.name}.{field.name}")
            raise BundleError(f"{name} {reason}, which is not allowed; export the bundle again")
        # protobuf gives bytes where a string is not UTF-8, and native code then fails in its own way
        if field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in _each(value)):
            raise BundleError(f"{name} has a name that is not UTF-8; export the bundle again")
        if field.message_type is not None:
            for part in _each(value):
                _refuse_fields(part, name)


def _each(value: Any) -> Iterable[Any]:
    """The values of a field, repeated or not."""
    return (value,) if isinstance(value, str | bytes) or hasattr(value, "DESCRIPTOR") else value


def _refuse_operators(model: "ModelProto", name: str) -> None:
    if model.ir_version not in IR_VERSIONS:
        raise BundleError(f"{name} has IR version {model.ir_version}, expected 8 to 11; export the bundle again")
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx") or opset.version not in OPSETS:
            domain = one_line(opset.domain, 40) or "ai.onnx"
            raise BundleError(
                f"{name} needs operators of {domain} {opset.version}; expected ai.onnx "
                f"{OPSETS.start} to {OPSETS.stop - 1}; export the bundle again"
            )
    if len(model.graph.node) > NODE_LIMIT:
        raise BundleError(f"{name} has {len(model.graph.node):,} nodes, expected at most {NODE_LIMIT}; refuse it")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise BundleError(
                f"{name} uses the operator {one_line(node.op_type, 40)}, which no CCVAE graph needs; refuse this bundle"
            )


def _refuse_numbers(model: "ModelProto", name: str) -> None:
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        if not _is_ours(attribute):
            where = one_line(attribute.name, 40)
            raise BundleError(f"{name} has an attribute {where} with a value out of range; refuse this bundle")
    for tensor in _tensors(model):
        if not is_whole(tensor):
            where = one_line(tensor.name, 40)
            raise BundleError(
                f"{name} has a tensor {where} whose type, shape and bytes do not agree; export the bundle again"
            )


def _is_ours(attribute: "AttributeProto") -> bool:
    """Whether every value that an attribute holds, whatever its type says, is one of those allowed by its name."""
    if attribute.HasField("t"):
        return attribute.name == "value"
    numbers = (*attribute.floats, attribute.f)
    if attribute.name in FLOAT_ATTRIBUTES:
        return all(map(math.isfinite, numbers)) and not (attribute.ints or attribute.s)
    values: list[int | bytes] = list(attribute.ints)
    values += [attribute.i] if attribute.HasField("i") else []
    values += [attribute.s] if attribute.HasField("s") else []
    allowed = ATTRIBUTES.get(attribute.name, ())
    return len(values) <= 64 and all(value in allowed for value in values) and not any(numbers)


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def is_whole(tensor: "TensorProto") -> bool:
    """Whether a tensor has one kind of data, and as much of it as its type and shape say."""
    size: int = ELEMENTS.get(tensor.data_type, 0)
    if not size or len(tensor.dims) > RANK_LIMIT or any(dim < 1 for dim in tensor.dims):
        return False
    lengths = {1: len(tensor.float_data), 7: len(tensor.int64_data), 6: len(tensor.int32_data)}
    held = sum(lengths.values())
    elements: int = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        return held == 0 and len(tensor.raw_data) == elements * size
    # the narrow types are kept among the int32
    typed = lengths[tensor.data_type] if tensor.data_type in lengths else lengths[6]
    return held == typed == elements


def _refuse_names(model: "ModelProto", name: str) -> None:
    """Every value is made once: as an input, as an initialiser or by one node."""
    made = [value.name for value in (*model.graph.input, *model.graph.initializer)]
    made += [output for node in model.graph.node for output in node.output]
    seen = {""}
    for value in made:
        if value in seen:
            twin = one_line(value, 40)
            raise BundleError(f"{name} makes the value {twin!r} twice or without a name; export the bundle again")
        seen.add(value)


def _spec(value: "ValueInfoProto") -> TensorSpec | None:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT or not 0 < len(value.name) <= 100:
        return None
    shape = tuple(max(d.dim_value, 0) if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorSpec.model_construct(name=value.name, shape=shape)


def _written_anew(model: "ModelProto") -> bytes:
    """The checked parts and nothing else: no names of tools, no notes, no shapes that were only claimed.

    A runtime may take a file for another format by its first bytes, which a producer's name can imitate.
    """
    model.DiscardUnknownFields()
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        model.ClearField(field)
    model.graph.ClearField("value_info")
    written: bytes = model.SerializeToString(deterministic=True)
    return written
