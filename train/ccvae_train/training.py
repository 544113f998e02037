"""`train`: from settings to a finished run folder, new or resumed. What the command line calls."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccvae_deploy.errors import CCVAEError, ProviderError, RunError, UsageError
from ccvae_deploy.latest import LATEST
from ccvae_deploy.storage.lock import FolderLock
from ccvae_deploy.storage.remote import local_path

from .checkpoint import RunState, read_checkpoint, resolve_run, restore, restore_optimiser
from .config import SettledConfig, make_config, with_label_dims
from .datasets.dataset import Dataset
from .datasets.source import open_dataset, settled
from .device import Device, choose_device, is_out_of_memory, keep_freed_memory
from .families import new_model
from .loop import Fit, train_to_end
from .model import Model
from .networks import SplitVAE
from .optimiser import make_optimiser
from .ranks import Ranks, together
from .run_folder import (
    new_run_folder,
    point_latest,
    refuse_links_out,
    refuse_other_metrics,
    refuse_stray_latest,
    refuse_taken,
    versions,
)
from .supervision import label_prior, supervised, unseen_values


@dataclass(frozen=True)
class TrainResult:
    """Where the run is and whether it reached its last epoch.

    Attributes:
        exportable: whether `export` makes a bundle of such a model.
        rank: which of the processes that trained together this one is; the first, 0, speaks for all.
    """

    run: Path
    finished: bool
    exportable: bool = True
    rank: int = 0


def train(settings: dict[str, Any], *, out: Path | str | None = None, resume: bool = False) -> TrainResult:
    """Train a new run, or go on with one; under `torchrun`, together with the other processes.

    Args:
        settings: fields of `TrainConfig` that differ from their defaults.
        out: the run folder; None makes one under `runs/`, or with `resume` takes `runs/latest`.
        resume: go on from the run's checkpoint with its own settings; only `device` may differ.

    Raises:
        CCVAEError: bad settings, data that do not agree, a run that cannot be resumed, a loss that is not finite.
    """
    folder = None if out is None else local_path(out)
    device = settings.get("device") or (_device_of(folder or LATEST) if resume else "auto")
    with together(device) as ranks, contextlib.ExitStack() as held:
        fit = _resume(settings, folder or LATEST, ranks, held) if resume else _begin(settings, folder, ranks, held)
        processes = f"; {ranks.count} processes" if ranks.count > 1 else ""
        images = f"{len(fit.data.train):,} training and {len(fit.data.valid):,} validation images"
        _say(f"{fit.device.note}{processes}; {images}")
        if fit.batch < fit.config.batch_size:
            _say(
                f"--batch-size {fit.config.batch_size} is more than there are: every step takes all {fit.batch} images"
            )
        _say(f"run {fit.run}")
        return TrainResult(fit.run, train_to_end(fit), isinstance(fit.model, SplitVAE), ranks.rank)


def _begin(settings: dict[str, Any], out: Path | None, ranks: Ranks, held: contextlib.ExitStack) -> Fit:
    config = settled(make_config(settings))
    device = choose_device(config.device)
    refuse_stray_latest(out)
    if out is not None:
        refuse_taken(out)
    fit = prepare(config, device, ranks)
    if unseen := unseen_values(fit.data.train.labels, fit.shown, fit.labels):
        more = "" if config.supervision == 1 else "raise --supervision to show some, or "
        _say(f"no shown label is {', '.join(unseen)}, so nothing is learned of it; {more}add images that have it")
    fit.run = Path(ranks.from_first("run", lambda: _locked(new_run_folder(out, config.data), held)))
    if ranks.first:
        point_latest(fit.run)
    return fit


def _resume(settings: dict[str, Any], run: Path, ranks: Ranks, held: contextlib.ExitStack) -> Fit:
    folder = resolve_run(run)
    ranks.from_first("run", lambda: _locked(folder, held))
    state, tensors = read_checkpoint(folder)
    _refuse_other_settings(settings, state)
    device = choose_device(settings.get("device", state.config.device), state.precision)
    refuse_stray_latest(folder)
    refuse_other_metrics(folder)
    refuse_links_out(folder)
    fit = prepare(settled(state.config), device, ranks)
    # the classes too: rows of the test split, which a fingerprint does not see, may have more of them
    if fit.data.fingerprint != state.provenance.get("fingerprint") or fit.labels != state.labels:
        raise RunError(f"the data of {folder} have changed since it began ({state.config.data}); train a new run")
    fit.run, fit.step = folder, state.step
    fit.provenance = {**state.provenance, **fit.provenance}
    fit.model.load_state_dict(restore(folder, state, tensors).state_dict())
    restore_optimiser(folder, fit.optimiser, tensors)
    if ranks.first:
        point_latest(folder)
    return fit


def _locked(run: Path, held: contextlib.ExitStack) -> str:
    """The folder of a run, in which no other command trains until `held` ends."""
    held.enter_context(FolderLock(run, shared=False))
    return str(run)


def _device_of(run: Path) -> str:
    """The device that a run began on; a run that cannot be read is told of when it is resumed."""
    with contextlib.suppress(CCVAEError):
        return read_checkpoint(run)[0].config.device
    return "auto"


def _refuse_other_settings(settings: dict[str, Any], state: RunState) -> None:
    saved = state.config.model_dump()
    for name, value in settings.items():
        if name != "device" and make_config({name: value}).model_dump()[name] != saved[name]:
            raise UsageError(
                f"--resume goes on with the run's own settings: {name.replace('_', '-')} is {saved[name]!r} there, "
                f"not {value!r}; leave it out, or train a new run"
            )


def prepare(config: SettledConfig, device: Device, ranks: Ranks) -> Fit:
    """Data, model and optimiser of a run before its first step, without a folder.

    Raises:
        CCVAEError: data that do not agree, labels that do not fit.
    """
    with ranks.one_per_machine_first():
        data = open_dataset(
            config.data,
            labels=config.labels,
            size=config.image_size,
            channels=config.channels,
            seed=config.seed,
            uncertain=config.uncertain,
        )
    ranks.refuse_fewer_than_ranks(min(config.batch_size, len(data.train)))
    labels, layout = with_label_dims(data.labels, config)
    shown = supervised(data.train.labels, config.supervision, config.seed)
    prior = label_prior(shown, labels)
    keep_freed_memory(device)
    torch.manual_seed(config.seed)
    model = _on_device(new_model(config.model, labels, layout, data.image), device)
    return Fit(
        run=Path(),
        config=config,
        data=data,
        labels=labels,
        layout=layout,
        shown=shown,
        prior=prior,
        model=model,
        optimiser=make_optimiser(model, config),
        device=device,
        provenance=_provenance(config, data, model, shown, prior, device),
        ranks=ranks,
    )


def _on_device(model: Model, device: Device) -> Model:
    try:
        return model.to(device.torch_device).to(memory_format=torch.channels_last)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ProviderError(
            f"{device.note}: no memory is left for the model; free some, or use --device cpu"
        ) from error


def _provenance(
    config: SettledConfig,
    data: Dataset,
    model: Model,
    shown: NDArray[np.int8],
    prior: NDArray[np.float64],
    device: Device,
) -> dict[str, Any]:
    """What a run says of its origin, before it has any figures."""
    found = {
        "data": config.data,
        "fingerprint": data.fingerprint,
        "training_images": len(data.train),
        "labelled_images": int((shown >= 0).any(axis=1).sum()),
        "validation_images": len(data.valid),
        "supervision": config.supervision,
        "estimator": config.estimator,
        "model": config.model,
        "label_frequency": dict(zip(model.labels.column_names, map(float, prior.round(4)), strict=True)),
        "device": device.note,
        "versions": versions(),
    }
    choices = model.choices(config)
    return found | ({"choices": choices} if choices else {})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
