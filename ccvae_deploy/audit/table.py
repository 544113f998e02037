"""What an audit found, for the screen in 80 columns. Touches nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..terminal.printable import printable, shortened
from .effects import Effect, Verdict

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 24
NAME = 16
MARKS: dict[Verdict, str] = {"moves": "moves", "moves slightly": "slightly", "no effect found": "-", "not tested": "?"}


def ranked(effects: Sequence[Effect]) -> list[Effect]:
    """Those that move an output first, the largest first, in units of what the output varies among images."""
    return sorted(effects, key=lambda one: (list(MARKS).index(one.verdict), -abs(one.effect) / max(one.spread, 1e-12)))


def effects_table(effects: Sequence[Effect]) -> "Table":
    """The first rows of `ranked`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("label", no_wrap=True)
    table.add_column("output", no_wrap=True)
    for name in ("effect", "joint 95 %", "flips", "redraw", "reached"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in ranked(effects)[:SHOWN]:
        names = [Text(shortened(printable(text), NAME)) for text in (one.label, one.output)]
        interval = f"{number(one.joint_low)} {number(one.joint_high)}"
        style = "bold" if one.verdict == "moves" else ""
        figures = [number(one.effect), interval, f"{one.flips:.0%}", f"{one.redrawn_flips:.0%}", f"{one.reached:.0%}"]
        table.add_row(*names, *figures, MARKS[one.verdict], style=style)
    return table


def number(value: float) -> str:
    """A signed figure of a few places; a large one in the short form."""
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.1e}"


def sentence(one: Effect) -> str:
    """An effect in plain words."""
    interval = f"{number(one.joint_low)} to {number(one.joint_high)}"
    if one.verdict in ("moves", "moves slightly"):
        size = f", {abs(one.effect) / one.spread:.2g} times what it varies among the images" if one.spread > 0 else ""
        little = " slightly" if one.verdict == "moves slightly" else ""
        either = one.either_way is not None and abs(one.either_way) > abs(one.effect) / 2
        edit = f"; to change it either way shifts it by {number(one.either_way or 0)} besides" if either else ""
        return (
            f"{one.label} moves {one.output}{little} by {number(one.effect)} ({interval}{size}); the decision changes "
            f"on {one.flips:.0%} of edited and {one.redrawn_flips:.0%} of redrawn pictures{edit}"
        )
    if one.verdict == "no effect found":
        return f"no effect of {one.label} on {one.output} was found: {number(one.effect)} ({interval})"
    return (
        f"{one.label} on {one.output} is not tested: {one.images:,} images, {one.reached:.0%} of edits reach the label"
    )
