"""What 8 bits cost, part by part: the figures behind the choices of docs/bundle.md.

    python tests/benchmarks/int8_parts.py RUN

Each line puts one form of one graph beside the float32 graphs and measures the edits with the quality gate's own code;
the run's data must still be where training found them. Takes about two minutes.
"""

import copy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ccvae_deploy.schema import GRAPHS, GraphName, graph_signature
from ccvae_export.export import open_written, write_graphs
from ccvae_export.int8 import quantise
from ccvae_export.onnx_graphs import onnx_bytes, onnx_model
from ccvae_export.parity import eager_graphs
from ccvae_export.quality import QualityGate
from ccvae_export.rewrite import LinearTail, equalise, fast_decoder
from ccvae_export.run_images import RunImages, run_images
from ccvae_export.serialised import Serialised
from ccvae_export.variants import latents, variants
from ccvae_train.checkpoint import TrainedRun, load_run

ENCODER = ("Conv", "Relu", "Reshape", "Gemm")
DECODER = ("Conv", "Relu", "Transpose", "Reshape")


def encoders(run: TrainedRun, images: RunImages) -> Iterator[tuple[str, Serialised]]:
    """Everything but the head; without the first convolution; without the first two."""
    signature = graph_signature("encoder", run.labels, run.layout, run.image)
    for count, name in enumerate(("all but the head", "first convolution float", "first two float")):
        model = onnx_model(LinearTail(run.model.encoder), "encoder", *signature)
        convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
        head = [node.name for node in model.graph.node if node.op_type == "Gemm"][-1]
        model = quantise(model, "image", images.calibration, ENCODER, [*convolutions[:count], head])
        yield name, Serialised(onnx_bytes(model, "encoder", "{}"), "int8")


def decoders(run: TrainedRun, images: RunImages) -> Iterator[tuple[str, Serialised]]:
    """In 8 bits from each picture size on, with and without equalised channels; and the last layer alone."""
    signature = graph_signature("decoder", run.labels, run.layout, run.image)
    z = latents(run, images.calibration)
    level = copy.deepcopy(run.model.decoder)
    equalise(list(level.layers), torch.from_numpy(z))
    stages = sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in level.layers) - 2
    for first in reversed(range(stages)):
        for decoder, how in ((run.model.decoder, "as trained"), (level, "equalised")):
            model = onnx_model(fast_decoder(decoder, range(first, stages)), "decoder", *signature)
            before = next(node.name for node in model.graph.node if node.op_type == "Reshape")
            model = quantise(model, "z", z, DECODER, [before])
            yield f"from {4 << first}x{4 << first} on, {how}", Serialised(onnx_bytes(model, "decoder", "{}"), "int8")
    model = onnx_model(fast_decoder(run.model.decoder), "decoder", *signature)
    others = [node.name for node in model.graph.node if node.op_type == "ConvTranspose"][:-1]
    model = quantise(model, "z", z, ("ConvTranspose",), others)
    yield "the last layer alone", Serialised(onnx_bytes(model, "decoder", "{}"), "int8")


def main(path: Path) -> None:
    """Print one line per form."""
    run = load_run(path)
    images = run_images(run, required=True)
    gate = QualityGate(eager_graphs(run), images.judged)
    exact = {graph: variants(run, graph, "onnx", "fp32", images.calibration)[0]() for graph in GRAPHS}
    table = Table(title=f"one graph in 8 bits, {len(images.judged)} {images.source}", title_justify="left")
    for name in ("graph", "form", "KiB", "mean", "99.9 %", "worst", "labels differ", "reached differs"):
        table.add_column(name, justify="left" if name in ("graph", "form") else "right")
    forms: list[tuple[GraphName, Iterator[tuple[str, Serialised]]]] = [
        ("encoder", encoders(run, images)),
        ("decoder", decoders(run, images)),
    ]
    for graph, found in forms:
        for name, one in found:
            with tempfile.TemporaryDirectory() as folder:
                write_graphs(run, "onnx", {**exact, graph: one}, Path(folder))
                quality = gate.measure(open_written(Path(folder)))
            shown = (f"{quality.mean:.3f}", f"{quality.p999:.0f}", f"{quality.worst:.0f}")
            shares = (f"{quality.disagreement:.2%}", f"{quality.flips:.2%}")
            table.add_row(graph, name, f"{len(one.data) / 1024:,.0f}", *shown, *shares)
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
