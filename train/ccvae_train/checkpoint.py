"""Checkpoints: one safetensors file whose header holds the JSON; written beside and swapped in, never unpickled.

Touches the run folder only. Besides the weights a checkpoint holds the optimiser's moments and the step, which is all
that training needs to go on: data order and noise are functions of (seed, step).
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor

from ccvae_deploy.bundle import MANIFEST
from ccvae_deploy.errors import RunError, WriteError
from ccvae_deploy.latest import follow, is_latest
from ccvae_deploy.schema import (
    Frozen,
    ImageSpec,
    LabelSet,
    LatentLayout,
    LatentRange,
    ModelSpec,
    require_agreement,
    shallow,
)
from ccvae_deploy.storage.remote import local_path

from .config import SettledConfig, TrainConfig
from .families import new_model
from .model import Model
from .optimiser import moments_of
from .tensor_file import read_tensors, write_tensors

CHECKPOINT = "checkpoint.safetensors"


class BaselineSpec(ModelSpec):
    """A model that is trained and evaluated, and never exported."""

    family: Literal["m2", "mvae"]  # type: ignore[assignment]


class RunState(Frozen):
    """The JSON half of a checkpoint.

    Attributes:
        config: settled, but for what an older run could not ask for.
        step: optimiser steps done.
        precision: what the networks were trained in; kept so that a resumed run computes the same.
    """

    schema_version: int = Field(default=1, ge=1, le=1)
    config: TrainConfig
    model: ModelSpec | BaselineSpec
    labels: LabelSet
    layout: LatentLayout
    image: ImageSpec
    label_prior: tuple[float, ...]
    latent_range: LatentRange
    step: int = Field(ge=0)
    precision: str
    provenance: Annotated[dict[str, Any], AfterValidator(shallow)]

    @model_validator(mode="before")
    @classmethod
    def _of_before_muon(cls, state: Any) -> Any:
        """A checkpoint that does not name an optimiser was written when AdamW was the only one."""
        if isinstance(state, dict) and isinstance(state.get("config"), dict):
            older = {"encoder_optimiser": "adamw", "decoder_optimiser": "adamw"}
            return {**state, "config": older | state["config"]}
        return state

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        require_agreement(self.labels, self.layout, self.label_prior, self.latent_range)
        if self.config.model != self.model.family:
            raise ValueError(f"settings of {self.config.model} beside networks of {self.model.family}")
        return self


@dataclass(frozen=True)
class TrainedRun:
    """A trained model and what it says of itself; the model is in eval mode, float32, on the CPU."""

    path: Path
    model: Model
    state: RunState

    @property
    def spec(self) -> ModelSpec:
        """Model family and likelihood."""
        return self.state.model

    @property
    def labels(self) -> LabelSet:
        """The labels the model knows."""
        return self.state.labels

    @property
    def layout(self) -> LatentLayout:
        """Which latents belong to which label."""
        return self.state.layout

    @property
    def image(self) -> ImageSpec:
        """What the encoder is given."""
        return self.state.image

    @property
    def label_prior(self) -> tuple[float, ...]:
        """p(y), one value per column of y."""
        return self.state.label_prior

    @property
    def latent_range(self) -> LatentRange:
        """Percentiles 1 and 99 of real latents."""
        return self.state.latent_range

    @property
    def provenance(self) -> dict[str, Any]:
        """Data, settings, figures and versions of the training."""
        return self.state.provenance


def resolve_run(run: Path | str) -> Path:
    """The run folder that `run` names: a folder, a symlink, or a text file holding a relative path.

    Raises:
        RunError: nothing is there, or no checkpoint is in it.
        UsageError: a URL, or no path.
    """
    folder = follow(local_path(run))
    if not folder.is_dir():
        raise RunError(f"no run at {run}; make one with `ccvae-deploy train`")
    if not (folder / CHECKPOINT).is_file():
        if (folder / MANIFEST).is_file():
            around = f": {folder.parent}" if (folder.parent / CHECKPOINT).is_file() else ""
            raise RunError(f"{folder} is a bundle, no run; give the run that it was exported from{around}")
        raise RunError(f"no {CHECKPOINT} in {folder}; let `ccvae-deploy train` finish its first epoch")
    return folder


def spec_of(config: SettledConfig) -> ModelSpec:
    """What the model of these settings says of itself."""
    numbers: dict[str, Any] = {"likelihood": config.likelihood, "likelihood_scale": config.likelihood_scale}
    if config.model == "m2" or config.model == "mvae":
        return BaselineSpec(family=config.model, **numbers)
    return ModelSpec(family=config.model, **numbers)


def going_on(run: Path) -> str:
    """What to do after a run has ended before its last epoch; named, unless it is the run that commands take anyway."""
    if not (run / CHECKPOINT).is_file():
        return "start again"
    return f"go on with `ccvae-deploy train --resume{'' if is_latest(run) else f' --out {quote(str(run))}'}`"


def save_checkpoint(run: Path, model: Model, optimiser: torch.optim.Optimizer, state: RunState) -> None:
    """Write the checkpoint of a run so that at any moment a whole one is there.

    Raises:
        WriteError: the disk is full or the folder cannot be written; the checkpoint before stays as it was.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
    target = run / CHECKPOINT
    try:
        write_tensors(target, tensors, "ccvae", state.model_dump_json())
    except (OSError, SafetensorError) as error:
        raise WriteError(f"cannot write {target}: {error}; make room and {going_on(run)}") from error


