"""`evaluate`: protocols over trained runs, resumable, to tables, files and one page. What the command line calls.

Writes one output folder, and the judge beside the runs where it is missing.
"""

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ccvae_deploy.edits.request import refuse_seed
from ccvae_deploy.errors import UsageError, nearest
from ccvae_deploy.latest import LATEST
from ccvae_deploy.storage.plain import read_plain
from ccvae_deploy.storage.remote import Paths, local_path, paths
from ccvae_deploy.storage.store import inside, refuse_unwritable, replace_file
from ccvae_deploy.terminal.printable import printable
from ccvae_deploy.terminal.progress import Reporter, progress

from ..checkpoint import TrainedRun, resolve_run
from ..device import Device, choose_device
from ..judge import JUDGE
from . import inception as fid
from .bench import Bench, Settings
from .finding import Skipped
from .jobs import Job, digest_of, judged, loaded_run, model_names, on_papers_labels, open_jobs, test_images
from .parts import part_key, read_part, write_part
from .protocols import Protocol, chosen
from .report import write_page
from .results import Evaluation, Part, RunResult
from .spreadsheets import write_csvs
from .subject import subject_of

PARTS, EVALUATION = "parts", "evaluation.json"
EVALUATION_LIMIT = 256 << 20
FEWEST = 60
PARTITIONS = ("valid", "test")


def evaluate(
    runs: Paths = (LATEST,),
    *,
    data: str | None = None,
    partition: str = "valid",
    protocols: Sequence[str] = (),
    images: int = 1000,
    seed: int = 0,
    judge: Path | str | None = None,
    inception: Path | str | None = None,
    device: str = "auto",
    out: Path | str | None = None,
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
    weights = None if inception is None else local_path(inception)
    selected, settings = chosen(protocols), Settings(images, seed, weights, partition)
    _refuse_settings(settings, selected)
    judge = None if judge is None else local_path(judge)
    out = None if out is None else local_path(out)
    loaded = _loaded([local_path(run) for run in paths(runs)])
    folder = _output_folder(out, [run for run, _ in loaded])
    chosen_device = choose_device(device)
    jobs = _jobs(loaded, data, folder, settings, selected, judge, chosen_device)
    for note in dict.fromkeys(note for job in jobs for note in job.notes):
        print(f"note: {printable(note)}", file=sys.stderr)
    with progress("evaluate", len(jobs) * len(selected), "protocols") as bar:
        results = tuple(
            _evaluate_run(job, model, chosen_device, selected, settings, folder / PARTS / job.name, bar)
            for job, model in zip(jobs, model_names(jobs), strict=True)
        )
    found = Evaluation(folder, results)
    write_evaluation(found, settings)
    return found


def _refuse_settings(settings: Settings, protocols: Sequence[Protocol]) -> None:
    if settings.images < FEWEST:
        raise UsageError(f"--images {settings.images}: fewer than {FEWEST} say nothing")
    refuse_seed(settings.seed)
    if settings.partition not in PARTITIONS:
        raise UsageError(f"--partition {settings.partition}: {nearest(settings.partition, PARTITIONS)}")
    if settings.inception is not None and any(protocol.name == fid.NAME for protocol in protocols):
        _refuse_weights(settings.inception)


def _loaded(runs: Sequence[Path]) -> list[tuple[TrainedRun, str]]:
    """Every run once, with the sha256 of its checkpoint."""
    # runs/* holds runs/latest too, and what judges them
    named = [path for path in runs if not (path / JUDGE).is_file()]
    loaded = [loaded_run(path) for path in {resolve_run(path).resolve(): path for path in named}.values()]
    if not loaded:
        raise UsageError("no run to evaluate; name one, such as runs/latest")
    return loaded


def _output_folder(out: Path | None, runs: Sequence[TrainedRun]) -> Path:
    """`out`, or where an evaluation of these runs lies unless told otherwise."""
    folder = out or (runs[0].path / "evaluation" if len(runs) == 1 else Path("evaluation"))
    _refuse_taken(folder)
    if out is None and len(runs) == 1 and not inside(folder, runs[0].path):
        raise UsageError(f"{folder} is a link out of its run; name where it leads with --out")
    return folder


def _jobs(
    loaded: Sequence[tuple[TrainedRun, str]],
    data: str | None,
    folder: Path,
    settings: Settings,
    protocols: Sequence[Protocol],
    judge: Path | None,
    device: Device,
) -> list[Job]:
    """The runs with their data and judges."""
    jobs = open_jobs(loaded, data)
    for job in jobs:
        _refuse_led_away(folder, job.name)
    tests = [test_images(job) for job in jobs] if settings.partition == "test" else []
    if judge is not None or any(protocol.judged for protocol in protocols):
        jobs = judged(jobs, judge, device)
    if tests:
        # after the judge, whose own figures are of validation images always
        jobs = [replace(job, data=tested, tested=key) for job, (tested, key) in zip(jobs, tests, strict=True)]
    return jobs


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


def _refuse_led_away(folder: Path, name: str) -> None:
    if not inside(folder / PARTS / name, folder):
        raise UsageError(f"{folder / PARTS} or what lies there is a link out of the evaluation; remove it")


def _evaluate_run(
    job: Job,
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
        weights = digest_of(settings.inception) if settings.inception and protocol.name == fid.NAME else ""
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
        name=job.name,
        path=job.run.path,
        family=state.model.family,
        model=model,
        supervision=config.supervision,
        seed=config.seed,
        data=job.data.source,
        partition=settings.partition,
        fingerprint=job.data.fingerprint,
        papers_labels=on_papers_labels(job.run, job.data.source),
        judged_by=job.judge.path.name if job.judge else "",
        judge=job.judge.state.figures if job.judge else {},
        notes=job.notes,
        parts=tuple(parts),
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
