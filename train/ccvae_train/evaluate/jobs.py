"""What an evaluation is of: runs, their data, the judges of these, and what a reader must know of each. Reads them, and
trains the judge beside the runs where it is missing.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccvae_deploy.errors import DataError, UsageError
from ccvae_deploy.schema import ImageSpec, LabelSet
from ccvae_deploy.storage.store import writable

from ..checkpoint import CHECKPOINT, TrainedRun, load_run, resolve_run
from ..datasets.dataset import Dataset
from ..datasets.source import open_dataset, test_partition
from ..device import Device
from ..judge import EPOCHS, JUDGE, Judge, judge_folder, load_judge, train_judge
from .paper import has_papers_labels, published, unlike_recipe
from .parts import runs_folders

EFFORT = ("epochs", "batch_size", "latents", "flip", "shift")
"""Settings in which models that stand beside each other should agree."""


@dataclass(frozen=True)
class Job:
    """One run with what it is judged by.

    Attributes:
        notes: what a reader of its figures must know.
        tested: the fingerprint of the test images that stand in `data` for those that validate, or nothing.
    """

    name: str
    run: TrainedRun
    digest: str
    data: Dataset
    judge: Judge | None
    notes: tuple[str, ...] = ()
    tested: str = ""


def loaded_run(path: Path) -> tuple[TrainedRun, str]:
    """A run and the sha256 of its checkpoint, which a training that goes on replaces now and then.

    Raises:
        RunError: there is no run, or its checkpoint cannot be used.
    """
    while True:
        digest = digest_of(resolve_run(path) / CHECKPOINT)
        run = load_run(path)
        if digest_of(resolve_run(path) / CHECKPOINT) == digest:
            return run, digest


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_jobs(loaded: Sequence[tuple[TrainedRun, str]], source: str | None) -> list[Job]:
    """Open the data of every run, once where runs share them.

    Args:
        source: SOURCE for all of them; None takes the data of each run.

    Raises:
        CCVAEError: data that do not open, have other classes, or have nothing to evaluate on.
    """
    runs, digests = [run for run, _ in loaded], [digest for _, digest in loaded]
    names = runs_folders([run.path.resolve().name for run in runs], digests)
    opened: dict[str, Dataset] = {}
    jobs = []
    for name, run, digest in zip(names, runs, digests, strict=True):
        asked, config = source or run.state.config.data, run.state.config
        key = json.dumps([asked, run.labels.names, run.image.size, run.image.channels, config.seed, config.uncertain])
        if key not in opened:
            opened[key] = open_dataset(
                asked,
                labels=run.labels.names,
                size=run.image.size,
                channels=run.image.channels,
                seed=config.seed,
                uncertain=config.uncertain if kind_of(asked) == kind_of(config.data) else None,
            )
        data = opened[key]
        _refuse_other_labels(run, data)
        changed = _changed_data(run, data) if _same_place(asked, config.data) else ""
        jobs.append(_noted(Job(name, run, digest, data, None), _unfinished(run), changed, other_setting(run, asked)))
    return jobs


def test_images(job: Job) -> tuple[Dataset, str]:
    """The data of a job with its test images in place of those that validate, and what tells them from others.

    Raises:
        CCVAEError: the data set has none, or they do not open.
    """
    tested, fingerprint = test_partition(
        job.data.source,
        labels=job.run.labels.names,
        size=job.run.image.size,
        channels=job.run.image.channels,
    )
    return replace(job.data, valid=tested), fingerprint


def _noted(job: Job, *notes: str) -> Job:
    """The job with what its reader must know."""
    return replace(job, notes=(*job.notes, *filter(None, notes)))


def model_names(jobs: Sequence[Job]) -> list[str]:
    """What the model of each run is called, so that runs of one name, rate and data differ in seed only: the family,
    the estimator where it is not the default, and every setting in which such runs do not agree; how long they were
    trained is compared over all models.
    """
    alike: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    beside: dict[tuple[float, str], list[dict[str, Any]]] = {}
    named = []
    for job in jobs:
        config = job.run.state.config
        family = job.run.state.model.family
        name = family if config.estimator == "exact" else f"{family} {config.estimator}"
        named.append((name, config.supervision, job.data.source))
        alike.setdefault(named[-1], []).append(_settings(job))
        beside.setdefault(named[-1][1:], []).append(_settings(job))
    return [
        " ".join(
            [
                key[0],
                *(
                    f"{name}={value}"
                    for name, value in _settings(job).items()
                    if _varies(name, beside[key[1:]] if name in EFFORT else alike[key])
                ),
            ]
        )
        for key, job in zip(named, jobs, strict=True)
    ]


def _settings(job: Job) -> dict[str, Any]:
    """What a run was trained with, but for what makes it one of several alike."""
    settings = job.run.state.config.model_dump(mode="json", exclude={"seed", "device"})
    done, asked = _epochs_done(job.run), settings["epochs"]
    return settings | ({"epochs": f"{done} of {asked}"} if done < asked else {})


def _epochs_done(run: TrainedRun) -> int:
    """Whole epochs that its weights have seen."""
    done = run.provenance.get("epochs_done")
    return done if isinstance(done, int) else 0


def _unfinished(run: TrainedRun) -> str:
    done, asked = _epochs_done(run), run.state.config.epochs
    return f"{run.path} has been trained for {done} of {asked} epochs" if done < asked else ""


def _varies(name: str, settings: Sequence[dict[str, Any]]) -> bool:
    return any(one[name] != settings[0][name] for one in settings)


def judged(jobs: Sequence[Job], judge: Path | None, device: Device) -> list[Job]:
    """The jobs with their judges, one where runs share it; a missing one is trained.

    Args:
        judge: its folder; None takes the one beside the run.

    Raises:
        CCVAEError: a judge of other labels or images, or no place for one.
    """
    judges: dict[tuple[str, ImageSpec], Judge] = {}
    found = []
    for job in jobs:
        seen = job.data.fingerprint, job.data.image
        if seen not in judges:
            judges[seen] = _judge_of(job.data, job.run, judge, device)
        found.append(_noted(replace(job, judge=judges[seen]), _other_split(judges[seen], job.data)))
    return found


def _refuse_other_labels(run: TrainedRun, data: Dataset) -> None:
    for ours, theirs in zip(run.labels.labels, data.labels.labels, strict=True):
        if (ours.name, ours.classes) != (theirs.name, theirs.classes):
            raise DataError(f"label {theirs.name} of {data.source} has other classes than that of {run.path}")
    if not len(data.valid):
        raise DataError(f"{data.source} has no images to evaluate on")


def _changed_data(run: TrainedRun, data: Dataset) -> str:
    if data.fingerprint == run.provenance.get("fingerprint", data.fingerprint):
        return ""
    return (
        f"{data.source} has changed since {run.path} was trained on it; if what validates now was learned from then, "
        "its figures are too good"
    )


def _other_split(judge: Judge, data: Dataset) -> str:
    if judge.state.fingerprint == data.fingerprint:
        return ""
    return (
        f"the judge {judge.path} was trained on another split, other images or other labels than those of "
        f"{data.source}; if it has seen what is evaluated on, its figures are too good"
    )


def on_papers_labels(run: TrainedRun, source: str) -> bool:
    """Whether a run was trained, and is evaluated, on labels and images of which the paper reports."""
    return kind_of(run.state.config.data) == kind_of(source) and has_papers_labels(source, run.labels.names, run.image)


def other_setting(run: TrainedRun, source: str) -> str:
    """Where the paper's figure stands beside that of a run with another setting of these data."""
    config = run.state.config
    if not on_papers_labels(run, source):
        return ""
    if published("accuracy", source, run.state.model.family, config.supervision) is None:
        return ""
    differing = unlike_recipe(source, run.image.channels, config.uncertain)
    beside = f"the paper's figures stand beside {run.path}, whose setting is not that of {kind_of(source)}-paper"
    return f"{beside}: {differing}" if differing else ""


