"""The training loop: one optimiser, mixed batches, a checkpoint per epoch; everything random is a function of the step.

Writes into the run folder only. Data order comes from (seed, epoch) and noise from (seed, step), so a run that was
killed goes on from its checkpoint to the same weights as one that was not.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ccvae_deploy.errors import TrainingError, WriteError
from ccvae_deploy.schema import LabelSet, LatentLayout, LatentRange
from ccvae_deploy.terminal.progress import Reporter, progress

from .batches import as_image, epoch_order, half_mirrored, labels_of, pixels_of, shifted
from .checkpoint import CHECKPOINT, RunState, going_on, save_checkpoint, spec_of
from .config import SettledConfig
from .datasets.dataset import MISSING, Dataset
from .device import Device, is_out_of_memory
from .grids import intervention_grid, save_grid
from .interrupt import Interrupt, interruptible
from .label_columns import majority
from .model import Model
from .noise import Noise
from .objective import Batch, Labels, NamedTerms, value_weights
from .ranks import Ranks
from .run_folder import METRICS, append_metrics, write_run_json
from .tensorboard import Scalars
from .validation import Validation, validate

GRID_EPOCHS = 5
WARM_UP_STEPS = 200
MOST_LABELLED = 0.5


@dataclass
class Fit:
    """Everything a training run holds in memory.

    Attributes:
        shown: the training labels that the supervision rate shows, (N, L), -1 elsewhere.
        prior: p(y) by column, (Y,); `log_prior` is its logarithm by state, (S,).
        provenance: what a checkpoint says of where it comes from.
        step: the steps that lie behind.
        sums: the sum of every term since the last epoch.
        objective: from the rows of a batch to its terms, gradients averaged over ranks.
        majority: the most frequent training value of each label, (L,).
        value_weight: what an image counts by the value of each label, see `value_weights`.
    """

    run: Path
    config: SettledConfig
    data: Dataset
    labels: LabelSet
    layout: LatentLayout
    shown: NDArray[np.int8]
    prior: NDArray[np.float64]
    model: Model
    optimiser: torch.optim.Optimizer
    device: Device
    provenance: dict[str, Any]
    ranks: Ranks = field(default_factory=Ranks)
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    objective: nn.Module = field(init=False)
    log_prior: Tensor = field(init=False)
    majority: NDArray[np.int64] = field(init=False)
    value_weight: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.objective = self.ranks.averaging(Objective(self))
        states = self.model.states
        prior = states.of_columns(torch.as_tensor(self.prior, dtype=torch.float32, device=self.device.torch_device))
        self.log_prior = prior.log()
        self.majority = majority(self.data.train.labels, self.labels)
        self.value_weight = value_weights(states, prior, self.config.class_balance)

    @property
    def batch(self) -> int:
        """Images of a step, all ranks together."""
        return min(self.config.batch_size, len(self.data.train))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; an epoch's remainder of less than a batch is left to the next."""
        return max(len(self.data.train) // self.config.batch_size, 1)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The rows of every batch of an epoch, (steps, batch)."""
        labelled = np.flatnonzero((self.shown != MISSING).any(axis=1))
        chance = len(labelled) / len(self.shown)
        share = labelled_share(chance, self.config.labelled_passes, epoch, self.config.epochs)
        return epoch_order(len(self.shown), self.batch, self.config.seed, epoch, labelled, share)


class Objective(nn.Module):
    """From the rows of a batch to its terms, as one module: gradients are averaged over what it has computed."""

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        self.model = fit.model
        self.fit = fit

    def forward(self, rows: NDArray[np.intp]) -> NamedTerms:
        """The terms of this rank's share of `rows`."""
        return self.fit.model.terms(batch_of(self.fit, rows))


def train_to_end(fit: Fit) -> bool:
    """Train from `fit.step` to the last epoch; False when the user interrupted it, with a checkpoint at that step.

    Raises:
        TrainingError: the loss is not finite, or a step takes more memory than there is; the checkpoint of the last
            whole epoch stays.
        WriteError: a checkpoint, or what lies beside it, cannot be written; the checkpoint before stays.
    """
    try:
        return _train(fit)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(
            f"cannot write in {fit.run}: {error.strerror or error}; make room and {going_on(fit.run)}"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(going_on(fit.run)) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory at step {fit.step}, with batches of {fit.batch} images on {fit.device.torch_device}; "
            f"{_kept(fit)}; train again with a smaller --batch-size"
        ) from error


def _train(fit: Fit) -> bool:
    scalars = Scalars.open(fit.run, fit.step) if fit.ranks.first else Scalars(None)
    order: NDArray[np.intp] = np.empty((0, 0), np.intp)
    batch = fit.batch
    with interruptible() as interrupt, progress("train", (fit.steps - fit.step) * batch, "images") as bar:
        while fit.step < fit.steps:
            epoch, position = divmod(fit.step, fit.steps_per_epoch)
            if position == 0 or not len(order):
                order = fit.order(epoch)
                began, began_at = time.monotonic(), fit.step
            one_step(fit, order[position])
            fit.step += 1
            bar.advance(batch)
            if fit.step % fit.steps_per_epoch == 0:
                done = fit.step - began_at
                rate = done * batch / (time.monotonic() - began)
                _end_epoch(fit, done, rate, bar, scalars)
            if _stopped(fit, interrupt, bar):
                return False
    return True


def _stopped(fit: Fit, interrupt: Interrupt, bar: Reporter) -> bool:
    if fit.step == fit.steps or not fit.ranks.any(interrupt.requested):
        return False
    if fit.step % fit.steps_per_epoch and fit.ranks.first:
        bar.line("stopping with a checkpoint; another interrupt stops at once")
        figures, means = _validate(fit)
        _note(fit, figures)
        _save(fit, means)
    # a rank that ends earlier makes torchrun end the one that still writes
    fit.ranks.meet()
    return True


def one_step(fit: Fit, rows: NDArray[np.intp]) -> None:
    """Train on the images `rows`, all ranks together."""
    for group in fit.optimiser.param_groups:
        group["lr"] = learning_rate(fit.step, fit.steps, fit.config.learning_rate)
    terms: NamedTerms = fit.objective(rows)
    weight = fit.ranks.weight(len(rows))
    loss = terms.loss(fit.config.label_weight) * weight
    values = {"loss": loss, **vars(terms)}
    means = fit.ranks.mean({n: v.detach().mean() * (1 if v is loss else weight) for n, v in values.items()})
    _refuse_not_finite(fit, means)
    fit.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    fit.optimiser.step()
    for name, mean in means.items():
        fit.sums[name] = fit.sums[name] + mean if name in fit.sums else mean


def batch_of(fit: Fit, rows: NDArray[np.intp]) -> Batch:
    """This rank's share of the training images `rows`, with the noise of the step."""
    share = fit.ranks.share(len(rows))
    noise = Noise(fit.device.generator(fit.config.seed, fit.step), share.start, len(rows))
    rows = rows[share]
    pixels = pixels_of(fit.data.train.images, rows, fit.device)
    if fit.config.flip:
        pixels = half_mirrored(pixels, noise)
    if fit.config.shift:
        pixels = shifted(pixels, fit.config.shift, noise)
    states = fit.model.states
    state, observed = labels_of(fit.shown[rows], states, fit.device)
    complete = bool((fit.shown[rows] != MISSING).all())
    labels = Labels(state, observed, fit.log_prior, fit.value_weight, complete)
    return Batch(as_image(pixels), labels, noise, fit.config, fit.device, fit.step, fit.step / fit.steps)


def labelled_share(chance: float, passes: float, epoch: int, epochs: int) -> float:
    """The share of labelled images in the batches of an epoch, falling in a parabola from `first` to chance.

    Labels are learned from many labelled images, and by heart from the same ones again and again. So `first` is what
    makes `passes` of each over the run, of which chance alone makes `epochs`, but never more than half of a batch.
    """
    parabola = (epochs + 1) * (2 * epochs + 1) / (6 * epochs**2)  # the mean over epochs of (1 - epoch / epochs)^2
    first = chance * (1 + max(passes / epochs - 1, 0.0) / parabola)
    return chance + max(min(first, MOST_LABELLED) - chance, 0.0) * (1 - epoch / epochs) ** 2


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a half cosine down to 2 % of the peak."""
    warm_up = min(1.0, (step + 1) / min(WARM_UP_STEPS, max(steps // 10, 1)))
    return peak * warm_up * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)


def _refuse_not_finite(fit: Fit, means: dict[str, Tensor]) -> None:
    # asking a GPU for the value at every step would make it wait for the host
    if fit.device.torch_device.type != "cpu" and fit.step % 20:
        return
    if math.isfinite(float(means["loss"])):
        return
    guilty = [name for name, mean in means.items() if name != "loss" and not math.isfinite(float(mean))]
    raise TrainingError(
        f"the loss is not finite at step {fit.step} (not finite: {', '.join(guilty) or 'the sum'}); {_kept(fit)}; "
        f"train again with a --learning-rate below {fit.config.learning_rate:g}"
    )


def _kept(fit: Fit) -> str:
    there = (fit.run / CHECKPOINT).is_file()
    return f"the checkpoint before it stays in {fit.run}" if there else "no epoch was finished"


def _end_epoch(fit: Fit, done: int, rate: float, bar: Reporter, scalars: Scalars) -> None:
    """Validate, record and save; `done` steps of this epoch were run here, fewer than all after a resume."""
    epoch = fit.step // fit.steps_per_epoch
    terms = {name: float(value) / done for name, value in fit.sums.items()}
    fit.sums.clear()
    if not math.isfinite(terms["loss"]):
        raise TrainingError(f"the loss of epoch {epoch} is not finite; {_kept(fit)}")
    if not fit.ranks.first:
        return
    figures, means = _validate(fit)
    row = {"epoch": epoch, "step": fit.step, "images_per_second": rate, **terms, **figures.figures()}
    if (aside := append_metrics(fit.run, row)) is not None:
        bar.line(f"{fit.run / METRICS} was no table of epochs any more; it is {aside} now, and a new one begins")
    scalars.add(row, fit.step)
    _note(fit, figures)
    fit.provenance["epochs_done"] = epoch
    _save(fit, means)
    if epoch % GRID_EPOCHS == 0 or epoch in (1, fit.config.epochs):
        grid = intervention_grid(fit.model, fit.data.valid.images, fit.labels, fit.device)
        save_grid(fit.run / "grids" / f"epoch-{epoch:04d}.png", grid)
    bar.line(epoch_line(epoch, fit.config.epochs, rate, figures))


def epoch_line(epoch: int, epochs: int, rate: float, figures: Validation) -> str:
    """The line an epoch leaves on the screen, within 80 columns at ordinary values."""
    line = (
        f"epoch {epoch}/{epochs}  {rate:,.0f} img/s  acc {figures.accuracy:.4f} (floor {figures.floor:.4f})  "
        f"bal {figures.balanced_accuracy:.4f}  L1 {figures.l1:.4f}"
    )
    if figures.weight_mean is None or figures.weight_ess is None:
        return line
    return f"{line}\n    E[w] {figures.weight_mean:.3f}  ESS {figures.weight_ess:.0%}"


def _note(fit: Fit, figures: Validation) -> None:
    """What the weights that are saved next are worth."""
    fit.provenance["validation"] = {**figures.figures(), "by_label": figures.by_label}


def _validate(fit: Fit) -> tuple[Validation, NDArray[np.float32]]:
    fit.model.eval()
    found = validate(fit.model, fit.data.valid, fit.labels, fit.majority, fit.device)
    fit.model.train()
    return found


def _save(fit: Fit, means: NDArray[np.float32]) -> None:
    if not np.isfinite(means).all():
        raise TrainingError(f"the latents at step {fit.step} are not finite; {_kept(fit)}")
    low, high = np.percentile(means, [1, 99], axis=0)
    state = RunState(
        config=fit.config,
        model=spec_of(fit.config),
        labels=fit.labels,
        layout=fit.layout,
        image=fit.data.image,
        label_prior=tuple(float(p) for p in fit.prior),
        latent_range=LatentRange(low=tuple(map(float, low)), high=tuple(map(float, high))),
        step=fit.step,
        precision=fit.device.precision,
        provenance=fit.provenance,
    )
    save_checkpoint(fit.run, fit.model, fit.optimiser, state)
    write_run_json(fit.run, state)
