"""One network as a `.pt2` archive, TorchScript's successor: write it, and read it back. Touches no file."""

import io
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from ccvae_deploy.arrays import Array
from ccvae_deploy.graphs.artefact import KEY
from ccvae_deploy.graphs.torchscript import without_tf32
from ccvae_deploy.schema import TensorSpec


def pt2_bytes(module: nn.Module, inputs: tuple[TensorSpec, ...], metadata: str) -> bytes:
    """Export a network of one input with a dynamic batch dimension, with `metadata` among its extra files."""
    example = torch.zeros(2, *inputs[0].shape[1:])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": metadata})
    return buffer.getvalue()


def moved(program: ExportedProgram, device: torch.device) -> ExportedProgram:
    """A program on a device; its weights alone would not do, since it also checks where its tensors lie."""
    return move_to_device_pass(program, device) if device.type != "cpu" else program


def load_pt2(data: bytes, device: torch.device) -> Callable[[Array], tuple[Array, ...]]:
    """An archive that this process has written, as a function of one array that returns its outputs."""
    if device.type != "cpu":
        without_tf32()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = moved(torch.export.load(io.BytesIO(data)), device).module()

    def run(array: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            found = module(torch.from_numpy(array).to(device))
        outputs = found if isinstance(found, tuple | list) else (found,)
        return tuple(output.cpu().numpy() for output in outputs)

    return run
