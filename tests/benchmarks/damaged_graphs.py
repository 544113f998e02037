"""Seeded damage to ONNX graphs, from flipped bits to fields set to what an attacker would choose."""

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Any

import onnx
from damaged_manifests import FLOATS, INTEGERS, damaged_bytes
from damaged_manifests import STRINGS as ANY_STRINGS
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper

from ccvae_deploy.graphs.vet import OPERATORS

STRINGS = [text for text in ANY_STRINGS if text.isascii() or text.isprintable()]
HOSTILE = [
    *"If Loop Scan RandomNormal RandomUniformLike Bernoulli Multinomial Dropout ConstantOfShape Expand Tile".split(),
    *"Resize Pad Range Gather ScatterND Einsum OneHot SequenceInsert StringNormalizer Optional FusedGemm".split(),
]


def damaged_graph(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A graph with something wrong: half of the time in its parts, else in its bytes."""
    kind = rng.random()
    if kind < 0.15:
        return damaged_bytes(data, rng)
    if kind < 0.2:
        other = rng.choice(others)
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        with contextlib.suppress(IndexError):  # what it would change was taken away by an earlier one
            rng.choice(DAMAGES)(model, rng)
    changed: bytes = model.SerializeToString()
    if rng.random() < 0.05:
        changed = damaged_bytes(changed, rng)
    return changed


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if isinstance(value, Message) else value:
                yield from _messages(part)


def _set_field(model: onnx.ModelProto, rng: random.Random) -> None:
    """Any field of any message, known to the exporter or not, set, cleared or extended."""
    message = rng.choice(list(_messages(model)))
    field = rng.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None:
        part = value if isinstance(value, Message) else value.add()
        same = [other for other in _messages(model) if other.DESCRIPTOR is part.DESCRIPTOR and other is not part]
        if same and rng.random() < 0.7:
            part.MergeFromString(rng.choice(same).SerializeToString())
        else:
            part.SetInParent()
    elif hasattr(value, "append"):
        items = [_scalar(field, rng) for _ in range(rng.choice([1, 1, 2, 5, 300]))]
        if value and rng.random() < 0.6:
            value[rng.randrange(len(value))] = items[0]
        else:
            value.extend(items)
    else:
        setattr(message, field.name, _scalar(field, rng))


def _scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = rng.choice(STRINGS).encode("utf-8", "replace")
            return text if field.type == FieldDescriptor.TYPE_BYTES else text.decode()
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice([value for value in FLOATS if abs(value) < 1e300 or value != value])
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([value.number for value in field.enum_type.values])
        case FieldDescriptor.CPPTYPE_INT32:
            return rng.choice([value for value in INTEGERS if abs(value) < 1 << 31])
        case FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice([value for value in INTEGERS if value >= 0])
        case _:
            return rng.choice(INTEGERS)


def _repeat_field(model: onnx.ModelProto, rng: random.Random) -> None:
    """Parts doubled, dropped or put in another order."""
    message = rng.choice([part for part in _messages(model) if part.ListFields()])
    field, value = rng.choice(message.ListFields())
    if isinstance(value, Message) or not hasattr(value, "extend"):
        return message.ClearField(field.name)
    items = list(value)
    match rng.randrange(4):
        case 0:
            items.insert(rng.randrange(len(items) + 1), rng.choice(items))
        case 1:
            items.pop(rng.randrange(len(items)))
        case 2:
            rng.shuffle(items)
        case _:
            items = items[:200] * rng.choice([2, 30])
    kept = [type(item).FromString(item.SerializeToString()) if isinstance(item, Message) else item for item in items]
    message.ClearField(field.name)
    return getattr(message, field.name).extend(kept)


def _small_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """An attribute nudged to what is nearly right: strides of zero, groups that do not divide, pads at the border."""
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if not attributes:
        return _insert_node(model, rng)
    attribute = rng.choice(attributes)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice([-1, 0, 1, 2, 3, 5, 64, 4096])
        if rng.random() < 0.2:
            attribute.ints.append(1)
    else:
        attribute.i = rng.choice([-9, -2, -1, 0, 1, 2, 3, 7, 64, 4096])
    return None


def _other_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(sorted(OPERATORS)) if rng.random() < 0.7 else rng.choice(HOSTILE)
    if rng.random() < 0.3:
        node.ClearField("attribute")


def _insert_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node between others, sometimes in the path to the output."""
    graph = model.graph
    at = rng.randrange(len(graph.node) + 1)
    known = [value.name for value in (*graph.input, *graph.initializer)]
    known += [output for node in graph.node[:at] for output in node.output]
    given = rng.choices(known, k=rng.choice([1, 1, 2, 2, 3]))
    operator = rng.choice(sorted(OPERATORS)) if rng.random() < 0.9 else rng.choice(HOSTILE)
    name = f"new{rng.randrange(1 << 30)}"
    number = rng.choice([-1, 0, 1, 2, 3])
    attributes: dict[str, Any] = {
        "Cast": {"to": rng.choice([1, 2, 3, 6, 7, 9, 10, 11, 16])},
        "Concat": {"axis": number},
        "DepthToSpace": {"blocksize": rng.choice([0, 1, 2, 3])},
        "Split": {"axis": number, "num_outputs": rng.choice([1, 2])},
        "Flatten": {"axis": number},
        "Transpose": {"perm": rng.sample(range(4), rng.choice([2, 3, 4]))},
        "Gemm": {"transA": rng.randrange(2), "transB": rng.randrange(2)},
        "Constant": {"value_int": rng.choice(INTEGERS)},
        "Conv": {"strides": [rng.choice([1, 2])] * 2, "pads": [rng.choice([0, 1, 100])] * 4},
    }.get(operator, {})
    graph.node.insert(at, helper.make_node(operator, given if operator != "Constant" else [], [name], **attributes))
    if at + 1 < len(graph.node) and rng.random() < 0.7:
        after = graph.node[rng.randrange(at + 1, len(graph.node))]
        if after.input:
            after.input[rng.randrange(len(after.input))] = name


def _grow(model: onnx.ModelProto, rng: random.Random) -> None:
    """A chain that doubles or squares a value at each step."""
    graph = model.graph
    value = rng.choice([graph.input[0].name, *(tensor.name for tensor in graph.initializer)])
    operator, attributes = rng.choice([("Concat", {"axis": 0}), ("Concat", {"axis": 1}), ("MatMul", {}), ("Add", {})])
    if operator in ("MatMul", "Add"):
        graph.initializer.append(helper.make_tensor("col", TensorProto.INT64, [2], [-1, 1]))
        graph.node.insert(0, helper.make_node("Reshape", [value, "col"], ["column"]))
        graph.node.insert(1, helper.make_node("Transpose", ["column"], ["line"], perm=[1, 0]))
        graph.node.insert(2, helper.make_node(operator, ["column", "line"], ["square"]))
        return
    for step in range(rng.choice([1, 5, 40, 80])):
        graph.node.insert(step, helper.make_node(operator, [value, value], [f"grown{step}"], **attributes))
        value = f"grown{step}"


def _reshape_weights(model: onnx.ModelProto, rng: random.Random) -> None:
    """Other dimensions or another type of a tensor, with or without bytes that agree."""
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(5):
        case 0 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTEGERS)
        case 1:
            dims = list(tensor.dims)
            rng.shuffle(dims)
            tensor.ClearField("dims")
            tensor.dims.extend(dims if rng.random() < 0.5 else [1, *dims])
        case 2 if tensor.raw_data:
            data = bytearray(tensor.raw_data)
            for _ in range(rng.choice([1, 8, 200])):
                data[rng.randrange(len(data))] = rng.choice([0, 127, 128, 255])
            tensor.raw_data = bytes(data)
        case 3:
            shape = [rng.choice([1, 2, 3, 8]) for _ in range(rng.randrange(6))]
            name = tensor.name
            count = math.prod(shape)
            kind = rng.choice([TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.FLOAT16])
            size = {TensorProto.FLOAT: 4, TensorProto.INT64: 8, TensorProto.INT8: 1, TensorProto.FLOAT16: 2}[kind]
            data = rng.randbytes(count * size)
            tensor.CopyFrom(TensorProto(name=name, data_type=kind, dims=shape, raw_data=data))
        case _:
            tensor.data_type = rng.randrange(27)


