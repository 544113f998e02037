"""`judge`: an independent classifier of a data set's labels, trained on real images only; its files and its use.

It tells whether made images show what they should, so it must never see one: it is trained on the training partition
with every label shown, and judged itself on the validation partition. Writes one new folder.
"""

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError

from ccvae_deploy.errors import DataError, RunError, TrainingError, UsageError, WriteError, nearest
from ccvae_deploy.latest import RUNS
from ccvae_deploy.schema import Frozen, ImageSpec, LabelSet
from ccvae_deploy.storage.remote import local_path
from ccvae_deploy.storage.store import refuse_unwritable
from ccvae_deploy.terminal.progress import progress

from .accuracy import Accuracy, measure_accuracy
from .batches import epoch_order, images_of
from .config import Uncertain, make_config
from .datasets.dataset import MISSING, Dataset, Partition
from .datasets.source import open_dataset
from .device import Device, choose_device, keep_freed_memory
from .judge_network import JudgeNetwork, label_loss
from .label_columns import majority
from .loop import learning_rate
from .run_folder import versions
from .tensor_file import read_tensors, write_tensors

JUDGE = "judge.safetensors"
EPOCHS, PEAK, BATCH, CHUNK = 4, 2e-3, 64, 250
TOLD = ("accuracy", "floor", "balanced", "auroc", "average_precision")
"""Of every label; see `Accuracy`."""
Images = NDArray[np.float32]


class JudgeState(Frozen):
    """What a judge says of itself, the header of its file.

    Attributes:
        fingerprint: of the data it was trained on, images and labels.
        figures: on the validation partition, the means over labels, and `by_label`.
    """

    schema_version: int = Field(default=1, ge=1, le=1)
    data: str
    fingerprint: str
    labels: LabelSet
    image: ImageSpec
    epochs: int
    seed: int
    figures: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Judge:
    """A trained judge; `digest` is the sha256 of its file."""

    path: Path
    network: JudgeNetwork
    state: JudgeState
    device: Device
    digest: str

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Images (N, C, S, S) in [0, 1] to logits (N, Y)."""
        return self._batched(self.network, images)

    def features(self, images: Images) -> NDArray[np.float32]:
        """Images (N, C, S, S) in [0, 1] to features (N, 128)."""
        return self._batched(self.network.features, images)

    @torch.inference_mode()
    def _batched(self, part: Any, images: Images) -> NDArray[np.float32]:
        place = self.device.torch_device
        chunks = (images[start : start + CHUNK] for start in range(0, max(len(images), 1), CHUNK))
        found = [part(torch.from_numpy(np.ascontiguousarray(chunk)).to(place)).cpu().numpy() for chunk in chunks]
        return np.concatenate(found)


def judge(
    data: str = "portraits",
    *,
    labels: tuple[str, ...] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    uncertain: Uncertain | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    device: str = "auto",
    out: Path | str | None = None,
) -> Judge:
    """Train a judge and write it.

    Args:
        data: SOURCE, as `train` takes it.
        labels: the labels to tell; None takes the data set's own choice, as for image size, channels, and what
            uncertain labels count as.
        out: a new or empty folder; None takes `runs/judge-<data>-<size>-<rgb or l>-<fingerprint>`.

    Raises:
        CCVAEError: the folder is taken, the data do not agree, or the loss is not finite; nothing was written.
    """
    if epochs < 1:
        raise UsageError(f"--epochs {epochs}: expected 1 or more")
    if uncertain is not None and uncertain not in get_args(Uncertain):
        raise UsageError(f"--uncertain {uncertain}: {nearest(uncertain, get_args(Uncertain))}")
    make_config({"image_size": image_size, "channels": channels, "seed": seed}, "judge")
    chosen = choose_device(device)
    folder = None if out is None else local_path(out)
    refuse_taken(folder)
    dataset = open_dataset(data, labels=labels, size=image_size, channels=channels, seed=seed, uncertain=uncertain)
    return train_judge(dataset, folder or judge_folder(dataset, RUNS), epochs=epochs, seed=seed, device=chosen)


def judge_folder(data: Dataset, beside: Path) -> Path:
    """Where the judge of a data set lies unless told otherwise."""
    seen = f"{data.image.size}-{data.image.mode.lower()}"
    return beside / f"judge-{data.source.partition(':')[0]}-{seen}-{data.fingerprint[:8]}"


def refuse_taken(out: Path | None) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageError: it does.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(map(_of_others, out.iterdir()))):
        what = "holds a judge already; use it" if (out / JUDGE).is_file() else "is not empty; leave it"
        raise UsageError(f"{out} {what}, or give another --out")


def _of_others(path: Path) -> bool:
    """Whether it is more than what a judge that was cut off while it was written has left."""
    return not path.name.startswith(f".{JUDGE}.")


def train_judge(data: Dataset, out: Path, *, epochs: int, seed: int, device: Device) -> Judge:
    """Train on a data set that is open already; see `judge`."""
    refuse_taken(out)
    refuse_unwritable(out)
    if not len(data.train) or (data.train.labels == MISSING).all():
        raise DataError(f"{data.source} has no training image that shows a label, so no judge can learn; give --judge")
    keep_freed_memory(device)
    torch.manual_seed(seed)
    network = JudgeNetwork(data.image, data.labels).to(device.torch_device).to(memory_format=torch.channels_last)
    _fit(network, data, epochs, seed, device)
    network.eval()
    trained = Judge(out, network, _state(data, epochs, seed), device, "")
    figures = examine(trained, data.valid, data.train.labels)
    by_label = {
        name: {key: _known(getattr(figures, key)[i]) for key in TOLD} for i, name in enumerate(data.labels.names)
    }
    means = {name: _known(value) for name, value in figures.means().items()}
    save_judge(trained, trained.state.model_copy(update={"figures": {**means, "by_label": by_label}}))
    return load_judge(out, device)


def examine(judge: Judge, part: Partition, training_labels: NDArray[np.int8]) -> Accuracy:
    """The judge's own accuracy on real images."""
    device = judge.device
    rows = np.arange(len(part))
    with torch.inference_mode():
        logits = [
            judge.network(images_of(part.images, rows[i : i + CHUNK], device)).cpu() for i in range(0, len(rows), CHUNK)
        ]
    values = np.asarray(part.labels)
    return measure_accuracy(
        torch.cat(logits).numpy(), values, majority(training_labels, judge.state.labels), judge.state.labels
    )


