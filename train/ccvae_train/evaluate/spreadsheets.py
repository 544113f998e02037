"""An evaluation as CSV files: `figures.csv`, `summary.csv`, and one file per table of the protocols. Writes into its
folder.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from ccvae_deploy.storage.store import replace_file

from .protocols import MAIN
from .results import JUDGE_FIGURE, Evaluation, RunResult, mean_and_spread, values_of

FIGURES, SUMMARY = "figures.csv", "summary.csv"


def write_csvs(found: Evaluation) -> list[str]:
    """Write them and give their names. All but the summary have the run's name in their first column.

    Tables of one name have a file per set of columns, as runs of different labels have different ones.

    Raises:
        WriteError: the disk is full or refuses.
    """
    rows: list[Sequence[Any]] = []
    tables: dict[str, dict[tuple[str, ...], list[Sequence[Any]]]] = {}
    for run in found.runs:
        rows += _figures(run)
        for part in run.parts:
            for table in part.finding.get("tables", ()):
                kept = tables.setdefault(table["name"], {}).setdefault(("run", *table["columns"]), [])
                kept += [(run.name, *row) for row in table["rows"]]
    head = ("run", "model", "data", "partition", "supervision", "seed", "protocol", "figure", "value", "paper")
    written = [FIGURES, SUMMARY]
    replace_file(found.out / FIGURES, [_csv(head, rows)])
    replace_file(found.out / SUMMARY, [_csv(*_summary(found))])
    for name, by_columns in tables.items():
        for number, (columns, kept) in enumerate(by_columns.items(), start=1):
            ending = "" if number == 1 else f"-{number}"
            written.append(f"{name}{ending}.csv")
            replace_file(found.out / written[-1], [_csv(columns, kept)])
    return written


def _figures(run: RunResult) -> list[Sequence[Any]]:
    """All figures of a run, and that of its judge, with what the run is."""
    what = run.name, run.model, run.data, run.partition, run.supervision, run.seed
    rows: list[Sequence[Any]] = [
        (*what, part.protocol, *pair, run.paper(pair[0])) for part in run.parts for pair in part.figures.items()
    ]
    own = run.figure(JUDGE_FIGURE)
    return rows if own is None else [*rows, (*what, "judge", JUDGE_FIGURE, own, None)]


def _summary(found: Evaluation) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """The paper's tables: per main figure, model, data and rate the mean and deviation over seeds, and the paper's."""
    rows: list[Sequence[Any]] = []
    for figure, source in MAIN:
        for (model, rate, data), runs in found.groups().items():
            mean, spread = mean_and_spread(runs, figure)
            what = figure, source, model, data, runs[0].partition, rate
            if mean is not None:
                rows.append((*what, len(values_of(runs, figure)), mean, spread, runs[0].paper(figure)))
    return ("figure", "source", "model", "data", "partition", "supervision", "runs", "mean", "deviation", "paper"), rows


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
