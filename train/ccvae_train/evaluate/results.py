"""The result of an evaluation: what every protocol found on every run, as objects and as JSON. Pure data."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paper import published

JUDGE_FIGURE = "judge's own accuracy"
VALIDATED = {"celeba": "see --partition test", "chexpert": "chexpert:DIR has none of these"}
"""Data of which the paper reports on test images, and we on validation images; and how to have those."""


@dataclass(frozen=True)
class Part:
    """One protocol on one run.

    Attributes:
        finding: `Finding.to_json`; empty when it was skipped, and then `skipped` says why.
        pictures: name to PNG file.
    """

    protocol: str
    finding: Mapping[str, Any]
    skipped: str
    seconds: float
    pictures: Mapping[str, Path]

    @property
    def figures(self) -> Mapping[str, float | None]:
        """Figures by name."""
        figures: Mapping[str, float | None] = self.finding.get("figures", {})
        return figures


@dataclass(frozen=True)
class RunResult:
    """All protocols on one run.

    Attributes:
        name: unique among the runs of an evaluation.
        model: the family, the estimator where it is not the default, and settings that runs of one rate differ in.
        partition: `valid` or `test`.
        fingerprint: of the data; runs of one source may validate on different images of it.
        papers_labels: whether it was trained and evaluated on the paper's labels of these data.
        judged_by: the name of the judge's folder, or nothing.
        judge: figures of the judge itself.
        notes: what a reader of its figures must know.
    """

    name: str
    path: Path
    family: str
    model: str
    supervision: float
    seed: int
    data: str
    partition: str
    fingerprint: str
    papers_labels: bool
    judged_by: str
    judge: Mapping[str, Any]
    notes: tuple[str, ...]
    parts: tuple[Part, ...]

    def figure(self, name: str) -> float | None:
        """A figure by name, None where no protocol has found it."""
        if name == JUDGE_FIGURE:
            own: float | None = self.judge.get("accuracy")
            return own
        return next((part.figures[name] for part in self.parts if name in part.figures), None)

    def paper(self, name: str) -> float | None:
        """What the paper reports as this figure, None where it has none or its labels are others."""
        return published(name, self.data, self.family, self.supervision) if self.papers_labels else None

    def to_json(self) -> dict[str, Any]:
        """As `evaluation.json` holds it."""
        return {
            "name": self.name,
            "path": str(self.path),
            "model": self.model,
            "supervision": self.supervision,
            "seed": self.seed,
            "data": self.data,
            "partition": self.partition,
            "fingerprint": self.fingerprint,
            "judged_by": self.judged_by,
            "judge": dict(self.judge),
            "notes": list(self.notes),
            "protocols": {
                part.protocol: {"skipped": part.skipped} if part.skipped else {**part.finding, "seconds": part.seconds}
                for part in self.parts
            },
        }


@dataclass(frozen=True)
class Evaluation:
    """The runs of one evaluation and where it was written."""

    out: Path
    runs: tuple[RunResult, ...]

    def groups(self) -> dict[tuple[str, float, str], list[RunResult]]:
        """Runs that differ in seed only, by (model, supervision, data)."""
        found: dict[tuple[str, float, str], list[RunResult]] = {}
        for run in self.runs:
            found.setdefault((run.model, run.supervision, run.data), []).append(run)
        return found

    def notes(self) -> list[str]:
        """What a reader must know: of single runs, and of means over seeds."""
        found = [note for run in self.runs for note in run.notes]
        validated = [run.data.partition(":")[0] for run in self.runs if run.partition == "valid" and run.papers_labels]
        found += [
            f"Ours are figures of validation images, the paper's figures are of test images; {VALIDATED[kind]}."
            for kind in validated
            if kind in VALIDATED
        ]
        for (model, rate, data), runs in self.groups().items():
            alike = f"The runs of {model} on {data}, f {rate:g},"
            if len({run.fingerprint for run in runs}) > 1:
                found.append(f"{alike} validate on different images, drawn by their seeds: ± holds that too.")
            if len({run.seed for run in runs}) < len(runs):
                found.append(f"{alike} are not all of different seeds: ± holds less than chance between seeds.")
            names = dict.fromkeys(name for run in runs for part in run.parts for name in part.figures)
            partly = [name for name in names if 0 < len(values_of(runs, name)) < len(runs)]
            if partly:
                found.append(f"{alike} do not all have a finite {', '.join(partly)}: means are of those that have.")
        return list(dict.fromkeys(found))


def values_of(runs: list[RunResult], figure: str) -> list[float]:
    """A figure of those runs that have it."""
    return [value for run in runs if (value := run.figure(figure)) is not None]


def mean_and_spread(runs: list[RunResult], figure: str) -> tuple[float | None, float | None]:
    """Mean of a figure over the runs that have it, and its standard deviation where these are two or more."""
    values = values_of(runs, figure)
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
