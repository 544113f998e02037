"""`train`: from settings to a finished run folder, new or resumed. What the command line calls."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ccvae_deploy.errors import RunError, UsageError
from ccvae_deploy.latest import LATEST

from .checkpoint import RunState, read_checkpoint, resolve_run, restore, restore_optimiser
from .config import TrainConfig, make_config, with_label_dims
from .datasets.source import open_dataset, settled
from .device import Device, choose_device
from .loop import Fit, train_to_end
from .networks import CCVAE
from .run_folder import new_run_folder, point_latest, versions
from .supervision import label_prior, supervised


@dataclass(frozen=True)
class TrainResult:
    """Where the run is and whether it reached its last epoch."""

    run: Path
    finished: bool


def train(settings: dict[str, Any], *, out: Path | None = None, resume: bool = False) -> TrainResult:
    """Train a new run, or go on with one.

    Args:
        settings: fields of `TrainConfig` that differ from their defaults.
        out: the run folder; None makes one under `runs/`, or with `resume` takes `runs/latest`.
        resume: go on from the run's checkpoint with its own settings; only `device` may differ.

    Raises:
        CCVAEError: bad settings, data that do not agree, a run that cannot be resumed, a loss that is not finite.
    """
    fit = _resume(settings, out or LATEST) if resume else _begin(settings, out)
    _say(f"{fit.device.note}; {len(fit.data.train):,} training and {len(fit.data.valid):,} validation images")
    _say(f"run {fit.run}")
    return TrainResult(fit.run, train_to_end(fit))


def _begin(settings: dict[str, Any], out: Path | None) -> Fit:
    config = settled(make_config(settings))
    device = choose_device(config.device)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty; go on with --resume, or give another --out")
    fit = _prepare(config, device)
    fit.run = new_run_folder(out, config.data)
    point_latest(fit.run)
    return fit


def _resume(settings: dict[str, Any], run: Path) -> Fit:
    folder = resolve_run(run)
    state, tensors = read_checkpoint(folder)
    _refuse_other_settings(settings, state)
    device = choose_device(settings.get("device", state.config.device), state.precision)
    fit = _prepare(state.config, device)
    if fit.data.fingerprint != state.provenance.get("fingerprint"):
        raise RunError(f"the data of {folder} have changed since it began ({state.config.data}); train a new run")
    fit.run, fit.step = folder, state.step
    fit.provenance = {**state.provenance, **fit.provenance}
    fit.model.load_state_dict(restore(folder, state, tensors).state_dict())
    restore_optimiser(fit.optimiser, tensors)
    point_latest(folder)
    return fit


def _refuse_other_settings(settings: dict[str, Any], state: RunState) -> None:
    saved = state.config.model_dump()
    for name, value in settings.items():
        if name != "device" and make_config({name: value}).model_dump()[name] != saved[name]:
            raise UsageError(
                f"--resume goes on with the run's own settings: {name.replace('_', '-')} is {saved[name]!r} there, "
                f"not {value!r}; leave it out, or train a new run"
            )


def _prepare(config: TrainConfig, device: Device) -> Fit:
    data = open_dataset(
        config.data,
        labels=config.labels,
        size=config.image_size,
        channels=config.channels,
        seed=config.seed,
        uncertain=config.uncertain,
    )
    labels, layout = with_label_dims(data.labels, config)
    shown = supervised(data.train.labels, config.supervision, config.seed)
    prior = label_prior(shown, labels)
    torch.manual_seed(config.seed)
    model = CCVAE(labels, layout, data.image).to(device.torch_device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    provenance = {
        "data": config.data,
        "fingerprint": data.fingerprint,
        "training_images": len(data.train),
        "labelled_images": int((shown >= 0).any(axis=1).sum()),
        "validation_images": len(data.valid),
        "supervision": config.supervision,
        "estimator": config.estimator,
        "label_frequency": dict(zip(labels.column_names, map(float, prior.round(4)), strict=True)),
        "device": device.note,
        "versions": versions(),
    }
    return Fit(Path(), config, data, labels, layout, shown, prior, model, optimiser, device, provenance)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
