"""`evaluate`: protocols over trained runs, resumable, to tables, files and one page. What the command line calls.

Writes one output folder, and the judge beside the runs where it is missing.
"""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccvae_deploy.edits.request import refuse_seed
from ccvae_deploy.errors import DataError, UsageError, nearest
from ccvae_deploy.latest import LATEST
from ccvae_deploy.schema import ImageSpec, LabelSet
from ccvae_deploy.storage.plain import read_plain
from ccvae_deploy.storage.store import inside, refuse_unwritable, replace_file, writable
from ccvae_deploy.terminal.printable import printable
from ccvae_deploy.terminal.progress import Reporter, progress

from ..checkpoint import CHECKPOINT, TrainedRun, load_run, resolve_run
from ..datasets.dataset import Dataset
from ..datasets.source import open_dataset, test_partition
from ..device import Device, choose_device
from ..judge import EPOCHS, JUDGE, Judge, judge_folder, load_judge, train_judge
from . import inception as fid
from .bench import Bench, Settings
from .finding import Skipped
from .paper import has_papers_labels
from .parts import part_key, read_part, runs_folders, write_part
from .protocols import Protocol, chosen
from .report import write_page
from .results import Evaluation, Part, RunResult
from .spreadsheets import write_csvs
from .subject import subject_of

PARTS, EVALUATION = "parts", "evaluation.json"
EVALUATION_LIMIT = 256 << 20
FEWEST = 60
PARTITIONS = ("valid", "test")
EFFORT = ("epochs", "batch_size", "latents", "flip", "shift")
"""Settings in which models that stand beside each other should agree."""


@dataclass(frozen=True)
class _Job:
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