def _declare(model: onnx.ModelProto, rng: random.Random) -> None:
    """Other shapes or names at the border of the graph."""
    value = rng.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if dims and rng.random() < 0.7:
        rng.choice(dims).dim_value = rng.choice([-1, 0, 1, 2, 8, 1 << 40])
    else:
        value.name = rng.choice(["", "z", "image", "x" * 300, "a\nb"])


def _hostile_part(model: onnx.ModelProto, rng: random.Random) -> None:
    """What a graph of ours never has."""
    graph = model.graph
    match rng.randrange(7):
        case 0:
            tensor = rng.choice(graph.initializer or [graph.initializer.add()])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=rng.choice(STRINGS))
        case 1:
            graph.sparse_initializer.add().dims.extend([1 << 40])
        case 2:
            model.functions.add(name="f", domain="")
        case 3:
            model.training_info.add().algorithm.CopyFrom(graph)
        case 4:
            node = rng.choice(graph.node or [graph.node.add()])
            attribute = node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
            deep = attribute.g
            for _ in range(rng.choice([0, 3, 20])):
                deep = deep.node.add(op_type="If").attribute.add(name="then_branch").g
        case 5:
            model.producer_name = "ORTM" + "x" * rng.randrange(100)
            model.metadata_props.add(key="ort_config", value='{"session_options": {}}')
        case _:
            graph.node.extend([helper.make_node("Identity", [graph.input[0].name], [""])] * rng.choice([1, 1001]))


DAMAGES = [_set_field] * 3 + [_repeat_field, _small_attribute, _other_operator, _insert_node]
DAMAGES += [_grow, _reshape_weights, _declare, _hostile_part]
