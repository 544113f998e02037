"""A run folder with random weights, as training would leave it."""

import functools
from pathlib import Path

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout, LatentRange
from ccvae_export import card_sheet, quality, run_images
from ccvae_export.export import export_run
from ccvae_train.checkpoint import RunState, save_checkpoint, spec_of
from ccvae_train.config import Family, TrainConfig
from ccvae_train.datasets.portraits import portraits
from ccvae_train.datasets.source import settled
from ccvae_train.families import new_model

LABELS = LabelSet(labels=(Label(name="Smiling"), Label(name="Wearing_Hat", dims=2), Label(name="Young")))
LAYOUT = LatentLayout(blocks=(1, 2, 1), residual=6)


MIXED = LabelSet(
    labels=(Label(name="Smiling"), Label(name="Hair", kind="categorical", classes=("black", "blond", "brown"), dims=2))
)


def write_run(
    folder: Path,
    labels: LabelSet = LABELS,
    layout: LatentLayout = LAYOUT,
    prior: tuple[float, ...] = (0.5, 0.2, 0.7),
    data: str = "portraits",
    family: Family = "ccvae",
) -> Path:
    torch.manual_seed(0)
    image = ImageSpec(size=32)
    model = new_model(family, labels, layout, image)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("classifier."):
                parameter.add_(0.3 * torch.randn_like(parameter))
    config = settled(TrainConfig(model=family, image_size=32, latents=layout.size, likelihood_scale=0.15))
    state = RunState(
        config=config,
        model=spec_of(config),
        labels=labels,
        layout=layout,
        image=image,
        label_prior=prior,
        latent_range=LatentRange(low=(-3.0,) * layout.size, high=(3.0,) * layout.size),
        step=0,
        precision="fp32",
        provenance={"data": data, "validation": {"accuracy": 0.9, "by_label": {"Young": {"accuracy": 0.9}}}},
    )
    folder.mkdir(parents=True)
    save_checkpoint(folder, model, torch.optim.Adam(model.parameters()), state)
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_images():
    """Exports of the suite calibrate on few images and are judged by as few as the gate allows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_images, "CALIBRATION", 64)
        patch.setattr(run_images, "JUDGED", run_images.FEWEST)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_registry():
    """torch builds its table of operators anew for every graph, which is half of the time of an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Every export calibrates on, is judged by and shows the same portraits."""
    drawn = functools.cache(portraits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_images, "portraits", drawn)
        patch.setattr(card_sheet, "portraits", drawn)
        yield


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 32x32 RGB images with three labels, one of two latents."""
    return write_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a binary and a categorical label."""
    layout = LatentLayout(blocks=(1, 2), residual=5)
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    return write_run(folder, MIXED, layout, prior=(0.4, 0.2, 0.5, 0.3), data="table:faces")


@pytest.fixture(scope="session")
def onnx_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX bundle; do not change it."""
    return export_run(made_run, "onnx", tmp_path_factory.mktemp("out") / "bundle").bundle


@pytest.fixture(scope="session")
def fp16_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX bundle in float16; do not change it."""
    return export_run(made_run, "onnx", tmp_path_factory.mktemp("out") / "bundle", precision="fp16").bundle


@pytest.fixture(scope="session")
def int8_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX bundle in 8 bits, whatever the gate says of random weights; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "MEAN_LEVELS", 50.0)
        patch.setattr(quality, "P999_LEVELS", 50.0)
        patch.setattr(quality, "FLIPS", 1.0)
        patch.setattr(quality, "DISAGREEMENT", 1.0)
        patch.setattr(quality, "SPREAD", 9.0)
        return export_run(made_run, "onnx", tmp_path_factory.mktemp("out") / "bundle", precision="int8").bundle


@pytest.fixture(scope="session")
def pt2_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its .pt2 bundle; do not change it."""
    return export_run(made_run, "pt2", tmp_path_factory.mktemp("out") / "bundle").bundle


@pytest.fixture(scope="session")
def torchscript_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its TorchScript bundle; do not change it."""
    return export_run(made_run, "torchscript", tmp_path_factory.mktemp("out") / "bundle").bundle