def save_judge(judge: Judge, state: JudgeState) -> None:
    """Write `judge.safetensors`, and `judge.json` to read, so that the folder holds a whole judge or none.

    Raises:
        WriteError: the disk is full or refuses.
    """
    target = judge.path / JUDGE
    try:
        judge.path.mkdir(parents=True, exist_ok=True)
        write_tensors(target, judge.network.state_dict(), "ccvae_judge", state.model_dump_json())
        (judge.path / "judge.json").write_text(state.model_dump_json(indent=2) + "\n", "utf-8")
    except (OSError, SafetensorError) as error:
        raise WriteError(f"cannot write {target}: {error}; make room and start again") from error


def load_judge(folder: Path | str, device: Device) -> Judge:
    """Open a judge.

    Raises:
        RunError: there is none, or its file is damaged or of another version.
    """
    folder = local_path(folder)
    path = folder / JUDGE
    if not path.is_file():
        raise RunError(f"no {JUDGE} in {folder}; make one with `ccvae-deploy judge --out {folder}`")
    try:
        header, tensors = read_tensors(path, "ccvae_judge")
        state = JudgeState.model_validate_json(header)
        network = JudgeNetwork(state.image, state.labels)
        network.load_state_dict(tensors)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} is damaged: {reason}; remove {folder} and train the judge again") from error
    except ValidationError as error:
        raise RunError(f"{path} is not a judge of this version; remove {folder} and train the judge again") from error
    return Judge(folder, network.eval().to(device.torch_device), state, device, digest)


def _state(data: Dataset, epochs: int, seed: int) -> JudgeState:
    return JudgeState(
        data=data.source,
        fingerprint=data.fingerprint,
        labels=data.labels,
        image=data.image,
        epochs=epochs,
        seed=seed,
        figures={},
        versions=versions(),
    )


def _fit(network: JudgeNetwork, data: Dataset, epochs: int, seed: int, device: Device) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=1e-2)
    batches = len(epoch_order(len(data.train), BATCH, seed, 0))
    steps, step = epochs * batches, 0
    with progress("train the judge", steps * BATCH, "images") as bar:
        for epoch in range(epochs):
            began, total = time.monotonic(), 0.0
            for rows in epoch_order(len(data.train), BATCH, seed, epoch):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(step, steps, PEAK)
                values = torch.from_numpy(np.asarray(data.train.labels[rows], np.int64)).to(device.torch_device)
                with device.autocast():
                    logits = network(images_of(data.train.images, rows, device))
                loss = label_loss(logits.float(), values, data.labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total, step = total + float(loss.detach()), step + 1
                bar.advance(len(rows))
            if not np.isfinite(total):
                raise TrainingError(f"the judge's loss is not finite in epoch {epoch + 1}; nothing was written")
            rate = batches * len(rows) / (time.monotonic() - began)
            print(f"judge {epoch + 1}/{epochs}  {rate:,.0f} img/s  loss {total / batches:.4f}", file=sys.stderr)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 6)