def evaluate(
    runs: Sequence[Path] = (LATEST,),
    *,
    data: str | None = None,
    partition: str = "valid",
    protocols: Sequence[str] = (),
    images: int = 1000,
    seed: int = 0,
    judge: Path | None = None,
    inception: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> Evaluation:
    """Evaluate runs by the paper's protocols.

    Started again, finished protocols are taken from the output folder where settings, checkpoint, judge and data
    agree. A protocol that does not apply or lacks its extra is listed as skipped.

    Args:
        data: SOURCE to evaluate on; None takes the data of each run.
        partition: `valid`, or `test` where the data set has one; no image of it has been seen by run or judge.
        runs: run folders; one counts once by whatever name, judges' folders among them are passed over.
        protocols: their names; none means all.
        images: real images (and generated ones) per protocol, 60 or more.
        judge: a judge's folder; None takes the one beside the runs, and trains it where it is missing.
        inception: a file of Inception weights, for the FID.
        out: the output folder; None takes `RUN/evaluation` for one run, `evaluation` for several.

    Raises:
        CCVAEError: refused before work: a run, a name, data or a folder that does not fit.
    """
    selected = chosen(protocols)
    if images < FEWEST:
        raise UsageError(f"--images {images}: fewer than {FEWEST} say nothing")
    refuse_seed(seed)
    if partition not in PARTITIONS:
        raise UsageError(f"--partition {partition}: {nearest(partition, PARTITIONS)}")
    if inception is not None and any(protocol.name == fid.NAME for protocol in selected):
        _refuse_weights(inception)
    # runs/* holds runs/latest too, and what judges them
    named = [path for path in runs if not (path / JUDGE).is_file()]
    loaded = [_loaded(path) for path in {resolve_run(path).resolve(): path for path in named}.values()]
    if not loaded:
        raise UsageError("no run to evaluate; name one, such as runs/latest")
    folder = out or (loaded[0][0].path / "evaluation" if len(loaded) == 1 else Path("evaluation"))
    _refuse_taken(folder)
    if out is None and len(loaded) == 1 and not inside(folder, loaded[0][0].path):
        raise UsageError(f"{folder} is a link out of its run; name where it leads with --out")
    chosen_device = choose_device(device)
    jobs = _jobs(loaded, data)
    for job in jobs:
        _refuse_led_away(folder, job.name)
    tested = [_tested(job) for job in jobs] if partition == "test" else []
    if judge is not None or any(protocol.judged for protocol in selected):
        jobs = _judged(jobs, judge, chosen_device)
    if partition == "test":
        # after the judge, whose own figures are of validation images always
        jobs = [replace(job, data=data, tested=key) for job, (data, key) in zip(jobs, tested, strict=True)]
    for note in dict.fromkeys(note for job in jobs for note in job.notes):
        print(f"note: {printable(note)}", file=sys.stderr)
    settings = Settings(images, seed, inception, partition)
    with progress("evaluate", len(jobs) * len(selected), "protocols") as bar:
        results = tuple(
            _evaluate_run(job, model, chosen_device, selected, settings, folder / PARTS / job.name, bar)
            for job, model in zip(jobs, _models(jobs), strict=True)
        )
    found = Evaluation(folder, results)
    write_evaluation(found, settings)
    return found


def write_evaluation(found: Evaluation, settings: Settings) -> None:
    """`evaluation.json`, the tables as CSV, and `report.html`; tables of an evaluation before this one go.

    Raises:
        WriteError: the disk is full or refuses.
    """
    before, csvs = _tables_before(found.out), write_csvs(found)
    for name in before - {*csvs}:
        (found.out / name).unlink(missing_ok=True)
    content = {
        "schema_version": 1,
        "settings": {
            "partition": settings.partition,
            "images": settings.images,
            "seed": settings.seed,
            "inception": settings.inception is not None,
        },
        "tables": csvs,
        "runs": [run.to_json() for run in found.runs],
    }
    replace_file(found.out / EVALUATION, [json.dumps(content, indent=1).encode()])
    write_page(found)


def _tables_before(out: Path) -> set[str]:
    """The CSV files that the last evaluation in this folder has written."""
    try:
        names = json.loads(read_plain(out / EVALUATION, EVALUATION_LIMIT))["tables"]
        return {name for name in names if Path(name).name == name and name.endswith(".csv")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _refuse_weights(inception: Path) -> None:
    """Hours of work must not end at a file that holds something else."""
    if not inception.is_file():
        raise UsageError(f"--inception {inception}: no such file")
    with contextlib.suppress(Skipped):
        fid.inception(inception)


def _refuse_taken(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / PARTS).is_dir())):
        raise UsageError(f"{folder} holds something that is no evaluation; give another --out")
    refuse_unwritable(folder)


def _loaded(path: Path) -> tuple[TrainedRun, str]:
    """A run and the sha256 of its checkpoint, which a training that goes on replaces now and then."""
    while True:
        digest = _digest_of(path)
        run = load_run(path)
        if _digest_of(path) == digest:
            return run, digest


def _digest_of(path: Path) -> str:
    with (resolve_run(path) / CHECKPOINT).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _jobs(loaded: Sequence[tuple[TrainedRun, str]], source: str | None) -> list[_Job]:
    """Open the data of every run, once where runs share them."""
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
                uncertain=config.uncertain if _kind(asked) == _kind(config.data) else None,
            )
        data = opened[key]
        _refuse_other_labels(run, data)
        notes = (_unfinished(run), _changed_data(run, data) if _same_place(asked, config.data) else "")
        jobs.append(_noted(_Job(name, run, digest, data, None), *notes))
    return jobs


def _tested(job: _Job) -> tuple[Dataset, str]:
    """The data of a job with its test images in place of those that validate, and what tells them from others."""
    tested, fingerprint = test_partition(
        job.data.source,
        labels=job.run.labels.names,
        size=job.run.image.size,
        channels=job.run.image.channels,
    )
    return replace(job.data, valid=tested), fingerprint


def _refuse_led_away(folder: Path, name: str) -> None:
    if not inside(folder / PARTS / name, folder):
        raise UsageError(f"{folder / PARTS} or what lies there is a link out of the evaluation; remove it")


