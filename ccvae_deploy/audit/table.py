"""What an audit found, for the screen in 80 columns. Touches nothing."""

import math
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
    table.add_column("label", overflow="fold")
    table.add_column("output", overflow="fold")
    for name in ("effect", "joint 95 %", "flips", "redraw", "reached"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in ranked(effects)[:SHOWN]:
        names = [Text(shortened(printable(text), NAME)) for text in (one.label, one.output)]
        style = "bold" if one.verdict == "moves" else ""
        effect, *joint = (number(value, one.spread) for value in (one.effect, one.joint_low, one.joint_high))
        figures = [effect, " ".join(joint), *(f"{share:.0%}" for share in (one.flips, one.redrawn_flips, one.reached))]
        table.add_row(*names, *figures, MARKS[one.verdict], style=style)
    return table


def number(value: float, spread: float) -> str:
    """A signed figure with as many places as show a tenth of what its output varies, three at least; the short form
    where that would be long.
    """
    places = max(3, 1 - math.floor(math.log10(spread))) if spread > 0 else 3
    return f"{value:+.{places}f}" if abs(value) < 100 and places <= 4 else f"{value:+.1e}"


def sentence(one: Effect) -> str:
    """An effect in plain words."""
    effect, low, high = (number(value, one.spread) for value in (one.effect, one.joint_low, one.joint_high))
    interval = f"{low} to {high}"
    if one.verdict in ("moves", "moves slightly"):
        size = f", {abs(one.effect) / one.spread:.2g} times what it varies among the images" if one.spread > 0 else ""
        little = " slightly" if one.verdict == "moves slightly" else ""
        either = one.either_way is not None and abs(one.either_way) > abs(one.effect) / 2
        besides = number(one.either_way or 0, one.spread)
        edit = f"; to change it either way shifts it by {besides} besides" if either else ""
        return (
            f"{one.label} moves {one.output}{little} by {effect} ({interval}{size}); the decision changes "
            f"on {one.flips:.0%} of edited and {one.redrawn_flips:.0%} of redrawn pictures{edit}"
        )
    if one.verdict == "no effect found":
        return f"no effect of {one.label} on {one.output} was found: {effect} ({interval})"
    return (
        f"{one.label} on {one.output} is not tested: {one.images:,} images, {one.reached:.0%} of edits reach the label"
    )
