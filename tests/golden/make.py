"""Write the golden bundles: small bundles of random weights that every later version must open.

    python tests/golden/make.py NAME...

NAME is one of those in `MAKERS`, which is also the name of the folder. A golden bundle that has been published is
never written again: a change that needs that is a change that breaks everyone's bundles. Beside the graphs stands
`expected.safetensors` with inputs and outputs of every graph as `<graph>.<tensor>`, taken on the day it was made.

The graphs have the operators and the order of the exporter's own, at a fraction of their width. A new format or
precision gets a new folder: add its maker here, and `test_golden.py` finds the folder by itself.
"""

import hashlib
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.schema import (
    GRAPHS,
    GraphFile,
    ImageSpec,
    Label,
    LabelSet,
    LatentLayout,
    LatentRange,
    Manifest,
    ModelSpec,
    graph_signature,
)

if TYPE_CHECKING:
    from onnx import ModelProto

LABELS = LabelSet(
    labels=(
        Label(name="Smiling"),
        Label(name="Hair Colour", kind="categorical", classes=("black", "blond", "grey"), dims=2),
        Label(name="Young"),
    )
)
LAYOUT = LatentLayout(blocks=(1, 2, 1), residual=6)
WIDTHS = (6, 8, 8)
FLAT = WIDTHS[-1] * 4 * 4
GREY = ImageSpec(size=32, channels=1)


