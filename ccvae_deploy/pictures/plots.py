"""Small plots as inline SVG text: bars and histograms. Touches nothing.

Colours and the text's font come from the page's style sheet.
"""

import html
from collections.abc import Sequence

from ..terminal.printable import printable, shortened

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 170, 40, 34, 8
ROW, NAMES, FIGURES = 20, 120, 50


def escaped(text: str) -> str:
    """Text for HTML and SVG; bytes that are not UTF-8, and controls, are shown as escapes."""
    return html.escape(printable(text))


def histogram(series: Sequence[tuple[str, Sequence[int]]], low: float, high: float, axis: str) -> str:
    """Counts over equal bins from `low` to `high`, one colour per series; each has the same number of bins."""
    most = max((max(counts, default=0) for _, counts in series), default=0) or 1
    width, height = WIDTH - LEFT - 8, HEIGHT - BOTTOM - TOP
    parts = []
    for number, (name, counts) in enumerate(series):
        head = f"{escaped(name)}, " if name else ""
        step = width / max(len(counts), 1)
        for i, count in enumerate(counts):
            if count:
                tall = height * count / most
                span = f"{low + (high - low) * i / len(counts):g} to {low + (high - low) * (i + 1) / len(counts):g}"
                parts.append(
                    f'<rect class="s{number}" x="{LEFT + i * step:.1f}" y="{TOP + height - tall:.1f}" '
                    f'width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}">'
                    f"<title>{head}{span}: {count:,}</title></rect>"
                )
    base = TOP + height
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{LEFT + width}" y2="{base}"/>')
    parts += [
        f'<text x="{LEFT}" y="{base + 13}">{low:g}</text>',
        f'<text x="{LEFT + width}" y="{base + 13}" class="end">{high:g}</text>',
        f'<text x="{LEFT + width / 2}" y="{base + 28}" class="middle">{escaped(axis)}</text>',
        f'<text x="{LEFT - 4}" y="{TOP + 10}" class="end">{most:,}</text>',
    ]
    return svg(WIDTH, HEIGHT, parts)


def bars(values: Sequence[tuple[str, float]], high: float = 1.0) -> str:
    """One bar per name from 0 to `high`, its value beside it."""
    width = WIDTH - NAMES - FIGURES
    parts = []
    for i, (name, value) in enumerate(values):
        y = i * ROW
        parts += [
            f'<text x="{NAMES - 6}" y="{y + 14}" class="end">{escaped(shortened(name, 20))}</text>',
            f'<rect class="s0" x="{NAMES}" y="{y + 4}" width="{max(width * min(value / high, 1), 0.5):.1f}" '
            f'height="{ROW - 8}"><title>{escaped(name)}: {value:.4f}</title></rect>',
            f'<text x="{WIDTH - 2}" y="{y + 14}" class="end">{value:.3f}</text>',
        ]
    return svg(WIDTH, max(len(values), 1) * ROW, parts)


def svg(width: int, height: int, parts: Sequence[str]) -> str:
    """Parts of a plot in their frame."""
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'
