"""The loop on made data: it learns, it resumes to the same bits, it refuses what it cannot do."""

import csv
import ctypes
import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ccvae_deploy.errors import CCVAEError, ProviderError, RunError, TrainingError, UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train import training
from ccvae_train.checkpoint import load_run, read_checkpoint
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.device import choose_device
from ccvae_train.loop import labelled_share, learning_rate
from ccvae_train.supervision import label_prior, supervised
from ccvae_train.training import train

LABELS = LabelSet(labels=(Label(name="bright"), Label(name="Left_Bar"), Label(name="red")))


def made_partition(count: int, seed: int) -> Partition:
    """Images of 32x32 whose three labels are plain to see: brightness, a bar on the left, a red tint."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 3)).astype(np.int8)
    images = rng.integers(20, 60, (count, 1, 1, 1)) + np.zeros((count, 32, 32, 3))
    images += 110 * labels[:, 0, None, None, None]
    images[..., 0] += 50 * labels[:, 2, None, None]
    images[:, 8:24, 4:12] += 60 * (labels[:, 1, None, None, None] * 2 - 1)
    return Partition(np.clip(images, 0, 255).astype(np.uint8), labels)


@pytest.fixture(autouse=True)
def made_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`train` reads the made data, in a folder of its own."""
    data = Dataset(
        "made", LABELS, ImageSpec(size=32), made_partition(512, 0), made_partition(128, 1), fingerprint="a" * 64
    )
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)
    monkeypatch.chdir(tmp_path)


SMALL = {"epochs": 3, "latents": 8, "batch_size": 32, "learning_rate": 3e-3, "device": "cpu"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run)[1]


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
    run = load_run(train(SMALL | {"estimator": "paper", "learning_rate": 3e-4}).run)
    assert run.spec.likelihood_scale == 1.0
    assert math.isfinite(run.provenance["validation"]["l1"])


def test_interrupted_and_resumed_run_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(SMALL | {"supervision": 0.5}, out=Path("runs/whole")).run
    calls, validated = [], []

    def stop_in_the_second_epoch(fit, rows):
        calls.append(rows)
        step(fit, rows)
        if len(calls) == 21:
            os.kill(os.getpid(), signal.SIGINT)

    def kept(*given):
        validated.append(found := validate(*given))
        return found

    import ccvae_train.loop as loop

    step, validate = loop.one_step, loop.validate
    monkeypatch.setattr(loop, "one_step", stop_in_the_second_epoch)
    monkeypatch.setattr(loop, "validate", kept)
    part = train(SMALL | {"supervision": 0.5}, out=Path("runs/part"))
    assert not part.finished
    state, figures = read_checkpoint(part.run)[0], validated[-1][0].figures()
    assert state.step == 21
    assert {name: state.provenance["validation"][name] for name in figures} == figures
    assert train({}, out=part.run, resume=True).finished
    first, second = weights(whole), weights(part.run)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_killed_and_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    """kill -9 in the second epoch, in a process of its own, on made portraits."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        import ccvae_train.loop as loop
        from ccvae_train.training import train
        from pathlib import Path
        step = loop.one_step
        def deadly(fit, rows):
            if fit.step == 12 and "kill" in sys.argv:
                os.kill(os.getpid(), signal.SIGKILL)
            step(fit, rows)
        loop.one_step = deadly
        import ccvae_train.training as training
        from ccvae_train.datasets.dataset import Dataset, Partition
        from ccvae_deploy.schema import ImageSpec, Label, LabelSet
        import numpy as np
        rng = np.random.default_rng(0)
        part = Partition(rng.integers(0, 255, (256, 32, 32, 3)).astype(np.uint8),
                         rng.integers(0, 2, (256, 2)).astype(np.int8))
        labels = LabelSet(labels=(Label(name="a"), Label(name="b")))
        data = Dataset("made", labels, ImageSpec(size=32), part, part, "b" * 64)
        training.open_dataset = lambda *a, **k: data
        settings = {} if "resume" in sys.argv else {"epochs": 2, "latents": 6, "batch_size": 32, "device": "cpu"}
        train(settings, out=Path(sys.argv[1]), resume="resume" in sys.argv)
        """
    )

    def run(*arguments: str) -> int:
        return subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True).returncode

    assert run("runs/whole") == 0
    assert run("runs/part", "kill") == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "runs/part")[0].step == 8
    assert run("runs/part", "resume") == 0
    first, second = weights(tmp_path / "runs/whole"), weights(tmp_path / "runs/part")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_refuses_other_settings_and_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    train(SMALL | {"epochs": 1})
    with pytest.raises(UsageError, match="batch-size is 32 there, not 64"):
        train({"batch_size": 64}, resume=True)
    assert train({"batch_size": 32}, resume=True).finished
    other = Dataset("made", LABELS, ImageSpec(size=32), made_partition(64, 0), made_partition(64, 1), "c" * 64)
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: other)
    with pytest.raises(RunError, match=r"data of .* have changed"):
        train({}, resume=True)


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
    with pytest.raises(TrainingError, match=r"step 20 \(not finite: reconstruction\); the checkpoint after epoch 1"):
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


