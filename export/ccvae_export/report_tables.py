"""What an export prints: parity, sizes, and the quality gate, within 80 columns."""

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from .quality import DISAGREEMENT, FLIPS, MEAN_LEVELS, P999_LEVELS, SPREAD

if TYPE_CHECKING:
    from .export import ExportReport


def export_tables(report: "ExportReport") -> Group:
    """The tables of an export."""
    return Group(report.parity.table(), "", _graphs(report), "", _quality(report))


def _graphs(report: "ExportReport") -> Table:
    # only graphs of 8 bits come in several forms
    several = any(form for one in report.exported for form in one.forms.values())
    table = _table("graphs", ("bundle", "graph", "precision", *(["form"] if several else [])), ("KiB",))
    for one in report.exported:
        for name, entry in one.manifest.files.items():
            size = f"{entry.bytes / 1024:,.0f}"
            form = [one.forms.get(name, "")] if several else []
            table.add_row(entry.format, name.replace("_", " "), entry.precision, *form, size)
        whole = f"{sum(entry.bytes for entry in one.manifest.files.values()) / 1024:,.0f}"
        table.add_row(one.manifest.format, "all", *([""] * (2 if several else 1)), whole)
    return table


def _quality(report: "ExportReport") -> Table:
    images = report.exported[0].quality.images
    title = f"quality gate: composed edits against the model's, {images} {report.judged_on}"
    columns = ("mean", "99.9 %", "worst", "equal", "labels", "reached", "z_scale")
    table = _table(title, ("bundle",), columns)
    for one in report.exported:
        found = one.quality
        levels = f"{found.mean:.3f}", f"{found.p999:.0f}", f"{found.worst:.0f}"
        shares = found.disagreement, found.flips, found.spread
        table.add_row(one.manifest.format, *levels, f"{found.equal:.3%}", *(f"{share:.2%}" for share in shares))
    allowed = (f"{share:.2%}" for share in (DISAGREEMENT, FLIPS, SPREAD))
    table.add_row("allowed", f"{MEAN_LEVELS:g}", f"{P999_LEVELS:g}", "", "", *allowed)
    return table


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table
