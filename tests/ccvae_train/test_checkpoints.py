"""A run goes on to the same bits, and a checkpoint that cannot be used is one line."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ccvae_deploy.errors import RunError, UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_deploy.storage.lock import FolderLock
from ccvae_train import loop, training
from ccvae_train.checkpoint import load_run, read_checkpoint
from ccvae_train.datasets.dataset import Dataset
from ccvae_train.training import train

from .made_bars import LABELS, SMALL, made_partition

DATA = Dataset("made", LABELS, ImageSpec(size=32), made_partition(128, 0), made_partition(64, 1), "a" * 64)
"""Four steps an epoch."""
SETTINGS = SMALL | {"supervision": 0.5}
KILLED = textwrap.dedent(
    """
    import json, os, pickle, signal, sys
    from pathlib import Path
    from ccvae_train import loop, training

    step, data = loop.one_step, pickle.loads(Path("data").read_bytes())

    def deadly(fit, rows):
        if fit.step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        step(fit, rows)

    loop.one_step = deadly
    training.open_dataset = lambda *_, **__: data
    training.train(json.loads(sys.argv[1]), out=Path("runs/part"))
    """
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, its folder beside `latest`; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: DATA)
        return train(SETTINGS, out=tmp_path_factory.mktemp("whole") / "runs" / "one").run


@pytest.fixture(autouse=True)
def made_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`train` reads the made data, in a folder of its own."""
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: DATA)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(whole: Path) -> Path:
    """A copy of that run, to be damaged, below `runs/`."""
    shutil.copytree(whole.parent, "runs", symlinks=True)
    return Path("runs") / whole.name


def same_bits(run: Path, other: Path) -> bool:
    first, second = (read_checkpoint(one)[1] for one in (run, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_command_trains_in_a_folder_at_a_time(run: Path) -> None:
    Path("new").mkdir()
    with FolderLock(run, shared=False), pytest.raises(UsageError, match=f"another run writes to {run}; wait for it"):
        train({}, resume=True)
    with FolderLock(Path("new"), shared=False), pytest.raises(UsageError, match="another run writes to new"):
        train(SETTINGS, out="new")
    assert not any(Path("new").iterdir())
    # it is let go with the run
    assert train(SETTINGS, out="new").finished
    assert train({}, out="new", resume=True).finished


def test_interrupted_and_resumed_run_has_the_same_bits(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, validated = [], []

    def stop_in_the_second_epoch(fit, rows):
        calls.append(rows)
        step(fit, rows)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    def kept(*given):
        validated.append(found := validate(*given))
        return found

    step, validate = loop.one_step, loop.validate
    monkeypatch.setattr(loop, "one_step", stop_in_the_second_epoch)
    monkeypatch.setattr(loop, "validate", kept)
    part = train(SETTINGS, out=Path("runs/part"))
    assert not part.finished
    state, figures = read_checkpoint(part.run)[0], validated[-1][0].figures()
    assert state.step == 6
    assert {name: state.provenance["validation"][name] for name in figures} == figures
    assert train({}, out=part.run, resume=True).finished
    assert same_bits(whole, part.run)


def test_killed_and_resumed_run_has_the_same_bits(whole: Path, tmp_path: Path) -> None:
    """kill -9 in the second epoch, in a process of its own."""
    (tmp_path / "data").write_bytes(pickle.dumps(DATA))
    done = subprocess.run([sys.executable, "-c", KILLED, json.dumps(SETTINGS)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    part = Path("runs/part")
    assert read_checkpoint(part)[0].step == 4
    assert train({}, out=part, resume=True).finished
    assert same_bits(whole, part)


def test_resume_refuses_other_settings_and_other_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="batch-size is 32 there, not 64"):
        train({"batch_size": 64}, resume=True)
    assert train({"batch_size": 32}, resume=True).finished
    other = Dataset("made", LABELS, ImageSpec(size=32), made_partition(64, 0), made_partition(64, 1), "c" * 64)
    # a class that only rows of the test split have
    more = LabelSet(labels=(*LABELS.labels[:2], Label(name="red", kind="categorical", classes=("0", "1", "2"))))
    grown = replace(DATA, labels=more)
    for changed in (other, grown):
        monkeypatch.setattr(training, "open_dataset", lambda *_, data=changed, **__: data)
        with pytest.raises(RunError, match=r"data of .* have changed"):
            train({}, resume=True)


def test_the_device_of_a_run_is_asked_before_processes_join(run: Path) -> None:
    assert training._device_of(run) == "cpu"
    assert training._device_of(Path("nowhere")) == "auto"


def test_latest_may_be_a_text_file(run: Path) -> None:
    Path("runs/latest").unlink()
    Path("runs/latest").write_text("one\n")
    assert load_run(Path("runs/latest")).path.resolve() == run.resolve()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:1000], lambda b: b"\xff" * 64 + b[64:], lambda b: b"", lambda b: b"{}"]
)
def test_a_damaged_checkpoint_is_one_line(run: Path, damage) -> None:
    path = run / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="is damaged") as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def rewritten(run: Path, state: dict, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, run / "checkpoint.safetensors", metadata={"ccvae": json.dumps(state)})


