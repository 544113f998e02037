"""Graphs from a stranger: what an attacker would try is refused before native code sees it; what we write is not."""

import contextlib
import time
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ccvae_deploy.errors import BundleError
from ccvae_deploy.graphs.vet import vet
from ccvae_deploy.graphs.wire import structure_bytes
from ccvae_deploy.providers import Choice, make_session
from ccvae_deploy.schema import GraphFile, TensorSpec

CPU = Choice("CPUExecutionProvider", "CPU")
ENTRY = GraphFile(
    file="decoder.onnx",
    sha256="0" * 64,
    bytes=1,
    format="onnx",
    inputs=(TensorSpec(name="x", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", shape=(-1, 4)),),
)


def model_of(*nodes: onnx.NodeProto, opset: int = 18, **constants: np.ndarray) -> onnx.ModelProto:
    """A graph from x (N, 4) to y (N, 4)."""
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", border[:1], border[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(operator: str, given: str, made: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, given.split(), made.split(), **attributes)


PASS = node("Identity", "x", "y")


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return make_session(vet(model.SerializeToString(), "g.onnx", ENTRY), CPU, 1).run(["y"], {"x": x})[0]


def refused(model: onnx.ModelProto | bytes, message: str) -> None:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    began = time.monotonic()
    with pytest.raises(BundleError, match=message) as caught:
        vet(data, "g.onnx", ENTRY)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert time.monotonic() - began < 5


X = np.float32([[0.1, -0.2, 0.3, 0.4], [1, 2, 3, 4], [0, 0, 0, 0]])


def test_graphs_of_low_precision_pass_and_run() -> None:
    half = model_of(
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Mul", "h two", "d"),
        node("Cast", "d", "y", to=TensorProto.FLOAT),
        two=np.float16(2),
    )
    np.testing.assert_allclose(run(half, X), 2 * X, rtol=1e-3)
    int8 = model_of(
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("DequantizeLinear", "weight scales zeros", "w", axis=1),
        node("MatMul", "d w", "m"),
        node("Add", "m bias", "y"),
        scale=np.float32(0.02),
        zero=np.uint8(50),
        weight=np.int8(100 * np.eye(4)),
        scales=np.full(4, 0.01, np.float32),
        zeros=np.zeros(4, np.int8),
        bias=np.zeros(4, np.float32),
    )
    np.testing.assert_allclose(run(int8, X), X, atol=0.011)
    shuffled = model_of(
        node("Reshape", "x square", "a"), node("DepthToSpace", "a", "b", blocksize=2, mode="CRD"),
        node("Reshape", "b flat", "y"), square=np.int64([-1, 4, 1, 1]), flat=np.int64([-1, 4]),
    )  # fmt: skip
    assert run(shuffled, X).tolist() == X.tolist()


def test_what_runs_is_what_was_checked_and_nothing_else() -> None:
    model = model_of(PASS)
    model.producer_name = "a tool"
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1 << 40]))
    unknown = model.SerializeToString() + b"\xfa\x3f\x03abc"
    assert b"abc" in onnx.load_model_from_string(unknown).SerializeToString()
    written = vet(unknown, "g.onnx", ENTRY)
    assert b"abc" not in written
    assert b"a tool" not in written
    assert not onnx.load_model_from_string(written).graph.value_info


def test_a_graph_that_begins_like_another_format_is_still_read_as_onnx() -> None:
    model = model_of(PASS)
    model.producer_name = "ORTM-and-more"
    data = model.SerializeToString()
    assert data[4:8] == b"ORTM"
    assert make_session(data, CPU, 1).run(["y"], {"x": X})[0].tolist() == X.tolist()
    assert vet(data, "g.onnx", ENTRY)[4:8] != b"ORTM"


@pytest.mark.parametrize(
    ("dims", "raw"),
    [((1 << 40,), b"\0\0\0\0"), ((-1,), b"\0\0\0\0"), ((0,), b""), ((1 << 62, 4), b""), ((2, 2), b"\0" * 15)],
)
def test_declared_shapes_must_agree_with_the_bytes(dims: tuple[int, ...], raw: bytes) -> None:
    model = model_of(PASS)
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=dims, raw_data=raw))
    refused(model, "a tensor w whose type, shape and bytes do not agree")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.DOUBLE, TensorProto.COMPLEX64, TensorProto.BOOL, 99])
def test_tensors_of_other_types_are_refused(kind: int) -> None:
    model = model_of(PASS)
    model.graph.initializer.append(TensorProto(name="w", data_type=kind, dims=[1], raw_data=b"\0" * 8))
    refused(model, "type, shape and bytes")


