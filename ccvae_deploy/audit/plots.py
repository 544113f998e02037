"""Plots of an audit as inline SVG text: intervals, and curves over strengths. Touches nothing."""

from collections.abc import Sequence

from ..pictures.plots import BOTTOM, HEIGHT, ROW, TOP, WIDTH, escaped, svg
from ..terminal.printable import shortened
from .effects import Effect
from .table import number

WIDE, NAMES, FIGURES, LEFT = 560, 150, 70, 56


def intervals(effects: Sequence[Effect]) -> str:
    """One row per label: its effect as a dot on its joint interval, around a line at zero."""
    reach = max((max(abs(one.joint_low), abs(one.joint_high)) for one in effects), default=0) or 1
    width = WIDE - NAMES - FIGURES
    middle = NAMES + width / 2

    def x(value: float) -> float:
        return middle + value / reach * width / 2

    tall = max(len(effects), 1) * ROW
    parts = [f'<line class="axis" x1="{middle}" y1="0" x2="{middle}" y2="{tall}"/>']
    for i, one in enumerate(effects):
        y = i * ROW + ROW / 2
        kind = "s0" if one.verdict == "moves" else "s2"
        effect, *joint = (number(value, one.spread) for value in (one.effect, one.joint_low, one.joint_high))
        tip = f"{one.label}: {effect}, {' to '.join(joint)}, {one.verdict}"
        parts += [
            f'<text x="{NAMES - 6}" y="{y + 4}" class="end">{escaped(shortened(one.label, 24))}</text>',
            f'<g><title>{escaped(tip)}</title><rect class="{kind}" x="{x(one.joint_low):.1f}" y="{y - 1.5}" '
            f'width="{max(x(one.joint_high) - x(one.joint_low), 1):.1f}" height="3"/>'
            f'<circle class="{kind}" cx="{x(one.effect):.1f}" cy="{y}" r="5"/></g>',
            f'<text x="{WIDE - 2}" y="{y + 4}" class="end">{effect}</text>',
        ]
    return svg(WIDE, tall, parts)


def curve(one: Effect) -> str:
    """Effect over strength, from the redraw at 0, with the interval of each point alone."""
    points = [(0.0, 0.0, 0.0, 0.0), *((dose.strength, dose.effect, dose.low, dose.high) for dose in one.doses)]
    top = max(max(high for *_, high in points), 0.0)
    bottom = min(min(low for _, _, low, _ in points), 0.0)
    span, most = (top - bottom) or 1.0, points[-1][0] or 1.0
    width, height = WIDTH - LEFT - 8, HEIGHT - BOTTOM - TOP

    def place(strength: float, value: float) -> tuple[float, float]:
        return LEFT + width * strength / most, TOP + height * (top - value) / span

    zero = place(0, 0)[1]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(strength, value) for strength, value, *_ in points))
    parts = [
        f'<line class="axis" x1="{LEFT}" y1="{zero:.1f}" x2="{LEFT + width}" y2="{zero:.1f}"/>',
        f'<polyline class="line" points="{line}"/>',
        f'<text x="{LEFT - 4}" y="{TOP + 8}" class="end">{top:.2g}</text>',
        f'<text x="{LEFT - 4}" y="{TOP + height}" class="end">{bottom:.2g}</text>',
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 4}" class="middle">strength</text>',
    ]
    for strength, value, low, high in points:
        x, y = place(strength, value)
        at, *ends = (number(figure, one.spread) for figure in (value, low, high))
        parts += [
            f'<line class="line" x1="{x:.1f}" y1="{place(0, low)[1]:.1f}" x2="{x:.1f}" y2="{place(0, high)[1]:.1f}"/>',
            f'<circle class="s0" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>strength {strength:g}: '
            f"{at}, {' to '.join(ends)}</title></circle>",
            f'<text x="{x:.1f}" y="{TOP + height + 15}" class="middle">{strength:g}</text>',
        ]
    return svg(WIDTH, HEIGHT, parts)
