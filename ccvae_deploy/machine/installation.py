"""Is what is installed whole? Python packages, onnxruntime's distributions, the extras. Standard library only.

Module and distribution are two things: pip may list one whose module another has overwritten or emptied.
"""

import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import distributions
from typing import Any

from .. import __version__
from .finding import Finding

Answers = Mapping[str, Mapping[str, Any]]
"""Per module what its import gave, see `probe`."""

REQUIRED = {
    "numpy": "numpy",
    "PIL": "pillow",
    "onnx": "onnx",
    "pydantic": "pydantic",
    "rich": "rich",
    "safetensors": "safetensors",
    "typer": "typer",
}
"""Module to distribution of what every edit needs, onnxruntime aside."""

TRAINING = {"torch": "torch", "torchvision": "torchvision", "onnxscript": "onnxscript"}

EXTRAS = {
    "heif": ("pillow_heif", "pillow-heif", "HEIC images"),
    "tensorboard": ("tensorboard", "tensorboard", "training curves in TensorBoard"),
    "ray": ("ray", "ray", "many machines"),
    "remote": ("fsspec", "fsspec", "remote folders"),
    "gp": ("gpytorch", "gpytorch", "the Gaussian-process protocol"),
    "fid": ("torch_fidelity", "torch-fidelity", "the Inception protocol"),
}
"""Extra to module, distribution and purpose."""

RUNTIMES = frozenset(
    f"onnxruntime{build}"
    for build in ("", "-gpu", "-directml", "-openvino", "-qnn", "-rocm", "-migraphx", "-training", "-silicon", "-cann")
)
"""Distributions that all write the one module `onnxruntime`."""


def installed() -> dict[str, str]:
    """Version per distribution name, as pip lists them."""
    found = {}
    for one in distributions():
        # a damaged dist-info folder has no name
        name = one.metadata["Name"] if one.metadata else None
        if name:
            found[name.lower().replace("_", "-")] = one.version
    return found


def modules_to_ask(versions: Mapping[str, str]) -> list[str]:
    """Modules worth importing: what is required, and what else is installed."""
    optional = TRAINING | {module: name for module, name, _ in EXTRAS.values()}
    return [*REQUIRED, "onnxruntime", *(module for module, name in optional.items() if name in versions)]


def check_python() -> Finding:
    """The interpreter and this package."""
    found = f"Python {platform.python_version()}, ccvae-deploy {__version__}"
    if (3, 11) <= sys.version_info < (3, 14):
        return Finding("python", "ok", f"{found}, {platform.system()} {platform.machine()}")
    return Finding("python", "warn", f"{found}; expected Python 3.11 to 3.13", "make an environment with one of those")


def check_packages(versions: Mapping[str, str], answers: Answers) -> list[Finding]:
    """What every edit needs: one line where all is well, one per package that is broken."""
    broken = [
        Finding(name, "fault", _missing(name, versions, error), f"pip install --force-reinstall {name}")
        for module, name in REQUIRED.items()
        if (error := answers[module].get("error"))
    ]
    working = [name for module, name in REQUIRED.items() if "error" not in answers[module]]
    nameless = "pip knows no version of it, its installation is damaged"
    broken += [
        Finding(name, "warn", nameless, f"pip install --force-reinstall {name}")
        for name in working
        if not versions.get(name)
    ]
    whole = [f"{name} {versions[name]}" for name in working if versions.get(name)]
    return [Finding("packages", "ok", ", ".join(whole)), *broken] if whole else broken


