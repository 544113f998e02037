"""Where and in which number format training runs: choose, check, and say so."""

import contextlib
import ctypes
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ccvae_deploy.errors import ProviderError, UsageError, nearest

DEVICES = ("auto", "cpu", "cuda")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of `mallopt` in glibc's malloc.h; 32 MiB is the largest value that the second takes."""


@dataclass(frozen=True)
class Device:
    """A device that really is there.

    Attributes:
        precision: `bf16` runs the networks under autocast; the objective is float32 always.
        note: one line for people: what was taken and why.
    """

    torch_device: torch.device
    precision: str
    note: str

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the networks run."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, torch.bfloat16)

    def generator(self, *key: int) -> torch.Generator:
        """A generator whose noise is a function of `key` alone, so that training resumes without stored state."""
        mixed = 0
        for part in key:
            mixed = (mixed * 6_364_136_223_846_793_005 + part + 1_442_695_040_888_963_407) % 2**63
        return torch.Generator(self.torch_device).manual_seed(mixed)


def choose_device(requested: str, precision: str | None = None) -> Device:
    """The device asked for.

    Args:
        requested: `auto`, `cpu` or `cuda`.
        precision: `bf16` or `fp32`, to go on as a run began; None takes bf16 where the device computes in it.

    Raises:
        UsageError: another word.
        ProviderError: `cuda` was asked for and no CUDA device can be used.
    """
    if requested not in DEVICES:
        raise UsageError(f"--device {requested}: {nearest(requested, DEVICES)}")
    if requested != "cpu" and torch.cuda.is_available():
        index = torch.cuda.current_device()
        name = torch.cuda.get_device_name(index)
        # some images of CUDA turn it on for all; Muon's iteration does not bear it
        torch.backends.cuda.matmul.allow_tf32 = False
        chosen = precision or ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
        return Device(torch.device("cuda", index), chosen, f"cuda: {name}, {chosen}")
    if requested == "cuda":
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else (f"torch {torch.__version__} is built without CUDA")
        )
        raise ProviderError(f"--device cuda: no usable CUDA device ({built}); check the driver, or use --device cpu")
    why = "" if requested == "cpu" else " (no CUDA device found)"
    chosen = precision or ("bf16" if _cpu_computes_bf16() else "fp32")
    return Device(torch.device("cpu"), chosen, f"cpu: {torch.get_num_threads()} threads, {chosen}{why}")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory that it asked for; only its own allocator on a GPU has an error for it."""
    told = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def keep_freed_memory(device: Device) -> None:
    """Let the C library keep what tensors free, for as long as the process lives.

    glibc gives blocks of this size back to the system at once, and each step of training on the CPU then pays for the
    same pages anew: a twelfth of its time. Elsewhere nothing is done.
    """
    if device.torch_device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_THRESHOLD, 32 << 20)):
            mallopt(parameter, value)


def _cpu_computes_bf16() -> bool:
    """Whether the processor has bf16 arithmetic; emulated bf16 is slower than fp32."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