def test_a_tensor_inside_an_attribute_is_checked_too() -> None:
    bomb = TensorProto(name="v", data_type=1, dims=[1 << 40], raw_data=b"")
    refused(model_of(helper.make_node("Constant", [], ["c"], value=bomb), PASS), "a tensor v whose type")
    bomb.data_location = TensorProto.EXTERNAL
    refused(model_of(helper.make_node("Constant", [], ["c"], value=bomb), PASS), "keeps weights in another file")


def doubled(axis: int) -> onnx.ModelProto:
    names = ["x", *(f"v{i}" for i in range(40))]
    return model_of(*(node("Concat", f"{a} {a}", b, axis=axis) for a, b in pairwise(names)), PASS)


def squared() -> onnx.ModelProto:
    return model_of(
        node("Reshape", "w col", "c"), node("Transpose", "c", "r", perm=[1, 0]), node("Add", "c r", "big"), PASS,
        w=np.zeros(50_000, np.float32), col=np.int64([-1, 1]),
    )  # fmt: skip


def padded() -> onnx.ModelProto:
    return model_of(
        node("Reshape", "x square", "a"), node("Conv", "a w", "big", pads=[4000] * 4), PASS,
        square=np.int64([-1, 1, 2, 2]), w=np.zeros((1, 1, 3, 3), np.float32),
    )  # fmt: skip


def laboured() -> onnx.ModelProto:
    line = [f"m{i}" for i in range(900)]
    names = ["x2", *line]
    wide = (node("MatMul", f"{a} w", b) for a, b in zip(names, line, strict=False))
    return model_of(
        node("MatMul", "x u", "x2"),
        *wide,
        PASS,
        u=np.zeros((4, 2048), np.float32),
        w=np.zeros((2048, 2048), np.float32),
    )


@pytest.mark.parametrize("bomb", [doubled(0), doubled(1), squared(), padded(), laboured()], ids=list("01spl"))
def test_small_graphs_that_would_take_much_are_refused(bomb: onnx.ModelProto) -> None:
    assert len(bomb.SerializeToString()) < 20_000_000
    refused(bomb, "multiplications for 64 images, expected at most")


def test_graphs_that_mix_the_images_of_a_batch_are_refused() -> None:
    mixed = model_of(
        node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "gram"), node("MatMul", "gram x", "y")
    )
    refused(mixed, "mixes the images of a batch")


def test_shapes_that_depend_on_values_are_refused() -> None:
    dynamic = model_of(
        node("Cast", "x", "i", to=TensorProto.INT64), node("Reshape", "i flat", "s"), node("Reshape", "x s", "y"),
        flat=np.int64([-1]),
    )  # fmt: skip
    refused(dynamic, "a Reshape that is not given by constants")
    long = model_of(node("Reshape", "x s", "y"), s=np.ones(100_000, np.int64))
    refused(long, "a Reshape that is not given by constants")
    ranked = model_of(node("Reshape", "x s", "t"), PASS, s=np.int64([-1, *[1] * 20]))
    refused(ranked, "a Reshape whose shape does not follow")


def test_outputs_of_another_shape_than_declared_are_refused() -> None:
    refused(model_of(node("Concat", "x x", "y", axis=1)), r"would give y of shape \(64, 8\), not \(64, 4\)")


def test_millions_of_nodes_are_refused_before_they_are_parsed() -> None:
    model = model_of(PASS)
    model.graph.node.extend([node("Identity", "x", "y")] * 1001)
    refused(model, r"1,002 nodes, expected at most 1000")
    empty_nodes = b"\x3a\x80\x80\x80\x01" + b"\x0a\x00" * (1 << 20)
    refused(model.SerializeToString() + empty_nodes, "is not an ONNX file or is truncated")
    names = helper.make_node("Identity", ["x"] * 400_000, ["y"])
    refused(model_of(names), "bytes beside its weights")


@pytest.mark.parametrize(
    "bad",
    [
        node("Conv", "x w", "c", strides=[0, 0]),
        node("Conv", "x w", "c", group=0),
        node("Conv", "x w", "c", dilations=[1 << 40, 1]),
        node("Conv", "x w", "c", pads=[-3, 0, 0, 0]),
        node("Conv", "x w", "c", auto_pad="SAME_UPPER"),
        node("ConvTranspose", "x w", "c", output_shape=[1 << 30, 1 << 30]),
        node("DepthToSpace", "x", "c", blocksize=0),
        node("Split", "x", "c", num_outputs=0),
        node("Transpose", "x", "c", perm=[99, 0]),
        node("Cast", "x", "c", to=TensorProto.STRING),
        node("Gemm", "x w", "c", alpha=float("nan")),
        node("Identity", "x", "c", invented=1),
        helper.make_node("Constant", [], ["c"], value_string="a"),
    ],
    ids=lambda bad: f"{bad.op_type}-{bad.attribute[0].name}",
)
def test_attributes_out_of_range_are_refused(bad: onnx.NodeProto) -> None:
    refused(model_of(bad, PASS, w=np.zeros((1, 1, 3, 3), np.float32)), "has an attribute .* out of range")


