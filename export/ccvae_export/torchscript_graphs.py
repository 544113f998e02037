"""One network as a TorchScript graph. Writes nothing; gives bytes. The one file here that needs torch.jit."""

import io
import warnings

import torch
from torch import nn

from ccvae_deploy.graphs.artefact import KEY
from ccvae_deploy.schema import TensorSpec


def torchscript_bytes(module: nn.Module, inputs: tuple[TensorSpec, ...], metadata: str) -> bytes:
    """Trace a network of one input, checked against itself, with `metadata` among its extra files."""
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, *inputs[0].shape[1:], generator=generator)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (example,), check_trace=True)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={f"{KEY}.json": metadata})
    return buffer.getvalue()
