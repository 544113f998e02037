"""The loop on made data: it learns, it resumes to the same bits, it refuses what it cannot do."""

import csv
import ctypes
import math
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccvae_deploy.errors import CCVAEError, ProviderError, RunError, TrainingError, UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train import training
from ccvae_train.checkpoint import load_run, read_checkpoint
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.run_folder import new_run_folder
from ccvae_train.training import train

from .made_bars import SMALL

pytestmark = pytest.mark.usefixtures("made_bars")


def test_learns_and_leaves_what_people_look_at() -> None:
    result = train(SMALL | {"epochs": 6, "supervision": 0.5})
    assert result.finished
    run = load_run(Path("runs/latest"))
    figures = run.provenance["validation"]
    assert figures["accuracy"] > 0.85 > figures["floor"] + 0.3
    assert figures["balanced_accuracy"] > 0.85
    assert figures["weight_mean"] == pytest.approx(1, abs=0.02)
    assert figures["l1"] < 0.08
    assert run.provenance["labelled_images"] == 256
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    with Image.open(run.path / "grids" / "epoch-0006.png") as grid:
        assert grid.height == 5 * 34 + 2  # originals, reconstructions, three interventions
    low, high = run.latent_range.low, run.latent_range.high
    assert all(a < b for a, b in zip(low, high, strict=True))


def test_paper_estimator_trains() -> None:
    run = load_run(train(SMALL | {"epochs": 1, "estimator": "paper", "learning_rate": 3e-4}).run)
    assert run.spec.likelihood_scale == 1.0
    assert math.isfinite(run.provenance["validation"]["l1"])


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from ccvae_train.objective import batch

    def poisoned(image, mean, scale):
        value = likelihood(image, mean, scale)
        return value * float("nan") if fits[0].step == 20 else value

    fits = []
    prepare = training.prepare
    monkeypatch.setattr(training, "prepare", lambda *args: fits.append(prepare(*args)) or fits[0])
    likelihood = batch.laplace_log_likelihood
    monkeypatch.setattr(batch, "laplace_log_likelihood", poisoned)
    with pytest.raises(
        TrainingError, match=r"step 20 \(not finite: reconstruction\); the checkpoint before it stays in runs/"
    ):
        train(SMALL)
    state, tensors = read_checkpoint(Path("runs/latest"))
    assert state.step == 16
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"supervision": 0.0}, UsageError, "--supervision 0.0"),
        ({"supervision": 1.5}, UsageError, "--supervision 1.5"),
        ({"supervision": 1e-9}, UsageError, "shows none"),
        ({"epochs": 0}, UsageError, "--epochs 0"),
        ({"estimator": "papers"}, UsageError, "--estimator 'papers'"),
        ({"latents": 2}, UsageError, "3 labels need 3 latents, 2 given"),
        ({"label_dims": {"brigt": 2}}, CCVAEError, "did you mean bright"),
    ],
)
def test_refuses_before_it_makes_a_folder(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        train(SMALL | settings)
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(ProviderError, match="no usable CUDA device"):
        train(SMALL | {"device": "cuda"})


def test_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(RunError, match="is not empty"):
        train(SMALL, out=Path("mine"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"


def test_a_folder_of_a_run_that_ended_before_its_first_checkpoint_is_taken_again(tmp_path: Path) -> None:
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    (tmp_path / "run" / ".checkpoint.safetensors.123").write_bytes(b"half")
    assert new_run_folder(tmp_path / "run", "made") == tmp_path / "run"
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"whole")
    with pytest.raises(RunError, match="is not empty"):
        new_run_folder(tmp_path / "run", "made")


MIXED = LabelSet(
    labels=(Label(name="bright"), Label(name="tint", kind="categorical", classes=("red", "green", "blue")))
)


@pytest.mark.parametrize(
    ("estimator", "epochs", "dims", "latents", "missing"),
    [("exact", 6, (1, 1), 6, 0.0), ("exact", 6, (2, 3), 5, 0.4), ("paper", 1, (1, 3), 6, 0.4)],
)
def test_labels_of_both_kinds_are_learned(
    monkeypatch: pytest.MonkeyPatch, estimator: str, epochs: int, dims: tuple[int, int], latents: int, missing: float
) -> None:
    """A tint of three classes beside brightness, with values missing, one latent or several, z_s empty or not."""

    def part(count: int, seed: int, missing: float = 0.0) -> Partition:
        rng = np.random.default_rng(seed)
        labels = np.stack([rng.integers(0, 2, count), rng.integers(0, 3, count)], 1).astype(np.int8)
        images = rng.integers(20, 60, (count, 1, 1, 1)) + np.zeros((count, 32, 32, 3))
        images += 110 * labels[:, 0, None, None, None]
        images[np.arange(count), :, :, labels[:, 1]] += 80
        labels[rng.random(labels.shape) < missing] = -1
        return Partition(np.clip(images, 0, 255).astype(np.uint8), labels)

    data = Dataset("made", MIXED, ImageSpec(size=32), part(512, 0, missing), part(128, 1), "e" * 64)
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)
    label_dims = dict(zip(("bright", "tint"), dims, strict=True))
    settings = {"estimator": estimator, "label_dims": label_dims, "latents": latents, "epochs": epochs}
    run = load_run(train(SMALL | settings).run)
    figures = run.provenance["validation"]
    assert tuple(label.dims for label in run.labels.labels) == run.layout.blocks == dims
    assert run.layout.residual == latents - sum(dims)
    assert len(run.label_prior) == 4
    assert sum(run.label_prior[1:]) == pytest.approx(1)
    assert math.isfinite(figures["l1"])
    if estimator == "exact":
        assert figures["accuracy"] > 0.85
        assert figures["by_label"]["tint"]["accuracy"] > 0.8 > figures["by_label"]["tint"]["floor"] + 0.3
        assert figures["weight_mean"] == pytest.approx(1, abs=0.05)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_kept() -> None:
    """Blocks as large as a layer's output are had again without a page fault, in a process of its own."""
    script = """
    import resource, torch
    from ccvae_train.device import choose_device, keep_freed_memory
    keep_freed_memory(choose_device("cpu"))
    def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    def touch(): [torch.ones(1 << 21) for _ in range(4)]
    for _ in range(5):
        before = faults()
        touch()
    print(faults() - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000 < 4 * (1 << 23) // resource.getpagesize()