def _same_place(source: str, other: str) -> bool:
    """Whether two sources are one, however its folder is spelled."""
    kinds, folders = zip(*(one.partition(":")[::2] for one in (source, other)), strict=True)
    return kinds[0] == kinds[1] and Path(folders[0]).resolve() == Path(folders[1]).resolve()


def kind_of(source: str) -> str:
    """Which data set a source is of, such as `celeba`."""
    return source.partition(":")[0]


def _judge_of(data: Dataset, run: TrainedRun, given: Path | None, device: Device) -> Judge:
    folder = given or judge_folder(data, run.path.resolve().parent)
    if given or (folder / JUDGE).is_file():
        found = load_judge(folder, device)
        if _meanings(found.state.labels) != _meanings(data.labels) or found.state.image != data.image:
            raise UsageError(f"the judge {folder} tells other labels, or images of another size, than {run.path} has")
        return found
    if not writable(folder):
        raise UsageError(
            f"no judge can be written at {folder}; train one elsewhere with `ccvae-deploy judge --out FOLDER`, and "
            "name it with --judge"
        )
    return train_judge(data, folder, epochs=EPOCHS, seed=0, device=device)


def _meanings(labels: LabelSet) -> list[tuple[str, tuple[str, ...]]]:
    return [(label.name, label.classes) for label in labels.labels]
