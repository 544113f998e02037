"""What pip lists against what can be imported: each combination, simulated."""

from importlib.metadata import Distribution
from pathlib import Path

import pytest

from ccvae_deploy.machine import installation
from ccvae_deploy.machine.installation import (
    EXTRAS,
    REQUIRED,
    TRAINING,
    check_cuda_majors,
    check_extras,
    check_onnxruntime,
    check_packages,
    check_training,
    installed,
    modules_to_ask,
)

GPU_BUILD = {"version": "1.31.1", "package": "onnxruntime-gpu", "cuda": "13.0", "providers": []}


@pytest.fixture(autouse=True)
def _on_linux(monkeypatch) -> None:
    monkeypatch.setattr(installation, "_right_runtime", lambda: "onnxruntime-gpu")


def test_distributions_are_listed_by_name_even_beside_damaged_ones(tmp_path: Path, monkeypatch) -> None:
    for name in ("Onnxruntime_GPU", "pillow"):
        folder = tmp_path / f"{name}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (tmp_path / "hurt-1.0.dist-info").mkdir()
    monkeypatch.setattr(installation, "distributions", lambda: Distribution.discover(path=[str(tmp_path)]))
    assert installed() == {"onnxruntime-gpu": "1.2", "pillow": "1.2"}


def test_one_distribution_that_fits_its_module() -> None:
    finding = check_onnxruntime({"onnxruntime-gpu": "1.31.1", "onnxruntime-extensions": "0.1"}, GPU_BUILD)
    assert (finding.status, finding.seen) == ("ok", "onnxruntime-gpu 1.31.1, built for CUDA 13.0")


@pytest.mark.parametrize(
    ("versions", "answer", "status", "seen"),
    [
        (
            {"onnxruntime": "1.30", "onnxruntime-gpu": "1.31.1"},
            GPU_BUILD,
            "warn",
            "onnxruntime 1.30 and onnxruntime-gpu 1.31.1 installed at once",
        ),
        (
            {"onnxruntime": "1.30", "onnxruntime-gpu": "1.31.1"},
            {"error": "an empty folder: /x/onnxruntime"},
            "fault",
            "an empty folder",
        ),
        ({"onnxruntime-gpu": "1.31.1"}, {"error": "a hollow module"}, "fault", "the module does not work: a hollow"),
        (
            {"onnxruntime-gpu": "1.31.1"},
            {**GPU_BUILD, "package": "onnxruntime"},
            "warn",
            "but the module is onnxruntime",
        ),
        ({"onnxruntime-gpu": "1.30.0"}, GPU_BUILD, "warn", "pip lists onnxruntime-gpu 1.30.0, but the module is"),
        ({}, {"error": "ModuleNotFoundError"}, "fault", "no distribution installed"),
    ],
)
def test_the_module_and_its_distributions_disagree(versions, answer, status: str, seen: str) -> None:
    finding = check_onnxruntime(versions, answer)
    assert finding.status == status
    assert seen in finding.seen
    uninstall = f"pip uninstall -y {' '.join(sorted(versions))}; " if versions else ""
    assert finding.remedy == f"{uninstall}pip install onnxruntime-gpu"


def test_a_broken_package_has_its_own_line() -> None:
    versions = dict.fromkeys(REQUIRED.values(), "1.0")
    answers = {module: {"version": "1.0"} for module in REQUIRED}
    assert [finding.status for finding in check_packages(versions, answers)] == ["ok"]
    answers["PIL"] = {"error": "ImportError: libjpeg"}
    whole, broken = check_packages(versions, answers)
    assert "pillow" not in whole.seen
    assert (broken.check, broken.status) == ("pillow", "fault")
    assert broken.seen == "pillow 1.0 is installed but cannot be imported: ImportError: libjpeg"
    assert broken.remedy == "pip install --force-reinstall pillow"


def test_a_package_whose_version_is_gone_is_a_warning() -> None:
    versions = {name: "" if name == "onnx" else "1.0" for name in REQUIRED.values()}
    whole, damaged = check_packages(versions, {module: {"version": "1.0"} for module in REQUIRED})
    assert "onnx" not in whole.seen.replace("onnxruntime", "")
    assert (damaged.check, damaged.status) == ("onnx", "warn")
    assert damaged.remedy == "pip install --force-reinstall onnx"


def test_torch_is_needed_for_training_alone() -> None:
    versions = dict.fromkeys(TRAINING.values(), "2.0")
    answers: dict[str, dict[str, str]] = {module: {} for module in TRAINING}
    assert check_training(versions, answers).status == "ok"
    absent = check_training({}, {})
    assert (absent.status, absent.remedy) == ("note", "pip install 'ccvae-deploy[train]'")
    without = check_training({name: v for name, v in versions.items() if name != "onnxscript"}, answers)
    assert (without.status, without.seen) == ("note", "torch without onnxscript, which train and export need")
    broken = check_training(versions, {**answers, "torchvision": {"error": "RuntimeError: nms"}})
    assert (broken.check, broken.status) == ("torchvision", "warn")
    assert broken.remedy == "pip install --force-reinstall torch torchvision onnxscript"


@pytest.mark.parametrize(
    ("torch", "runtime", "devices", "status", "remedy"),
    [
        ("13.0", "13.0", 1, "ok", None),
        ("12.8", "13.0", 1, "warn", "install a torch that is built for CUDA 13"),
        ("13.0", "12.8", 1, "warn", "install a torch that is built for CUDA 12"),
        ("12.8", "13.0", 0, "note", "install a torch that is built for CUDA 13"),
    ],
)
def test_cuda_majors_must_agree(torch: str, runtime: str, devices: int, status: str, remedy: str | None) -> None:
    (finding,) = check_cuda_majors({"torch": {"cuda": torch}, "onnxruntime": {"cuda": runtime}}, devices)
    assert (finding.status, finding.remedy) == (status, remedy)
    assert torch in finding.seen
    assert runtime in finding.seen


@pytest.mark.parametrize(
    "answers", [{}, {"torch": {"cuda": ""}}, {"torch": {"error": "x"}, "onnxruntime": {"cuda": "13"}}]
)
def test_one_cuda_version_alone_is_no_finding(answers) -> None:
    assert check_cuda_majors(answers, 1) == []


def test_extras_are_absent_broken_or_there() -> None:
    versions = {"fsspec": "2026.9", "ray": "2.60"}
    answers = {"fsspec": {}, "ray": {"error": "ImportError: no"}}
    found = {finding.check: finding for finding in check_extras(versions, answers)}
    assert set(found) == {f"extra {name}" for name in EXTRAS}
    assert (found["extra remote"].status, found["extra remote"].seen) == ("ok", "fsspec 2026.9")
    assert (found["extra ray"].status, found["extra heif"].status) == ("warn", "note")
    assert found["extra heif"].remedy == "pip install 'ccvae-deploy[heif]'"


def test_what_is_not_installed_is_not_imported() -> None:
    assert modules_to_ask({}) == [*REQUIRED, "onnxruntime"]
    assert modules_to_ask({"pillow-heif": "1", "torch": "2"})[-2:] == ["torch", "pillow_heif"]