def weight(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def onnx_graph(name: str, image: ImageSpec) -> bytes:
    """One graph as the exporter would write it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(GRAPHS.index(name))
    nodes: list[onnx.NodeProto] = []
    held: dict[str, NDArray[np.generic]] = {}

    def put(operator: str, given: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, given, [out], **attributes))
        return out

    def hold(key: str, value: NDArray[np.generic]) -> str:
        held[key] = value
        return key

    def convolution(operator: str, value: str, out: str, into: int, of: int) -> str:
        shape = (of, into, 4, 4) if operator == "Conv" else (into, of, 4, 4)
        given = [value, hold(f"{out}.weight", weight(rng, *shape)), hold(f"{out}.bias", weight(rng, of))]
        return put(operator, given, out, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1], group=1)

    def linear(value: str, out: str, into: int, of: int) -> str:
        given = [value, hold(f"{out}.weight", weight(rng, of, into)), hold(f"{out}.bias", weight(rng, of))]
        return put("Gemm", given, out, transB=1)

    match name:
        case "encoder":
            value, into = "image", image.channels
            for i, of in enumerate(WIDTHS):
                value = put("Relu", [convolution("Conv", value, f"conv{i}", into, of)], f"relu{i}")
                into = of
            value = put("Reshape", [value, hold("flat", np.array([-1, FLAT]))], "view")
            value = linear(value, "head", FLAT, 2 * LAYOUT.size)
            hold("halves", np.array([LAYOUT.size, LAYOUT.size]))
            nodes.append(helper.make_node("Split", [value, "halves"], ["z_loc", "raw"], axis=1))
            put("Softplus", ["raw"], "soft")
            put("Greater", ["raw", hold("threshold", np.float32(20))], "large")
            put("Where", ["large", "raw", "soft"], "scale")
            put("Add", ["scale", hold("floor", np.float32(1e-3))], "z_scale")
        case "decoder":
            value = put("Relu", [linear("z", "first", LAYOUT.size, FLAT)], "relu")
            value = put("Reshape", [value, hold("shape", np.array([-1, WIDTHS[-1], 4, 4]))], "view")
            widths = (*WIDTHS[::-1], image.channels)
            for i in range(3):
                value = convolution("ConvTranspose", value, f"deconv{i}", widths[i], widths[i + 1])
                value = put("Relu", [value], f"relu{i}") if i < 2 else put("Sigmoid", [value], "image")
        case "classifier":
            put("Mul", ["z_c", hold("weight", weight(rng, LAYOUT.z_c))], "mul")
            put("MatMul", ["mul", hold("membership", weight(rng, LAYOUT.z_c, LABELS.width))], "matmul")
            put("Add", ["matmul", hold("bias", weight(rng, LABELS.width))], "logits")
        case _:
            put("MatMul", ["y", hold("membership", weight(rng, LABELS.width, LAYOUT.z_c))], "state")
            put("Add", ["state", hold("loc", weight(rng, LAYOUT.z_c))], "z_c_loc")
            put("Softplus", ["state"], "soft")
            put("Add", ["soft", hold("floor", np.float32(1e-3))], "z_c_scale")
    inputs, outputs = graph_signature(name, LABELS, LAYOUT, image)  # type: ignore[arg-type]
    infos = [
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["batch", *spec.shape[1:]]) for spec in specs]
        for specs in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(value, key) for key, value in held.items()]
    graph = helper.make_graph(nodes, name, *infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString(deterministic=True)


def torchscript_graph(name: str, image: ImageSpec) -> bytes:
    """The same shapes as a traced module."""
    import torch
    from torch import nn

    class Scaled(nn.Module):
        """A network whose output is a location and a scale."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            loc, raw = self.network(value).chunk(2, dim=1)
            return loc, nn.functional.softplus(raw) + 1e-3

    torch.manual_seed(GRAPHS.index(name))
    layers: list[nn.Module] = []
    match name:
        case "encoder":
            for into, of in zip((image.channels, *WIDTHS), WIDTHS, strict=False):
                layers += [nn.Conv2d(into, of, 4, stride=2, padding=1), nn.ReLU()]
            module: nn.Module = Scaled(nn.Sequential(*layers, nn.Flatten(), nn.Linear(FLAT, 2 * LAYOUT.size)))
        case "decoder":
            layers = [nn.Linear(LAYOUT.size, FLAT), nn.ReLU(), nn.Unflatten(1, (WIDTHS[-1], 4, 4))]
            for into, of in zip(WIDTHS[::-1], (*WIDTHS[-2::-1], image.channels), strict=True):
                layers += [nn.ConvTranspose2d(into, of, 4, stride=2, padding=1), nn.ReLU()]
            module = nn.Sequential(*layers[:-1], nn.Sigmoid())
        case "classifier":
            module = nn.Linear(LAYOUT.z_c, LABELS.width)
        case _:
            module = Scaled(nn.Linear(LABELS.width, 2 * LAYOUT.z_c))
    (given,), _ = graph_signature(name, LABELS, LAYOUT, image)  # type: ignore[arg-type]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.eval(), (torch.zeros(2, *given.shape[1:]),)), buffer)
    return buffer.getvalue()


def fp16_graph(name: str, image: ImageSpec) -> bytes:
    """The float32 graph with weights and arithmetic in float16."""
    import onnx

    from ccvae_export.onnx_graphs import in_float16, onnx_bytes

    return onnx_bytes(in_float16(onnx.load_model_from_string(onnx_graph(name, image))), name, "{}")  # type: ignore[arg-type]


def int8_graph(name: str, image: ImageSpec) -> bytes:
    """The same kinds of graph in 8 bits; the decoder's first two layers as convolutions and depth to space."""
    import onnx

    from ccvae_export.int8 import quantise, store_weights
    from ccvae_export.onnx_graphs import onnx_bytes

    rng = np.random.default_rng(7)
    if name == "decoder":
        model = upsampling_decoder(image)
        first = [node.name for node in model.graph.node if node.op_type == "Reshape"][:1]
        z = rng.standard_normal((64, LAYOUT.size)).astype(np.float32)
        model = quantise(model, "z", z, ("Conv", "Relu", "Transpose", "Reshape"), first)
    else:
        model = onnx.load_model_from_string(onnx_graph(name, image))
        for number, node in enumerate(model.graph.node):
            node.name = f"node{number}"
        if name == "encoder":
            keep = [model.graph.node[0].name, *(node.name for node in model.graph.node if node.op_type == "Gemm")]
            images = rng.random((64, image.channels, image.size, image.size), np.float32)
            model = quantise(model, "image", images, ("Conv", "Relu"), keep)
        store_weights(model, large=1)
    return onnx_bytes(model, name, "{}")  # type: ignore[arg-type]


def upsampling_decoder(image: ImageSpec) -> "ModelProto":
    """A narrow decoder in the form that quantises."""
    import torch
    from torch import nn

    from ccvae_export.onnx_graphs import onnx_model
    from ccvae_export.rewrite import Upsample

    torch.manual_seed(7)
    layers: list[nn.Module] = [nn.Linear(LAYOUT.size, FLAT), nn.ReLU(), nn.Unflatten(1, (WIDTHS[-1], 4, 4))]
    widths = (*WIDTHS[::-1], image.channels)
    layers += [Upsample(nn.ConvTranspose2d(widths[i], widths[i + 1], 4, stride=2, padding=1)) for i in range(2)]
    layers += [nn.ConvTranspose2d(widths[2], widths[3], 4, stride=2, padding=1), nn.Sigmoid()]
    return onnx_model(nn.Sequential(*layers).eval(), "decoder", *graph_signature("decoder", LABELS, LAYOUT, image))


def write(folder: Path, image: ImageSpec, entry: dict[str, object], make: Callable[[str, ImageSpec], bytes]) -> None:
    """The bundle and what its graphs give."""
    folder.mkdir()
    ending = {"onnx": "onnx", "torchscript": "pt"}[str(entry["format"])]
    files = {}
    for name in GRAPHS:
        inputs, outputs = graph_signature(name, LABELS, LAYOUT, image)
        data = make(name, image)
        (folder / f"{name}.{ending}").write_bytes(data)
        about = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "inputs": inputs, "outputs": outputs}
        files[name] = GraphFile.model_validate({"file": f"{name}.{ending}", **about, **entry})
    manifest = Manifest(
        model=ModelSpec(likelihood_scale=0.15),
        labels=LABELS,
        layout=LAYOUT,
        image=image,
        label_prior=(0.5, 0.25, 0.25, 0.5, 0.75),
        latent_range=LatentRange(low=(-3.0,) * LAYOUT.size, high=(3.5,) * LAYOUT.size),
        files=files,
        provenance={"data": "random weights", "versions": {"numpy": np.__version__}, "epochs_done": 0},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    bundle = open_bundle(folder, provider="cpu", allow_torchscript=True, threads=1)
    rng = np.random.default_rng(0)
    tensors = {}
    for name, file in manifest.files.items():
        given = rng.random((2, *file.inputs[0].shape[1:]), np.float32)
        tensors[f"{name}.{file.inputs[0].name}"] = given
        for output, array in zip(file.outputs, bundle.graphs[name](given), strict=True):
            tensors[f"{name}.{output.name}"] = np.ascontiguousarray(array)
    save_file(tensors, folder / "expected.safetensors")


MAKERS: dict[str, tuple[ImageSpec, dict[str, object], Callable[[str, ImageSpec], bytes]]] = {
    "v1-onnx-fp32": (ImageSpec(size=32), {"format": "onnx", "opset": 18}, onnx_graph),
    "v1-onnx-fp16": (GREY, {"format": "onnx", "precision": "fp16", "opset": 18}, fp16_graph),
    "v1-onnx-int8": (GREY, {"format": "onnx", "precision": "int8", "opset": 18}, int8_graph),
    "v1-torchscript-fp32": (GREY, {"format": "torchscript"}, torchscript_graph),
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or sys.exit(f"name one of {', '.join(MAKERS)}"):
        write(Path(__file__).parent / wanted, *MAKERS[wanted])
