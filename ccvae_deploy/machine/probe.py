"""Questions that are asked in a child process, since what is asked after may raise, print, hang or crash.

Standard library only, but for the child that tries a session. Touches nothing.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
MARK = "ccvae-probe:"
ROOT = Path(__file__).resolve().parents[2]
# -P keeps the current folder off the path: a file of the user's called numpy.py is none of our business
START = (
    "import sys; sys.path.append(sys.argv.pop(1)); from ccvae_deploy.machine.probe import answer; answer(*sys.argv[1:])"
)

# twice the sum of 2x2 pixels by Conv and Gemm, which need more of a GPU's libraries than an addition; ONNX IR 10, opset
# 18: what onnx.helper writes for it, so that a broken onnx hides nothing
TINY_GRAPH = bytes.fromhex(
    "080a3a9f010a0f0a01780a016b1201632204436f6e760a0f0a01631201662207466c617474656e0a0f0a01660a017712"
    "0179220447656d6d120474696e792a1f0801080108020802100122100000803f0000803f0000803f0000803f42016b2a"
    "0f0801080110012204000000404201775a1c0a017812170a15080112110a0312014e0a0208010a0208020a0208026214"
    "0a0179120f0a0d080112090a0312014e0a02080142040a001012"
)


def ask(question: str, *arguments: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Ask a child process; what kept it from answering comes back as `error`."""
    command = [sys.executable, "-P", "-c", START, str(ROOT), question, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:g} s"}
    except OSError as error:
        return {"error": f"{sys.executable} cannot be started: {error}"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    if done.returncode < 0:
        return {"error": f"the process was killed by signal {-done.returncode}"}
    last = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
    return {"error": last[0]}


def answer(question: str, *arguments: str) -> None:
    """The child's side: print one line of JSON behind a mark; everything else it prints is ignored."""
    try:
        found = QUESTIONS[question](*arguments)
    except Exception as error:  # whatever a broken package raises
        found = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    print(f"\n{MARK}{json.dumps(found)}", flush=True)
    # some libraries crash while they are unloaded, which is of no interest
    os._exit(0)


def _import(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    found: dict[str, Any] = {"file": module.__file__, "version": str(getattr(module, "__version__", ""))}
    if module.__file__ is None:
        return {"error": f"an empty folder: {', '.join(map(str, module.__path__))}"}
    if name == "onnxruntime":
        if not hasattr(module, "InferenceSession"):
            return {"error": f"a hollow module without InferenceSession: {module.__file__}"}
        # wheels have it, builds of others need not
        build = sys.modules.get("onnxruntime.capi.build_and_package_info")
        found["package"] = getattr(build, "package_name", "")
        found["cuda"] = getattr(build, "cuda_version", "")
        found["providers"] = module.get_available_providers()
    if name == "torch":
        found["cuda"] = module.version.cuda or ""
        found["cuda_works"] = module.cuda.is_available()
    return found


def _session(provider: str) -> dict[str, Any]:
    """Start a session on a provider as `edit` does, and run it."""
    import numpy as np

    from ..providers import EXECUTION_PROVIDERS, Choice, make_session

    session = make_session(TINY_GRAPH, Choice(EXECUTION_PROVIDERS[provider], ""), 1)
    (found,) = session.run(None, {"x": np.full((1, 1, 2, 2), 1.5, np.float32)})
    if found.tolist() != [[12.0]]:
        return {"error": f"twice the sum of four 1.5 came out as {found.tolist()}"}
    return {"running": session.get_providers()[0]}


def _devices() -> dict[str, Any]:
    from ..providers import cuda_devices

    return {"devices": cuda_devices()}


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {"import": _import, "session": _session, "devices": _devices}
