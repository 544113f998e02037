"""Providers: what is asked is what runs, or one line says why not."""

import os
import shutil
from pathlib import Path

import onnxruntime
import pytest

from ccvae_deploy import bundle, providers
from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.errors import ProviderError, UsageError
from ccvae_deploy.providers import choose_provider, cuda_devices, make_session

GOLDEN = Path(__file__).parents[1] / "golden"
no_cuda = pytest.mark.skipif(cuda_devices() > 0, reason="a CUDA device is here")


def test_cpu_is_what_runs(graphs, monkeypatch) -> None:
    monkeypatch.delattr(providers, "cuda_devices")  # asking starts the driver, which may hang
    choice = choose_provider("cpu")
    assert make_session(graphs["classifier"], choice, 1).get_providers() == ["CPUExecutionProvider"]


@no_cuda
def test_auto_says_that_it_took_the_cpu_and_why() -> None:
    choice = choose_provider("auto")
    assert choice.name == "CPUExecutionProvider"
    assert choice.note.startswith("CPU (")


@no_cuda
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(ProviderError, match=f"--provider {name}: .*--provider cpu") as caught:
        choose_provider(name)
    assert caught.value.exit_code == 2


@no_cuda
def test_a_provider_that_cannot_start_is_an_error_and_no_fall_back(monkeypatch, graphs, capfd) -> None:
    """As on a machine whose driver sees a GPU that onnxruntime cannot use."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built without CUDA")
    monkeypatch.setattr(providers, "cuda_devices", lambda: 1)
    choice = choose_provider("auto")
    assert choice.name == "CUDAExecutionProvider"
    with pytest.raises(ProviderError, match="use --provider cpu"):
        make_session(graphs["classifier"], choice, 1)
    assert capfd.readouterr().out == ""


class Recorded:
    """Stands for a session on a GPU, of which it says what it was asked for."""

    def __init__(self, graph, options, *, providers, enable_fallback) -> None:
        self.asked, self.enable_fallback = providers, enable_fallback
        self.alone = options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"

    def get_providers(self) -> list[str]:
        return [one if isinstance(one, str) else one[0] for one in self.asked]


@pytest.mark.parametrize("alone", [True, False])
def test_a_gpu_computes_in_full_precision_and_takes_the_same_way_each_time(alone: bool, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(
        onnxruntime.SessionOptions, "get_session_config_entry", entry_or_nothing(onnxruntime.SessionOptions)
    )
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    session = make_session(b"", providers.Choice("CUDAExecutionProvider", ""), 1, alone=alone)
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert session.asked == [("CUDAExecutionProvider", options), *([] if alone else ["CPUExecutionProvider"])]
    assert (session.alone, session.enable_fallback) == (alone, 0)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    make_session(b"", providers.Choice("TensorrtExecutionProvider", ""), 1, alone=alone)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def entry_or_nothing(options):
    """`get_session_config_entry` fails where nothing was set."""
    get = options.get_session_config_entry

    def entry(self, name: str) -> str:
        try:
            return get(self, name)
        except RuntimeError:
            return ""

    return entry


@no_cuda
def test_eight_bits_run_on_the_cpu_where_a_gpu_is_there(monkeypatch) -> None:
    monkeypatch.setattr(bundle, "choose_provider", lambda word: providers.Choice("CUDAExecutionProvider", word))
    opened = open_bundle(GOLDEN / "v1-onnx-int8")
    assert opened.runs_on == "CPUExecutionProvider: CPU (8-bit graphs run there only)"
    with pytest.raises(ProviderError, match=r"--provider cuda: .* holds 8-bit graphs, which run on the CPU only"):
        open_bundle(GOLDEN / "v1-onnx-int8", provider="cuda")


def test_a_bundle_of_code_takes_no_unknown_provider_either() -> None:
    with pytest.raises(UsageError, match="did you mean cuda"):
        open_bundle(GOLDEN / "v1-torchscript-fp32", provider="cdua", allow_torchscript=True)


def test_a_bundle_is_found_where_links_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    shutil.copytree(tiny_bundle, tmp_path / "runs" / "one" / "bundle-onnx")
    (tmp_path / "runs" / "latest").write_text("one\n")
    assert open_bundle(tmp_path / "runs" / "latest" / "bundle-onnx").digest == open_bundle(tiny_bundle).digest


def test_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean cuda"):
        choose_provider("cudo")
    with pytest.raises(UsageError, match="did you mean cuda"):
        choose_provider("gpu")
