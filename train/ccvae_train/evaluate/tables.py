"""Tables of an evaluation for a terminal of 80 columns. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ccvae_deploy.terminal.printable import printable

from ..judge import TOLD, JudgeState
from .protocols import MAIN
from .results import Evaluation, RunResult, mean_and_spread

if TYPE_CHECKING:
    from rich.table import Table as RichTable

JUDGED = dict(zip(("accuracy", "floor", "balanced", "AUROC", "AP"), TOLD, strict=True))
"""Columns about a judge, and the keys of their figures."""


def judge_table(state: JudgeState) -> "RichTable":
    """The judge's own figures per label, on real images that it was not trained on."""
    table = _titled(f"judge of {state.data}, on real validation images")
    table.add_column("label")
    for name in JUDGED:
        table.add_column(name, justify="right")
    means = {key: value for key, value in state.figures.items() if key != "by_label"}
    for label, figures in [*state.figures["by_label"].items(), ("mean over labels", means)]:
        table.add_row(_plain(label), *(cell(figures.get(key)) for key in JUDGED.values()))
    return table


def evaluation_tables(found: Evaluation) -> Iterator["RichTable"]:
    """One table of all main figures for runs of one kind; for several kinds a table per figure, models by rates."""
    groups = found.groups()
    if len(groups) == 1:
        yield _figures(next(iter(groups.values())))
    else:
        for figure, source in MAIN:
            if any(run.figure(figure) is not None for run in found.runs):
                yield _models_by_rates(found, figure, f"{figure} ({source})")
    yield from _notes(found)


def _notes(found: Evaluation) -> Iterator["RichTable"]:
    """What was skipped, of which runs and why, and what a reader must know."""
    skipped: dict[tuple[str, str], list[str]] = {}
    for run in found.runs:
        for part in run.parts:
            if part.skipped:
                skipped.setdefault((part.protocol, part.skipped), []).append(run.name)
    if skipped:
        table = _titled("skipped")
        table.add_column("protocol")
        table.add_column("why", overflow="fold")
        for (name, reason), runs in skipped.items():
            of = "" if len(runs) == len(found.runs) else f"{', '.join(runs)}: "
            table.add_row(name, _plain(of + reason))
        yield table
    if notes := found.notes():
        table = _titled("note")
        table.show_header = False
        table.add_column(overflow="fold")
        for note in notes:
            table.add_row(_plain(note))
        yield table


def _figures(runs: list[RunResult]) -> "RichTable":
    first = runs[0]
    seeds = f", {len(runs)} runs" if len(runs) > 1 else ""
    images = ", test images" if first.partition == "test" else ""
    table = _titled(f"{first.model} on {first.data}, f = {first.supervision:g}{seeds}{images}")
    table.add_column("figure")
    table.add_column("ours", justify="right")
    table.add_column("paper", justify="right")
    table.add_column("source")
    for figure, source in MAIN:
        ours = mean_and_spread(runs, figure)
        if ours[0] is not None:
            table.add_row(_plain(figure), spread_cell(*ours), cell(first.paper(figure)), source)
    return table


def _models_by_rates(found: Evaluation, figure: str, title: str) -> "RichTable":
    """A row per model and data, a column per supervision rate; the paper's figure in brackets."""
    groups = found.groups()
    rates = sorted({rate for _, rate, _ in groups})
    several = len({data for _, _, data in groups}) > 1
    table = _titled(title)
    table.add_column("model")
    for rate in rates:
        table.add_column(f"f = {rate:g}", justify="right")
    for model, data in dict.fromkeys((model, data) for model, _, data in groups):
        cells = []
        for rate in rates:
            runs = groups.get((model, rate, data), [])
            text = spread_cell(*mean_and_spread(runs, figure))
            paper = runs[0].paper(figure) if runs else None
            cells.append(text if paper is None else f"{text} ({cell(paper)})")
        table.add_row(_plain(f"{model}, {data}" if several else model), *cells)
    return table


def _titled(title: str) -> "RichTable":
    from rich.table import Table as RichTable

    return RichTable(title=_plain(title), title_justify="left")


def _plain(text: str) -> str:
    """Text in which rich finds no markup, and a terminal no commands."""
    from rich.markup import escape

    return escape(printable(text))


def cell(value: float | None) -> str:
    """A figure as people read it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.4f}"


def spread_cell(mean: float | None, spread: float | None) -> str:
    """A mean with its standard deviation where there is one."""
    return cell(mean) if spread is None else f"{cell(mean)} ± {cell(spread)}"