def test_an_attribute_cannot_hide_a_number_behind_another_type() -> None:
    bad = node("Conv", "x w", "c", strides=[1, 1])
    bad.attribute[0].i = 0
    bad.attribute[0].type = AttributeProto.INT
    refused(model_of(bad, PASS, w=np.zeros((1, 1, 3, 3), np.float32)), "attribute strides")


def hidden(part: str) -> onnx.ModelProto:
    """A graph with a part that no exporter writes."""
    model = model_of(PASS)
    inner = helper.make_graph([node("RandomNormal", "", "r", shape=[1])], "inner", [], [])
    match part:
        case "subgraph":
            model.graph.node[0].attribute.append(helper.make_attribute("body", inner))
        case "subgraphs":
            model.graph.node[0].attribute.add(name="bodies", type=AttributeProto.GRAPHS).graphs.append(inner)
        case "sparse":
            model.graph.sparse_initializer.add().dims.append(1 << 40)
        case "sparse attribute":
            model.graph.node[0].attribute.add(name="sparse_value").sparse_tensor.dims.append(1 << 40)
        case "functions":
            model.functions.add(name="f", domain="d")
        case "training":
            model.training_info.add().algorithm.CopyFrom(inner)
        case "sequence":
            model.graph.input[0].type.sequence_type.SetInParent()
        case "strings":
            model.graph.initializer.add(name="w", data_type=TensorProto.STRING).string_data.append(b"a")
    return model


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("subgraph", "holds a graph inside a graph"),
        ("subgraphs", "holds a graph inside a graph"),
        ("sparse", r"GraphProto\.sparse_initializer"),
        ("sparse attribute", r"AttributeProto\.sparse_tensor"),
        ("functions", "defines operators of its own"),
        ("training", r"ModelProto\.training_info"),
        ("sequence", r"TypeProto\.sequence_type"),
        ("strings", r"TensorProto\.string_data"),
    ],
)
def test_parts_that_no_exporter_writes_are_refused(part: str, message: str) -> None:
    refused(hidden(part), message)


def test_deep_nesting_is_refused() -> None:
    deep = b""
    for _ in range(2000):  # node, attribute, graph, node, ...
        deep = b"\x32" + varint(len(deep)) + deep
        deep = b"\x2a" + varint(len(deep)) + deep
        deep = b"\x0a" + varint(len(deep)) + deep
    refused(b"\x3a" + varint(len(deep)) + deep, "not an ONNX file|graph inside a graph")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("name", ["x", "y", ""])
def test_values_made_twice_are_refused(name: str) -> None:
    refused(model_of(node("Identity", "x", "t"), helper.make_node("Relu", ["x"], [name]), PASS), "twice or without")
    refused(model_of(PASS, **{name: np.float32(1)}), "twice or without")


def test_names_cannot_write_on_the_terminal() -> None:
    refused(model_of(helper.make_node("Evil\x1b[2J\nerror: all is well", ["x"], ["y"])), "uses the operator Evil")


def test_names_that_are_no_text_are_refused() -> None:
    data = model_of(node("Identity", "x", "temporary"), PASS).SerializeToString()
    for name in (b"temporary", b"Identity"):
        refused(data.replace(name, b"\xff" * len(name)), "a name that is not UTF-8")


def test_structure_is_what_is_not_weights() -> None:
    model = model_of(PASS, w=np.zeros(1000, np.float32))
    data = model.SerializeToString()
    assert structure_bytes(data) == len(data) - 4000
    for cut in range(len(data) - 1, 0, -7):
        with contextlib.suppress(ValueError):
            assert structure_bytes(data[:cut]) <= cut
    for wrong in (b"\x3a\xff", b"\x3b", b"\x3a" + b"\xff" * 11, b"\x09\0"):
        with pytest.raises(ValueError, match=r"wire type|ends behind|without an end"):
            structure_bytes(wrong)


@pytest.mark.parametrize("raw", [True, False])
def test_weights_are_no_structure_in_either_form(raw: bool) -> None:
    """Older exporters and hand-made graphs keep them as float_data."""
    values = np.arange(1000, dtype=np.float32)
    tensor = numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", TensorProto.FLOAT, [1000], values)
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert bool(tensor.raw_data) == raw
    assert structure_bytes(model.SerializeToString()) < 100
