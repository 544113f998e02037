"""Execution providers of onnxruntime: choose one, make a session of it, and tell the truth about what runs.

onnxruntime lists providers it cannot start and falls back to the CPU in silence; so a CUDA device is looked for first,
and what is reported is read from the session.
"""

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import BundleError, ProviderError, UsageError, nearest, one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]

ON_CPU = "CPUExecutionProvider"
EXECUTION_PROVIDERS = {
    "cpu": ON_CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class Choice:
    """An execution provider and why it was taken.

    Attributes:
        name: onnxruntime's name of it.
        note: one line for people.
    """

    name: str
    note: str


def choose_provider(requested: str) -> Choice:
    """Settle on a provider before any session is made.

    Raises:
        UsageError: `requested` is none of auto, cpu, cuda, tensorrt.
        ProviderError: it was asked for and its library or its device is not there.
    """
    import onnxruntime

    refuse_provider(requested)
    if requested == "cpu":
        return Choice(ON_CPU, "CPU, as asked")
    built = onnxruntime.get_available_providers()
    if requested == "auto":
        if "CUDAExecutionProvider" not in built:
            return Choice(ON_CPU, "CPU (this onnxruntime is built without CUDA)")
        if not (devices := cuda_devices()):
            return Choice(ON_CPU, "CPU (no CUDA device found)")
        return Choice("CUDAExecutionProvider", f"CUDA ({devices} device{'s' * (devices > 1)} found)")
    wanted = EXECUTION_PROVIDERS[requested]
    if wanted not in built:
        raise ProviderError(
            f"--provider {requested}: this onnxruntime ({onnxruntime.__version__}) is built without it; "
            "install onnxruntime-gpu and remove onnxruntime, or use --provider cpu"
        )
    if not cuda_devices():
        raise ProviderError(
            f"--provider {requested}: no CUDA device found; check the driver with nvidia-smi, or use --provider cpu"
        )
    return Choice(wanted, f"{requested.upper()}, as asked")


def refuse_provider(requested: str) -> None:
    """Refuse a word that names no provider.

    Raises:
        UsageError: it does not.
    """
    if requested not in get_args(Provider):
        meant = "cuda" if str(requested).lower() == "gpu" else requested
        raise UsageError(f"--provider {requested!r}: {nearest(meant, get_args(Provider))}")


def make_session(graph: bytes, choice: Choice, threads: int, *, alone: bool = True) -> "InferenceSession":
    """A session that runs on the chosen provider.

    Args:
        threads: threads of one graph run; 0 leaves it to onnxruntime.
        alone: on no other provider; else a GPU leaves to the CPU what it cannot do, as the shapes inside a stranger's
            graph.

    Raises:
        ProviderError: the provider cannot be started.
        BundleError: onnxruntime refuses the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # else onnxruntime takes bytes that begin like its own format for such, whatever was vetted
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # idle threads would spin on the cores that read, composite and save: half of the machine, measured
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [choice.name]
    on_gpu = choice.name != ON_CPU
    if on_gpu:
        # TF32 rounds to 10 bits of mantissa: enough to move pixels
        if choice.name == "CUDAExecutionProvider":
            # an algorithm that is picked by a race may be another in the next run
            providers = [(choice.name, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})]
        else:
            # TensorRT hears of it only so, and with it whatever else this process computes on the GPU
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        if alone:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        else:
            providers.append(ON_CPU)
    try:
        with _muted_stdout() if on_gpu else contextlib.nullcontext():
            if on_gpu:
                onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no base but Exception
        reason = one_line(error)
        if on_gpu:
            raise ProviderError(
                f"{choice.name} cannot be started: {reason}; `ccvae-deploy doctor` says what is missing, or use "
                "--provider cpu"
            ) from error
        raise BundleError(f"onnxruntime refuses the graph: {reason}; export the bundle again") from error
    if session.get_providers()[0] != choice.name:
        raise ProviderError(
            f"{choice.name} was asked for, {session.get_providers()[0]} was started; use --provider cpu"
        )
    return session


def cuda_devices() -> int:
    """How many CUDA devices the driver sees; 0 without a driver. Makes no context."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


@contextlib.contextmanager
def _muted_stdout() -> Iterator[None]:
    """onnxruntime prints what it cannot load, from Python and from C++; the error that follows says it in one line."""
    sys.stdout.flush()
    silent, kept = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    try:
        os.dup2(silent, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(silent)
