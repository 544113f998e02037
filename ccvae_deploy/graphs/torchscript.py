"""Graphs of a TorchScript bundle. The only room of the runtime that imports torch, and only when it is used.

TorchScript is deprecated since torch 2.5 and warns on every call; the warnings are silenced here and nowhere else.
"""

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, ProviderError, one_line

if TYPE_CHECKING:
    import torch

Arrays = tuple[NDArray[np.float32], ...]


def torchscript_device(requested: str, threads: int = 0) -> tuple["torch.device", str]:
    """The device for a provider name, and one line that says what was taken.

    Args:
        threads: of every graph run on the CPU, for the rest of the process; 0 leaves it to torch.

    Raises:
        BundleError: torch is not installed.
        ProviderError: a GPU was asked for and torch has none.
    """
    try:
        import torch
    except ImportError as error:
        raise BundleError(
            "a TorchScript bundle needs torch, which is not installed: pip install 'ccvae-deploy[train]', "
            "or use an ONNX bundle"
        ) from error
    if requested in ("cuda", "tensorrt") and not torch.cuda.is_available():
        raise ProviderError(f"--provider {requested}: torch finds no CUDA device; use --provider cpu")
    if requested == "tensorrt":
        raise ProviderError("--provider tensorrt: a TorchScript bundle runs on cpu or cuda")
    if requested != "cpu" and torch.cuda.is_available():
        without_tf32()
        return torch.device("cuda"), f"torch on CUDA ({torch.cuda.get_device_name()})"
    if threads:
        torch.set_num_threads(threads)
    why = "as asked" if requested == "cpu" else "no CUDA device found"
    return torch.device("cpu"), f"torch on CPU ({why})"


def without_tf32() -> None:
    """Let CUDA compute in float32 for the rest of the process: TF32 rounds to 10 bits, enough to move pixels.

    Not around each run, since graphs run in several threads and the switch is one for all.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def load_graph(data: bytes, name: str, device: "torch.device") -> Callable[[NDArray[np.float32]], Arrays]:
    """A TorchScript graph as a function of one array that returns its outputs.

    Raises:
        BundleError: torch cannot load it.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]
        except Exception as error:  # damaged archives raise RuntimeError and others
            raise BundleError(f"{name} is no TorchScript graph: {one_line(error)}; export the bundle again") from error

    def run(array: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            found = module(torch.from_numpy(array).to(device))
        outputs = found if isinstance(found, tuple) else (found,)
        return tuple(output.float().cpu().numpy() for output in outputs)

    return run