def _noted(job: _Job, *notes: str) -> _Job:
    """The job with what its reader must know."""
    return replace(job, notes=(*job.notes, *filter(None, notes)))


def _models(jobs: Sequence[_Job]) -> list[str]:
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


def _settings(job: _Job) -> dict[str, Any]:
    """What a run was trained with, but for what makes it one of several alike."""
    settings = job.run.state.config.model_dump(mode="json", exclude={"seed", "device"})
    done, asked = _epochs_done(job.run), settings["epochs"]
    return settings | ({"epochs": f"{done} of {asked}"} if done < asked else {})


def _epochs_done(run: TrainedRun) -> int:
    """Whole epochs that its weights have seen."""
    return int(run.provenance.get("epochs_done", 0))


def _unfinished(run: TrainedRun) -> str:
    done, asked = _epochs_done(run), run.state.config.epochs
    return f"{run.path} has been trained for {done} of {asked} epochs" if done < asked else ""


def _varies(name: str, settings: Sequence[dict[str, Any]]) -> bool:
    return any(one[name] != settings[0][name] for one in settings)


def _judged(jobs: Sequence[_Job], judge: Path | None, device: Device) -> list[_Job]:
    """The jobs with their judges, one where runs share it; a missing one is trained."""
    judges: dict[tuple[str, ImageSpec], Judge] = {}
    judged = []
    for job in jobs:
        seen = job.data.fingerprint, job.data.image
        if seen not in judges:
            judges[seen] = _judge_of(job.data, job.run, judge, device)
        judged.append(_noted(replace(job, judge=judges[seen]), _other_split(judges[seen], job.data)))
    return judged


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


def _same_place(source: str, other: str) -> bool:
    """Whether two sources are one, however its folder is spelled."""
    kinds, folders = zip(*(one.partition(":")[::2] for one in (source, other)), strict=True)
    return kinds[0] == kinds[1] and Path(folders[0]).resolve() == Path(folders[1]).resolve()


def _kind(source: str) -> str:
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


def _evaluate_run(
    job: _Job,
    model: str,
    device: Device,
    protocols: Sequence[Protocol],
    settings: Settings,
    folder: Path,
    bar: Reporter,
) -> RunResult:
    subject = subject_of(job.run, device)
    prior = np.asarray(job.run.label_prior, np.float64)
    bench = Bench.of(subject, job.judge, job.data, prior, settings)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for protocol in protocols:
        weights = settings.inception if protocol.name == fid.NAME else None
        key = part_key(
            *(protocol.name, settings.images, settings.seed, weights, job.tested),
            *(job.digest, job.judge.digest if job.judge and protocol.judged else "", job.data.fingerprint),
        )
        part = read_part(folder, protocol.name, key) or _run(protocol, bench, folder, key)
        parts.append(part)
        done = "skipped" if part.skipped else f"{part.seconds:.1f} s"
        bar.line(f"{printable(job.name)}: {protocol.name}, {done}")
        bar.advance()
    state, config = job.run.state, job.run.state.config
    return RunResult(
        job.name,
        job.run.path,
        state.model.family,
        model,
        config.supervision,
        config.seed,
        job.data.source,
        settings.partition,
        job.data.fingerprint,
        has_papers_labels(job.data.source, job.run.labels.names, job.run.image.size)
        and _kind(config.data) == _kind(job.data.source),
        job.judge.path.name if job.judge else "",
        job.judge.state.figures if job.judge else {},
        job.notes,
        tuple(parts),
    )


def _run(protocol: Protocol, bench: Bench, folder: Path, key: str) -> Part:
    began = time.monotonic()
    try:
        finding = protocol.run(bench)
    except Skipped as reason:
        # not stored: the extra may be there next time
        return Part(protocol.name, {}, str(reason), 0.0, {})
    counted = replace(finding, images=finding.images or len(bench.images))
    return write_part(folder, protocol.name, key, counted, time.monotonic() - began)