def test_a_checkpoint_whose_parts_disagree_is_one_line(run: Path) -> None:
    state, tensors = read_checkpoint(run)
    whole = json.loads(state.model_dump_json())
    block = {**whole["labels"]["labels"][0], "kind": "categorical", "classes": [f"c{i}" for i in range(2048)]}
    # networks are built from the description, which must not promise what no memory holds
    wide = {"labels": {"labels": [{**block, "dims": 2048}]}, "layout": {"blocks": [2048], "residual": 0}}
    changes = {
        "label prior has 1 values": {"label_prior": [0.5]},
        "latent range must have 8 values": {"latent_range": {"low": [0.0], "high": [1.0]}},
        "latent layout and labels disagree": {"layout": {"blocks": [2, 1, 1], "residual": 4}},
        "2048 latents and 2048 classes; expected at most": wide,
        "settings of m2 beside networks of ccvae": {"config": {**whole["config"], "model": "m2"}},
    }
    for message, change in changes.items():
        rewritten(run, {**whole, **change}, tensors)
        with pytest.raises(RunError, match=message) as caught:
            load_run(run)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["none", "more", "odd", "shape"])
def test_moments_that_are_not_those_of_the_networks_are_refused(run: Path, change: str) -> None:
    state, tensors = read_checkpoint(run)
    tensors = {name: tensor for name, tensor in tensors.items() if change != "none" or name.startswith("model.")}
    added = {"more": "optimiser.999.exp_avg", "odd": "optimiser.x", "shape": "optimiser.0.exp_avg"}.get(change)
    tensors |= {added: torch.zeros(1)} if added else {}
    rewritten(run, json.loads(state.model_dump_json()), tensors)
    with pytest.raises(RunError, match=r"the optimiser's moments in .* are not those of its networks"):
        train({}, out=run, resume=True)


def test_a_checkpoint_that_names_no_optimiser_goes_on_with_adamw() -> None:
    adamw = {"encoder_optimiser": "adamw", "decoder_optimiser": "adamw"}
    run = train(SMALL | adamw | {"epochs": 1}).run
    state, tensors = read_checkpoint(run)
    old = json.loads(state.model_dump_json())
    for name in adamw:
        del old["config"][name]
    rewritten(run, {**old, "config": {**old["config"], "epochs": 2}}, tensors)
    assert train({}, out=run, resume=True).finished
    state, tensors = read_checkpoint(run)
    assert (state.config.encoder_optimiser, state.config.decoder_optimiser) == ("adamw", "adamw")
    assert state.provenance["epochs_done"] == 2
    assert not any(name.endswith(".momentum") for name in tensors)