def check_onnxruntime(versions: Mapping[str, str], answer: Mapping[str, Any]) -> Finding:
    """The runtime's distributions against the module that they share."""
    names = sorted(RUNTIMES & versions.keys())
    pip = " and ".join(f"{name} {versions[name]}" for name in names) or "no distribution"
    again = f"pip uninstall -y {' '.join(names)}; pip install {_right_runtime()}".removeprefix("pip uninstall -y ; ")
    if error := answer.get("error"):
        return Finding("onnxruntime", "fault", f"{pip} installed, but the module does not work: {error}", again)
    seen = f"{answer['package'] or 'onnxruntime'} {answer['version']}"
    if len(names) > 1:
        text = f"{pip} installed at once: both write one module, now {seen}; removing either empties it"
        return Finding("onnxruntime", "warn", text, again)
    if names and (versions[names[0]] != answer["version"] or answer["package"] not in ("", names[0])):
        return Finding("onnxruntime", "warn", f"pip lists {pip}, but the module is {seen}", again)
    cuda = f", built for CUDA {answer['cuda']}" if answer["cuda"] else ", built without CUDA"
    return Finding("onnxruntime", "ok", seen + cuda)


def check_training(versions: Mapping[str, str], answers: Answers) -> Finding:
    """torch and what export needs; editing needs none of it."""
    remedy = "pip install 'ccvae-deploy[train]'"
    if "torch" not in versions and "torch" not in answers:
        return Finding("torch", "note", "not installed; training, export, evaluation and TorchScript need it", remedy)
    for module, name in TRAINING.items():
        if error := answers.get(module, {}).get("error"):
            text = f"{_missing(name, versions, error)}; train and export will fail"
            return Finding(name, "warn", text, f"pip install --force-reinstall {' '.join(TRAINING.values())}")
    missing = [name for name in TRAINING.values() if name not in versions]
    if missing:
        return Finding("torch", "note", f"torch without {', '.join(missing)}, which train and export need", remedy)
    return Finding("torch", "ok", ", ".join(f"{name} {versions[name]}" for name in TRAINING.values()))


def check_cuda_majors(answers: Answers, devices: int) -> list[Finding]:
    """torch and onnxruntime load CUDA libraries into one process: their major versions must agree."""
    torch, runtime = (str(answers.get(name, {}).get("cuda") or "") for name in ("torch", "onnxruntime"))
    if not torch or not runtime:
        return []
    seen = f"torch is built for {torch}, onnxruntime for {runtime}"
    if torch.split(".")[0] == runtime.split(".")[0]:
        return [Finding("CUDA versions", "ok", seen)]
    remedy = f"install a torch that is built for CUDA {runtime.split('.')[0]}"
    return [Finding("CUDA versions", "warn" if devices else "note", seen, remedy)]


def check_extras(versions: Mapping[str, str], answers: Answers) -> Iterable[Finding]:
    """What is optional: absent is a note, broken a warning."""
    for extra, (module, name, purpose) in EXTRAS.items():
        remedy = f"pip install 'ccvae-deploy[{extra}]'"
        if name not in versions:
            yield Finding(f"extra {extra}", "note", f"absent; it is for {purpose}", remedy)
        elif error := answers[module].get("error"):
            yield Finding(f"extra {extra}", "warn", _missing(name, versions, error), f"{remedy} --force-reinstall")
        else:
            yield Finding(f"extra {extra}", "ok", f"{name} {versions[name]}")


def ask_all(modules: Iterable[str], ask: Callable[..., dict[str, Any]], workers: int) -> dict[str, dict[str, Any]]:
    """Import every module in a process of its own, some at a time."""
    from concurrent.futures import ThreadPoolExecutor

    names = list(modules)
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(names, pool.map(lambda name: ask("import", name), names), strict=True))


def _missing(name: str, versions: Mapping[str, str], error: str) -> str:
    listed = f"{name} {versions[name]} is installed but" if name in versions else f"{name}"
    return f"{listed} cannot be imported: {error}"


def _right_runtime() -> str:
    """The distribution that our own requirements name for this platform."""
    gpu = sys.platform in ("linux", "win32") and platform.machine() in ("x86_64", "AMD64")
    return "onnxruntime-gpu" if gpu else "onnxruntime"
