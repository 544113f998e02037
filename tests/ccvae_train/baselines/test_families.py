"""Every family through the one loop: it learns, goes on to the same bits, and comes back as what it is."""

import csv
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ccvae_deploy.cli import app
from ccvae_deploy.errors import UsageError
from ccvae_train import loop, training
from ccvae_train.baselines.diva import DIVA
from ccvae_train.baselines.m2 import M2
from ccvae_train.baselines.mvae import MVAE
from ccvae_train.baselines.vae_classifier import VAEClassifier
from ccvae_train.checkpoint import load_run, read_checkpoint
from ccvae_train.config import make_config
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.networks import CCVAE
from ccvae_train.training import train

from .. import made_images

FAMILIES = {"vae-classifier": VAEClassifier, "diva": DIVA, "m2": M2, "mvae": MVAE}
SMALL = {"latents": 10, "batch_size": 16, "learning_rate": 3e-3, "device": "cpu", "image_size": 32, "label_weight": 500}


def with_gaps(data: Dataset) -> Dataset:
    """Every label of an image missing on its own, half of the time."""
    labels = data.train.labels.copy()
    labels[np.random.default_rng(0).random(labels.shape) < 0.5] = -1
    return Dataset(
        data.source, data.labels, data.image, Partition(data.train.images, labels), data.valid, data.fingerprint
    )


def train_on(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: with_gaps(data))


@pytest.fixture(autouse=True)
def made_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train_on(made_images.made_data(), monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_learns_from_labels_with_gaps_and_is_restored(family: str) -> None:
    run = load_run(train(SMALL | {"model": family, "epochs": 3, "supervision": 0.7, "flip": False}).run)
    assert type(run.model) is FAMILIES[family]
    assert run.spec.family == run.provenance["model"] == family
    figures = run.provenance["validation"]
    assert figures["accuracy"] > (0.65 if family == "mvae" else 0.9)
    assert figures["l1"] < 0.13
    assert ("weight_mean" in figures) == (family == "diva")
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    with Image.open(run.path / "grids" / "epoch-0003.png") as grid:
        assert grid.height == (2 + 2 + 3) * 34 + 2
    assert 500 in run.provenance["choices"].values()
    assert len(run.latent_range.low) == 10


@pytest.mark.parametrize("family", FAMILIES)
def test_resumes_to_the_same_bits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on(made_images.made_data(train=128), monkeypatch)
    settings = SMALL | {"model": family, "epochs": 2, "batch_size": 32, "supervision": 0.5, "flip": True}
    whole = train(settings, out=Path("whole")).run
    step = loop.one_step

    def stop_in_the_second_epoch(fit, rows):
        step(fit, rows)
        if fit.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "one_step", stop_in_the_second_epoch)
    assert not train(settings, out=Path("part")).finished
    monkeypatch.setattr(loop, "one_step", step)
    assert train({}, out=Path("part"), resume=True).finished
    first, second = (read_checkpoint(run)[1] for run in (whole, Path("part")))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_from_before_there_were_families_still_loads() -> None:
    run = train(SMALL | {"epochs": 1, "batch_size": 128}).run
    state, _ = read_checkpoint(run)
    old = state.model_dump(mode="json")
    del old["config"]["model"], old["provenance"]["model"]
    assert type(state).model_validate(old).config == state.config
    assert type(load_run(run).model) is CCVAE
    assert "choices" not in state.provenance


def test_the_command_says_what_comes_next_and_refuses_what_does_not_fit() -> None:
    options = ["--epochs", "1", "--batch-size", "128", "--latents", "10", "--image-size", "32", "--device", "cpu"]
    result = CliRunner().invoke(app, ["train", "--model", "m2", *options])
    assert result.exit_code == 0, result.output
    assert "next: ccvae-deploy evaluate" in result.stdout
    result = CliRunner().invoke(app, ["train", "--model", "diva", *options])
    assert "next: ccvae-deploy export --format onnx" in result.stdout
    with pytest.raises(UsageError, match="--model m2 has no other estimator"):
        make_config({"model": "m2", "estimator": "paper"})
    with pytest.raises(UsageError, match="--model 'vae'"):
        make_config({"model": "vae"})