@pytest.mark.parametrize(
    "damage", [lambda b: b[:1000], lambda b: b"\xff" * 64 + b[64:], lambda b: b"", lambda b: b"{}"]
)
def test_a_damaged_checkpoint_is_one_line(damage) -> None:
    run = train(SMALL | {"epochs": 1}).run
    path = run / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="is damaged") as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def rewritten(run: Path, state: dict, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, run / "checkpoint.safetensors", metadata={"ccvae": json.dumps(state)})


def test_a_checkpoint_whose_parts_disagree_is_one_line() -> None:
    run = train(SMALL | {"epochs": 1}).run
    state, tensors = read_checkpoint(run)
    whole = json.loads(state.model_dump_json())
    block = {**whole["labels"]["labels"][0], "kind": "categorical", "classes": [f"c{i}" for i in range(2048)]}
    wide = {"labels": {"labels": [{**block, "dims": 2048}]}, "layout": {"blocks": [2048], "residual": 0}}
    wide |= {"label_prior": [0.001] * 2048, "latent_range": {"low": [0.0] * 2048, "high": [1.0] * 2048}}
    changes = {
        "label prior has 1 values": {"label_prior": [0.5]},
        "latent range must have 8 values": {"latent_range": {"low": [0.0], "high": [1.0]}},
        "latent layout and labels disagree": {"layout": {"blocks": [2, 1, 1], "residual": 4}},
        "too few weights for its 4,194,304": wide,
    }
    for message, change in changes.items():
        rewritten(run, {**whole, **change}, tensors)
        with pytest.raises(RunError, match=message) as caught:
            load_run(run)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["none", "more", "odd", "shape"])
def test_moments_that_are_not_those_of_the_networks_are_refused(change: str) -> None:
    run = train(SMALL | {"epochs": 1}).run
    state, tensors = read_checkpoint(run)
    tensors = {name: tensor for name, tensor in tensors.items() if change != "none" or name.startswith("model.")}
    added = {"more": "optimiser.999.exp_avg", "odd": "optimiser.x", "shape": "optimiser.0.exp_avg"}.get(change)
    tensors |= {added: torch.zeros(1)} if added else {}
    rewritten(run, json.loads(state.model_dump_json()), tensors)
    with pytest.raises(RunError, match=r"the optimiser's moments in .* are not those of its networks"):
        train({}, out=run, resume=True)


def test_the_device_of_a_run_is_asked_before_processes_join() -> None:
    run = train(SMALL | {"epochs": 1}).run
    assert training._device_of(run) == "cpu"
    assert training._device_of(Path("nowhere")) == "auto"


def test_a_checkpoint_that_names_no_optimiser_of_the_decoder_goes_on_with_adamw() -> None:
    run = train(SMALL | {"epochs": 1, "decoder_optimiser": "adamw"}).run
    state, tensors = read_checkpoint(run)
    old = json.loads(state.model_dump_json())
    del old["config"]["decoder_optimiser"]
    rewritten(run, {**old, "config": {**old["config"], "epochs": 2}}, tensors)
    assert train({}, out=run, resume=True).finished
    state, tensors = read_checkpoint(run)
    assert (state.config.decoder_optimiser, state.provenance["epochs_done"]) == ("adamw", 2)
    assert not any(name.endswith(".momentum") for name in tensors)


def test_latest_may_be_a_text_file() -> None:
    run = train(SMALL | {"epochs": 1}, out=Path("runs/one")).run
    Path("runs/latest").unlink()
    Path("runs/latest").write_text("one\n")
    assert load_run(Path("runs/latest")).path.resolve() == run.resolve()


