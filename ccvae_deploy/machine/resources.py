"""What this machine gives: GPU and providers, cores, folders. Writes one temporary file per folder and removes it."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..storage.places import cache_root
from .finding import Finding

LITTLE = 256 << 20
"""Free bytes of a folder below which it is worth a warning."""

Ask = Callable[..., dict[str, Any]]


def check_cpu(ask: Ask) -> Finding:
    """Does a session on the CPU start and compute?"""
    answer = ask("session", "cpu")
    if error := answer.get("error"):
        return Finding("CPU", "fault", f"no session starts: {error}", "see the lines on onnxruntime and numpy")
    return Finding("CPU", "ok", f"a session ran on {answer['running']}")


def check_gpu(ask: Ask, runtime: Mapping[str, Any], torch: Mapping[str, Any], devices: int) -> list[Finding]:
    """Is there a GPU, and does a session start on it? What onnxruntime lists as available proves neither."""
    if not devices:
        return [_no_device()]
    if "error" in runtime:
        return [Finding("GPU", "fault", f"{devices} CUDA device(s), but onnxruntime does not work", "see its line")]
    if "CUDAExecutionProvider" not in runtime.get("providers", ()):
        remedy = "pip uninstall -y onnxruntime; pip install onnxruntime-gpu"
        return [Finding("GPU", "fault", f"{devices} CUDA device(s), but onnxruntime is built without CUDA", remedy)]
    found = [_started(ask, "cuda", runtime)]
    if "TensorrtExecutionProvider" in runtime["providers"]:
        found.append(_started(ask, "tensorrt", runtime))
    if torch and "error" not in torch and not torch["cuda_works"]:
        built = bool(torch["cuda"])
        seen = f"torch is built for CUDA {torch['cuda']} and cannot use it" if built else "torch is built without CUDA"
        remedy = "update the driver or install a torch of its CUDA version" if built else "install a torch with CUDA"
        found.append(Finding("torch on GPU", "fault" if built else "warn", seen, remedy))
    return found


def check_threads() -> Finding:
    """Cores, less what affinity and cgroups take away."""
    cores, allowed, quota = os.cpu_count() or 1, usable_cores(), cgroup_quota()
    seen = f"{allowed} of {cores} cores"
    if threads := os.environ.get("OMP_NUM_THREADS"):
        seen += f", OMP_NUM_THREADS={threads}"
    if quota is not None:
        seen += f", a quota of {quota:g}"
    return Finding("threads", "ok", seen)


def check_folders() -> Iterable[Finding]:
    """The folders that commands write to when they are not told otherwise."""
    places: tuple[tuple[str, Callable[[], Path], str], ...] = (
        ("current folder", Path.cwd, "give --out, or change to a folder of yours"),
        ("cache", cache_root, "set CCVAE_CACHE to a folder of yours"),
        ("temporary folder", lambda: Path(tempfile.gettempdir()), "set TMPDIR to a folder of yours"),
    )
    for name, find, remedy in places:
        try:
            folder = find()
            free = _free(folder)
        except (OSError, RuntimeError) as error:
            # a home that is not known is a RuntimeError
            yield Finding(name, "warn", f"cannot be written: {error}", remedy)
            continue
        seen = f"{folder}, {free / 2**30:,.1f} GiB free"
        yield Finding(name, "ok", seen) if free >= LITTLE else Finding(name, "warn", seen, f"make room, or {remedy}")


def usable_cores() -> int:
    """Cores that this process may run on, less what control groups take away."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that control groups grant, versions 1 and 2; None without a limit."""
    try:
        lines = membership.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            quotas += _quotas(root, path, _version_2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(root / "cpu", path, _version_1)
    return min(quotas, default=None)


def _quotas(root: Path, path: str, read: Callable[[Path], tuple[str, str]]) -> Iterable[float]:
    """The limits of a group and of all above it."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder != root and root not in folder.parents:
            return
        try:
            quota, period = read(folder)
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _version_2(group: Path) -> tuple[str, str]:
    quota, period = (group / "cpu.max").read_text().split()
    return quota, period


def _version_1(group: Path) -> tuple[str, str]:
    return (group / "cpu.cfs_quota_us").read_text().strip(), (group / "cpu.cfs_period_us").read_text().strip()


def _no_device() -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return Finding("GPU", "note", f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}; the CPU is used")
    if gpu_files():
        text = "the system shows an NVIDIA GPU, but its driver finds no CUDA device"
        return Finding("GPU", "fault", text, "check with nvidia-smi; a container needs the GPU and libcuda passed in")
    return Finding("GPU", "note", "no CUDA device; the CPU is used")


def gpu_files(root: Path = Path("/")) -> list[Path]:
    """What Linux shows of NVIDIA GPUs without asking the driver's library."""
    return [*root.glob("dev/nvidia[0-9]*"), *root.glob("proc/driver/nvidia/gpus/*")]


def _started(ask: Ask, provider: str, runtime: Mapping[str, Any]) -> Finding:
    answer = ask("session", provider)
    name = "TensorRT" if provider == "tensorrt" else provider.upper()
    if error := answer.get("error"):
        if provider == "tensorrt":
            return Finding(name, "note", f"does not start: {error}", "--provider cuda needs no TensorRT")
        major = str(runtime.get("cuda") or "").split(".")[0]
        remedy = f"pip install 'onnxruntime-gpu[cuda,cudnn]' for the libraries of CUDA {major}, and check the driver"
        return Finding(name, "fault", f"a CUDA device is here, but no session starts: {error}", remedy)
    return Finding(name, "ok", f"a session ran on {answer['running']}")


def _free(folder: Path) -> int:
    """Free bytes of a folder, or of the nearest one above it that exists, after a file was written there.

    Raises:
        OSError: it cannot be written.
    """
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    with tempfile.TemporaryFile(dir=there):
        return shutil.disk_usage(there).free