def read_checkpoint(run: Path | str) -> tuple[RunState, dict[str, Tensor]]:
    """State and tensors of a run's checkpoint.

    Raises:
        RunError: the file is damaged, or was written by another version.
    """
    path = resolve_run(run) / CHECKPOINT
    try:
        header, tensors = read_tensors(path, "ccvae")
        return RunState.model_validate_json(header), tensors
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {error}; train again or restore it from a copy") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path} is not a checkpoint of this version: {where} {first['msg']}; train again") from error


def restore(run: Path, state: RunState, tensors: dict[str, Tensor]) -> Model:
    """The model of a checkpoint, on the CPU.

    Raises:
        RunError: the tensors are not those of the networks that the state describes.
    """
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    if "conditional_prior.loc_true" in weights:
        raise RunError(f"the checkpoint in {run} was written before version 0.3, which trains anew; train again")
    model = new_model(state.model.family, state.labels, state.layout, state.image)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"the checkpoint in {run} does not fit its own description: {reason}; train again") from error
    return model


def restore_optimiser(run: Path, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser over the same parameters its moments back, each in the memory layout of its parameter.

    The fused step walks parameter and moments side by side in memory, so their strides must agree.

    Raises:
        RunError: the moments are not those of the parameters, so that the run would go on otherwise than it was.
    """
    parameters = [(parameter, group) for group in optimiser.param_groups for parameter in group["params"]]
    shapes = {
        f"optimiser.{index}.{name}": torch.Size() if name == "step" else parameter.shape
        for index, (parameter, group) in enumerate(parameters)
        for name in (*moments_of(group), "step")
    }
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("optimiser.")}
    if {name: tensor.shape for name, tensor in found.items()} != shapes:
        raise RunError(f"the optimiser's moments in {run} are not those of its networks; train again")
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        _, index, moment = name.split(".")
        parameter = parameters[int(index)][0]
        # a copy: what was read lies in the file itself, which the next checkpoint replaces
        laid_out = tensor.clone() if moment == "step" else torch.empty_like(parameter).copy_(tensor)
        moments.setdefault(int(index), {})[moment] = laid_out.detach()
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, group in parameters:
        if group["muon"]:
            # the host asks it whose turn it is, and would wait for a GPU
            optimiser.state[parameter]["step"] = optimiser.state[parameter]["step"].cpu()


def load_run(run: Path | str) -> TrainedRun:
    """Open a run for reading.

    Args:
        run: a run folder, or `runs/latest`.

    Raises:
        RunError: there is no run, or its checkpoint cannot be used.
    """
    folder = resolve_run(run)
    state, tensors = read_checkpoint(folder)
    return TrainedRun(folder, restore(folder, state, tensors).eval(), state)
