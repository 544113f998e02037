"""A judge as one ONNX graph, image to logits, so that anything that takes an ONNX classifier takes it."""

import json
from pathlib import Path

from ccvae_deploy.schema import SCHEMA_VERSION, TensorSpec
from ccvae_deploy.storage.store import replace_file
from ccvae_train.judge import Judge

from .onnx_graphs import onnx_bytes, onnx_model

FILE = "judge.onnx"


def export_judge(judge: Judge) -> Path:
    """Write `judge.onnx` into the judge's folder; a file of that name there is replaced.

    Input `image` (N, C, S, S) float32 in [0, 1], output `logits` (N, Y); the labels stand in its metadata.

    Raises:
        ParityError: the exporter cannot turn the network into a graph.
        WriteError: the disk is full or refuses.
    """
    state = judge.state
    image = TensorSpec(name="image", shape=(-1, state.image.channels, state.image.size, state.image.size))
    logits = TensorSpec(name="logits", shape=(-1, state.labels.width))
    model = onnx_model(judge.network.cpu().eval(), "judge", (image,), (logits,))
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "graph": "judge",
        "labels": state.labels.model_dump(mode="json"),
        "columns": state.labels.column_names,
        "image": state.image.model_dump(mode="json"),
        "data": state.data,
        "figures": state.figures,
    }
    path = judge.path / FILE
    replace_file(path, [onnx_bytes(model, "judge", json.dumps(metadata, sort_keys=True))])
    judge.network.to(judge.device.torch_device)
    return path