def test_missing_labels_of_single_images_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made_partition(512, 0)
    part.labels[np.random.default_rng(0).random(part.labels.shape) < 0.4] = -1
    data = Dataset("made", LABELS, ImageSpec(size=32), part, made_partition(128, 1), "d" * 64)
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)
    run = load_run(train(SMALL | {"epochs": 6, "label_dims": {"left bar": 2}}).run)
    assert run.layout.blocks == (1, 2, 1)
    assert run.provenance["validation"]["accuracy"] > 0.85


def test_supervised_subsets_are_nested_random_and_of_the_asked_size() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (1000, 4)).astype(np.int8)
    labels[:100] = -1
    few, many = supervised(labels, 0.1, seed=3), supervised(labels, 0.5, seed=3)
    shown = [(part >= 0).any(axis=1) for part in (few, many)]
    assert [part.sum() for part in shown] == [90, 450]
    assert not (shown[0] & ~shown[1]).any()
    assert (few[shown[0]] == labels[shown[0]]).all()
    assert (supervised(labels, 0.1, seed=4) != few).any()
    assert (supervised(labels, 1.0, seed=0) == labels).all()


def test_label_prior_is_the_mean_of_shown_labels_and_never_0_or_1() -> None:
    labels = np.array([[1, 1, 0], [0, 1, -1], [1, 1, 0], [1, 1, 0]], np.int8)
    assert label_prior(labels, LABELS) == pytest.approx([0.75, 0.875, 1 / 6])
    with pytest.raises(CCVAEError, match="label red is shown for no training image"):
        label_prior(np.array([[1, 1, -1]], np.int8), LABELS)


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.03)
    assert rates[-1] == pytest.approx(2e-5, rel=0.01)


def test_noise_is_a_function_of_its_key() -> None:
    device = choose_device("cpu", "fp32")
    first, again, other = (torch.randn(5, generator=device.generator(*key)) for key in ((0, 7), (0, 7), (7, 0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert device.precision == "fp32"
    assert device.note.startswith("cpu: ")


MIXED = LabelSet(
    labels=(Label(name="bright"), Label(name="tint", kind="categorical", classes=("red", "green", "blue")))
)


@pytest.mark.parametrize(
    ("estimator", "dims", "latents", "missing"), [("exact", 1, 6, 0.0), ("exact", 3, 4, 0.4), ("paper", 3, 6, 0.4)]
)
def test_labels_of_both_kinds_are_learned(
    monkeypatch: pytest.MonkeyPatch, estimator: str, dims: int, latents: int, missing: float
) -> None:
    """A tint of three classes beside brightness, with values missing, one latent or one per class, z_s empty or not."""

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
    settings = {"estimator": estimator, "label_dims": {"tint": dims}, "latents": latents, "epochs": 6}
    run = load_run(train(SMALL | settings).run)
    figures = run.provenance["validation"]
    assert run.labels.labels[1].dims == dims
    assert run.layout.residual == latents - dims - 1
    assert len(run.label_prior) == 4
    assert sum(run.label_prior[1:]) == pytest.approx(1)
    assert math.isfinite(figures["l1"])
    if estimator == "exact":
        assert figures["by_label"]["tint"]["accuracy"] > 0.8 > figures["by_label"]["tint"]["floor"] + 0.3
        assert figures["weight_mean"] == pytest.approx(1, abs=0.05)


def test_labelled_images_come_often_at_first_and_by_chance_at_last() -> None:
    first = labelled_share(0.06, 15, 0, 10)
    assert first > 2 * 0.06
    assert labelled_share(0.06, 15, 5, 10) == pytest.approx(0.06 + (first - 0.06) / 4)
    assert labelled_share(0.06, 15, 0, 2) == 0.5
    assert labelled_share(0.7, 15, 0, 2) == labelled_share(0.7, 15, 1, 2) == 0.7
    assert labelled_share(0.06, 15, 0, 20) == labelled_share(0.06, 0, 0, 3) == 0.06
    passes = sum(labelled_share(0.06, 15, epoch, 100) / 0.06 for epoch in range(100))
    assert passes == pytest.approx(100)


@pytest.mark.parametrize(
    ("chance", "passes", "epochs"), [(0.004, 15, 1), (0.06, 8, 3), (0.06, 11, 4), (0.02, 150, 100)]
)
def test_labelled_images_are_shown_as_often_as_asked(chance: float, passes: int, epochs: int) -> None:
    shares = [labelled_share(chance, passes, epoch, epochs) for epoch in range(epochs)]
    assert sum(shares) / chance == pytest.approx(passes)


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
