"""GPU, cores and folders, each state simulated."""

import os
from pathlib import Path

import pytest

from ccvae_deploy.machine import resources as machine
from ccvae_deploy.machine.resources import cgroup_quota, check_cpu, check_folders, check_gpu, check_threads, gpu_files
from ccvae_deploy.storage.places import cache_root

CUDA = {"providers": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], "cuda": "13.0"}
CPU = {"providers": ["CPUExecutionProvider"], "cuda": ""}
TORCH = {"cuda": "13.0", "cuda_works": True}


def answering(**answers: str):
    """Sessions that run, or fail with the given reason."""

    def ask(question: str, provider: str):
        assert question == "session"
        return {"error": answers[provider]} if provider in answers else {"running": provider}

    return ask


def statuses(findings) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}


def test_a_session_on_the_cpu_is_what_editing_needs() -> None:
    assert check_cpu(answering()).status == "ok"
    broken = check_cpu(answering(cpu="ImportError: numpy"))
    assert (broken.status, broken.seen) == ("fault", "no session starts: ImportError: numpy")


def test_a_gpu_on_which_sessions_start() -> None:
    found = check_gpu(answering(), CUDA, TORCH, 1)
    assert statuses(found) == {"CUDA": "ok", "TensorRT": "ok"}


def test_a_gpu_on_which_no_session_starts_is_a_fault() -> None:
    found = check_gpu(answering(cuda="libcudnn.so.9 missing", tensorrt="libnvinfer missing"), CUDA, TORCH, 1)
    assert statuses(found) == {"CUDA": "fault", "TensorRT": "note"}
    assert "libcudnn.so.9 missing" in found[0].seen
    assert found[0].remedy.startswith("pip install 'onnxruntime-gpu[cuda,cudnn]' for the libraries of CUDA 13")


def test_a_gpu_and_a_runtime_without_cuda_is_a_fault() -> None:
    (found,) = check_gpu(answering(), CPU, {}, 2)
    assert (found.status, found.remedy) == ("fault", "pip uninstall -y onnxruntime; pip install onnxruntime-gpu")


def test_a_gpu_and_a_broken_runtime_is_a_fault() -> None:
    (found,) = check_gpu(answering(), {"error": "hollow"}, {}, 1)
    assert (found.status, found.seen) == ("fault", "1 CUDA device(s), but onnxruntime does not work")


@pytest.mark.parametrize(("cuda", "status"), [("13.0", "fault"), ("", "warn")])
def test_a_gpu_that_torch_cannot_use(cuda: str, status: str) -> None:
    found = check_gpu(answering(), CUDA, {"cuda": cuda, "cuda_works": False}, 1)
    assert statuses(found)["torch on GPU"] == status
    assert "torch on GPU" not in statuses(check_gpu(answering(), CUDA, {"error": "broken"}, 1))


def test_no_gpu_is_a_note_but_one_without_a_driver_a_fault(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "gpu_files", lambda: [])
    assert statuses(check_gpu(answering(), CUDA, {}, 0)) == {"GPU": "note"}
    monkeypatch.setattr(machine, "gpu_files", lambda: [Path("/dev/nvidia0")])
    assert statuses(check_gpu(answering(), CUDA, {}, 0)) == {"GPU": "fault"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (hidden,) = check_gpu(answering(), CUDA, {}, 0)
    assert (hidden.status, hidden.seen) == ("note", "hidden by CUDA_VISIBLE_DEVICES=''; the CPU is used")
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    assert gpu_files(tmp_path) == [tmp_path / "dev" / "nvidia0"]


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/../x\n", {}, None),
        ("4:cpu,cpuacct:/d\n0::/\n", {"cpu/d/cpu.cfs_quota_us": "200000", "cpu/d/cpu.cfs_period_us": "100000"}, 2.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "many", "cpu/cpu.cfs_period_us": "0"}, None),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert cgroup_quota(tmp_path / "membership", tmp_path / "fs") == quota
    assert cgroup_quota(tmp_path / "absent", tmp_path / "fs") is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 16), (2.5, 3), (0.5, 1), (64.0, 16)])
def test_cores_are_those_of_affinity_and_quota(monkeypatch, quota, cores) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "cgroup_quota", lambda: quota)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert machine.usable_cores() == cores
    told = "" if quota is None else f", a quota of {quota:g}"
    assert check_threads().seen == f"{cores} of 64 cores, OMP_NUM_THREADS=4{told}"


def test_folders_are_written_to_and_left_as_they_were(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "not" / "yet"))
    found = {finding.check: finding for finding in check_folders()}
    assert statuses(found.values()) == {"current folder": "ok", "cache": "ok", "temporary folder": "ok"}
    assert str(tmp_path / "not" / "yet") in found["cache"].seen
    assert not any(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_a_warning(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(machine, "LITTLE", 1 << 80)
    found = {finding.check: finding for finding in check_folders()}
    assert "cannot be written" in found["cache"].seen
    assert found["cache"].remedy == "set CCVAE_CACHE to a folder of yours"
    assert found["current folder"].remedy.startswith("make room")
    assert {finding.status for finding in found.values()} == {"warn"}


def test_a_current_folder_that_is_gone_is_a_warning(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: (_ for _ in ()).throw(FileNotFoundError("gone")))
    found = {finding.check: finding for finding in check_folders()}
    assert found["current folder"].status == "warn"


def test_where_the_cache_lies(monkeypatch) -> None:
    monkeypatch.delenv("CCVAE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/ccvae-deploy")
    monkeypatch.setenv("CCVAE_CACHE", "/y")
    assert cache_root() == Path("/y")
