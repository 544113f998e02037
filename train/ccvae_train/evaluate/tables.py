"""Tables of an evaluation for a terminal of 80 columns. Pure."""

from typing import TYPE_CHECKING

from ..judge import JudgeState

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def judge_table(state: JudgeState) -> "RichTable":
    """The judge's own figures per label, on real images that it was not trained on."""
    from rich.table import Table as RichTable

    table = RichTable(title=f"judge of {state.data}, on real validation images", title_justify="left")
    table.add_column("label")
    for name in ("accuracy", "floor", "balanced", "AUROC"):
        table.add_column(name, justify="right")
    means = {key: value for key, value in state.figures.items() if key != "by_label"}
    for label, figures in [*state.figures["by_label"].items(), ("mean over labels", means)]:
        table.add_row(label, *(cell(figures[key]) for key in ("accuracy", "floor", "balanced", "auroc")))
    return table


def cell(value: float | None) -> str:
    """A figure as people read it; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
