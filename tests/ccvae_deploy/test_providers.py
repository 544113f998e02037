"""Providers: what is asked is what runs, or one line says why not."""

import onnxruntime
import pytest

from ccvae_deploy import providers
from ccvae_deploy.errors import ProviderError, UsageError
from ccvae_deploy.providers import choose_provider, cuda_devices, make_session

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


def test_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean cuda"):
        choose_provider("cudo")
    with pytest.raises(UsageError, match="did you mean cuda"):
        choose_provider("gpu")
