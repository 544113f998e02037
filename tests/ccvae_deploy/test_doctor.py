"""`doctor`: each fault is found, named with its remedy, and never kills the command that looks for it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ccvae_deploy
from ccvae_deploy.cli import app
from ccvae_deploy.doctor import diagnose
from ccvae_deploy.machine import probe
from ccvae_deploy.machine.finding import Diagnosis, Finding
from ccvae_deploy.machine.installation import REQUIRED, RUNTIMES

ROOT = Path(ccvae_deploy.__file__).parent.parent

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise {error}
sys.meta_path.insert(0, Block())
"""


def run_doctor(*first_on_path: Path) -> tuple[int, dict[str, dict[str, str]], str]:
    """The command in a process of its own, with folders before all others on the path."""
    path = os.pathsep.join(map(str, (*first_on_path, ROOT)))
    command = [sys.executable, "-P", "-m", "ccvae_deploy.doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    found = json.loads(done.stdout)
    return done.returncode, {finding["check"]: finding for finding in found["findings"]}, done.stderr


def blocked(folder: Path, names: set[str], error: str = "ModuleNotFoundError(f'No module named {name!r}')") -> Path:
    """A folder that makes modules unimportable, as if they were not there."""
    (folder / "sitecustomize.py").write_text(BLOCK.format(names=names, error=error))
    return folder


def test_this_machine_is_healthy_and_json_says_the_same(monkeypatch) -> None:
    # importing what is optional is slow and asserted elsewhere
    monkeypatch.setattr("ccvae_deploy.doctor.modules_to_ask", lambda _: [*REQUIRED, "onnxruntime"])
    versions = dict.fromkeys(REQUIRED.values(), "1.0") | {"onnxruntime-gpu": __import__("onnxruntime").__version__}
    monkeypatch.setattr("ccvae_deploy.doctor.installed", lambda: versions)
    monkeypatch.setattr("ccvae_deploy.doctor.diagnose", functools.cache(diagnose))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    assert "a session ran on CPUExecutionProvider" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["healthy"] is True
    assert {finding["check"] for finding in found["findings"]} >= {
        "python",
        "packages",
        "onnxruntime",
        "CPU",
        "threads",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "hollow module without InferenceSession"),
        ("raise RuntimeError('cublas is not there')", "RuntimeError: cublas is not there"),
        ("raise SystemExit(3)", "ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ],
)
def test_a_broken_runtime_is_a_fault_and_kills_nothing(tmp_path: Path, content: str, reason: str) -> None:
    blocked(tmp_path, {"torch", "torchvision", "onnxscript", "fsspec"})
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    code, found, stderr = run_doctor(tmp_path)
    assert code == 1
    assert stderr == ""
    assert found["onnxruntime"]["status"] == "fault"
    assert reason in found["onnxruntime"]["seen"]
    assert "pip install onnxruntime" in found["onnxruntime"]["remedy"]
    assert found["CPU"]["status"] == "fault"


def test_without_torch_the_machine_is_healthy(tmp_path: Path) -> None:
    blocked(tmp_path, {"torch", "torchvision", "onnxscript", "fsspec"})
    code, found, _ = run_doctor(tmp_path)
    assert code == 0
    assert found["torch"]["status"] in ("note", "warn")
    assert found["CPU"]["seen"] == "a session ran on CPUExecutionProvider"


def test_it_runs_where_no_package_of_anyone_can_be_imported(tmp_path: Path) -> None:
    names = {*REQUIRED, "onnxruntime", "torch", "torchvision", "onnxscript", "fsspec"}
    code, found, stderr = run_doctor(blocked(tmp_path, names, "ImportError('broken ABI')"))
    assert code == 1
    assert stderr == ""
    for name in REQUIRED.values():
        assert found[name]["status"] == "fault"
        assert "broken ABI" in found[name]["seen"]
        assert found[name]["remedy"] == f"pip install --force-reinstall {name}"


def test_a_child_that_hangs_is_given_up() -> None:
    assert probe.ask("import", "this_is_no_module")["error"].startswith("ModuleNotFoundError")
    assert probe.ask("import", "json", timeout=0.001) == {"error": "no answer within 0.001 s"}


def test_what_a_working_runtime_says_of_itself() -> None:
    import onnxruntime

    found = probe.ask("import", "onnxruntime")
    assert found["version"] == onnxruntime.__version__
    assert found["package"] in RUNTIMES
    assert "CPUExecutionProvider" in found["providers"]
    assert probe.ask("session", "cpu") == {"running": "CPUExecutionProvider"}
    assert set(probe.ask("devices")) == {"devices"}


def test_the_probe_ignores_files_of_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not numpy')")
    monkeypatch.chdir(tmp_path)
    assert "error" not in probe.ask("import", "numpy")


def test_the_tiny_graph_is_what_onnx_writes() -> None:
    from onnx import TensorProto, checker, helper, load_model_from_string

    shapes = {"x": ["N", 1, 2, 2], "y": ["N", 1]}
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [
        helper.make_tensor("k", TensorProto.FLOAT, (1, 1, 2, 2), [1.0] * 4),
        helper.make_tensor("w", TensorProto.FLOAT, (1, 1), [2.0]),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "tiny", value[:1], value[1:], weights)
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert load_model_from_string(probe.TINY_GRAPH) == expected
    checker.check_model(expected)


def test_only_faults_make_it_unhealthy() -> None:
    findings = [Finding("a", "ok", "x"), Finding("b", "note", "x"), Finding("c", "warn", "x", "do this")]
    assert Diagnosis(findings).healthy
    assert Diagnosis(findings).text().endswith("editing works on this machine")
    broken = Diagnosis([*findings, Finding("GPU", "fault", "bad \x1b[31m\nword " * 30, "do that")])
    assert not broken.healthy
    assert broken.text().endswith("broken: GPU")
    assert "\x1b" not in broken.text()
    assert "do that" in " ".join(broken.text().split())
    assert max(map(len, broken.text().splitlines())) <= 80


def test_diagnose_is_what_the_command_prints(monkeypatch) -> None:
    monkeypatch.setattr("ccvae_deploy.doctor.diagnose", lambda: Diagnosis([Finding("CPU", "fault", "dead", "revive")]))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.stdout.startswith("fault  CPU                dead -> revive\n")
