"""What one run of a graph would take, told from shapes alone: memory of all values, multiplications. Runs nothing.

Shapes are inferred for one image and for 64, and what the file claims of its inner values is not believed.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import BundleError, one_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

BATCH = 64
MEMORY_LIMIT = 1 << 31
"""Bytes of all values of a graph together at a batch of 64, at 8 bytes each; in float32 the networks for 128x128 images
take a ninth of it, and quantisation puts two more values beside each."""
WORK_LIMIT = 100_000_000_000
"""Multiplications of a graph at a batch of 64; the networks for 128x128 images take a 48th of it."""

RANK_LIMIT = 8
SHAPE_INPUTS = frozenset("Reshape Slice Split Squeeze Unsqueeze".split())
"""Operators whose second and later inputs are shapes, places or axes."""
SHAPE_INPUT_LIMIT = 64

Shapes = Mapping[str, tuple[int, ...]]


def require_affordable(model: "ModelProto", name: str) -> None:
    """Refuse a checked graph that would take more memory or time than a CCVAE graph can need.

    Raises:
        BundleError: a shape does not follow from the inputs, a limit is passed, or rows of a batch are mixed.
    """
    constants = _small_constants(model)
    for node in model.graph.node:
        # inference makes as many dimensions as a computed shape would have numbers
        if node.op_type in SHAPE_INPUTS and any(given and given not in constants for given in node.input[1:]):
            raise BundleError(f"{name} has a {node.op_type} that is not given by constants; export the bundle again")
    memory, work = _cost(model, name, BATCH)
    if memory > MEMORY_LIMIT or work > WORK_LIMIT:
        raise BundleError(
            f"{name} needs {one_line(memory, 25)} bytes and {one_line(work, 25)} multiplications for {BATCH} images, "
            f"expected at most {MEMORY_LIMIT:,} and {WORK_LIMIT:,}; refuse this bundle"
        )
    memory_of_one, work_of_one = _cost(model, name, 1)
    if memory > BATCH * memory_of_one or work > BATCH * work_of_one:
        raise BundleError(f"{name} mixes the images of a batch, which no CCVAE graph does; refuse this bundle")


def _small_constants(model: "ModelProto") -> set[str]:
    """Names of the values that stand in the file and are short enough to be a shape."""
    small = {tensor.name for tensor in model.graph.initializer if math.prod(tensor.dims) <= SHAPE_INPUT_LIMIT}
    for node in model.graph.node:
        if node.op_type == "Constant" and all(math.prod(part.t.dims) <= SHAPE_INPUT_LIMIT for part in node.attribute):
            small.update(node.output)
    return small


def _cost(model: "ModelProto", name: str, batch: int) -> tuple[int, int]:
    """Bytes and multiplications of one run, as Python integers, which do not overflow."""
    shapes = _shapes(model, name, batch)
    memory = work = 0
    for node in model.graph.node:
        made = [shapes.get(output, ()) for output in node.output]
        known = all(output in shapes for output in node.output) and all(dim > 0 for shape in made for dim in shape)
        if not known or any(len(shape) > RANK_LIMIT for shape in made):
            raise BundleError(
                f"{name} has a {node.op_type} whose shape does not follow from the input; export the bundle again"
            )
        elements = sum(map(math.prod, made))
        multiplications, buffer = _multiplications(node, shapes, elements)
        memory += 8 * elements + 4 * buffer
        work += elements + multiplications
    return memory, work


def _multiplications(node: "NodeProto", shapes: Shapes, elements: int) -> tuple[int, int]:
    """Multiplications of a node and the elements of the matrix that a convolution unfolds an image into."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0, 0
    left, right = shapes.get(node.input[0], ()), shapes.get(node.input[1], ())
    if node.op_type in ("Gemm", "MatMul"):
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return elements * (left[0] if transposed else left[-1]), 0
    count = (elements if node.op_type == "Conv" else math.prod(left)) * math.prod(right[1:])
    return count, count // (left[0] * right[0])


def _shapes(model: "ModelProto", name: str, batch: int) -> dict[str, tuple[int, ...]]:
    """The shape of every value that has one, by ONNX's own inference.

    Inference runs without data propagation, which would compute values, and gets no weights: only the small integer
    tensors that shapes are read from.
    """
    import onnx

    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = "shapes"
    graph.node.extend(model.graph.node)
    for given in model.graph.input:
        shape = [batch, *(dim.dim_value for dim in given.type.tensor_type.shape.dim[1:])]
        graph.input.append(onnx.helper.make_tensor_value_info(given.name, onnx.TensorProto.FLOAT, shape))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and math.prod(tensor.dims) <= SHAPE_INPUT_LIMIT:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for made in model.graph.output:
        graph.output.append(onnx.helper.make_tensor_value_info(made.name, onnx.TensorProto.FLOAT, None))
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, check_type=True, strict_mode=True).graph
    except Exception as error:  # inference raises several kinds
        raise BundleError(f"{name} has shapes that do not fit: {one_line(error)}; export the bundle again") from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    _require_outputs(model, name, shapes, batch)
    return shapes


def _require_outputs(model: "ModelProto", name: str, shapes: Shapes, batch: int) -> None:
    for made in model.graph.output:
        declared = (batch, *(dim.dim_value for dim in made.type.tensor_type.shape.dim[1:]))
        if shapes.get(made.name) != declared:
            raise BundleError(
                f"{name} would give {one_line(made.name, 40)} of shape {one_line(shapes.get(made.name), 60)}, not "
                f"{declared} as it declares; export the bundle again"
            )
