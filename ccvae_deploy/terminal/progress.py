"""Progress of long work: a rich bar on a terminal, plain lines elsewhere. Writes to stderr only, and only where a
command, or a program that asks for it with `shown`, waits for the work.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SHOWN = ContextVar("progress is shown", default=False)
INTERVAL = 10.0
"""Seconds between two plain lines."""
WINDOW = 30.0
"""Seconds that the rate is of: what was done before, and only passed over now, says nothing of what is to come."""


class Reporter(Protocol):
    """What long work reports to."""

    def advance(self, count: int = 1) -> None:
        """`count` more items are done."""

    def line(self, text: str) -> None:
        """A line that stays on the screen."""


class _Pace:
    """The rate of late, from a point a second at most."""

    def __init__(self, now: float) -> None:
        self.points = deque([(now, 0)])

    def rate(self, now: float, done: int) -> float:
        """How many a second, over the last `WINDOW` or since the last point before it; 0 where no time has passed."""
        while len(self.points) > 1 and now - self.points[1][0] >= WINDOW:
            self.points.popleft()
        (start, before), (last, _) = self.points[0], self.points[-1]
        if now - last >= 1:
            self.points.append((now, done))
        return (done - before) / (now - start) if now > start else 0.0


def _told(rate: float, unit: str) -> str:
    return f"{rate:,.{1 if rate < 10 else 0}f} {unit}/s"


class _PlainLines:
    """One line every few seconds: done, rate, remaining time where one is known."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.last = time.monotonic()
        self.pace, self.done = _Pace(self.last), 0

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        rate = self.pace.rate(now, self.done)
        if now - self.last >= INTERVAL:
            self.last = now
            left = f", {(self.total - self.done) / rate:,.0f} s left" if rate else ""
            print(
                f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {_told(rate, self.unit)}{left}",
                file=sys.stderr,
                flush=True,
            )

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Within this block long work shows how far it is; a program that calls the functions of a command sees nothing."""
    token = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(token)


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Reporter]:
    """Show the progress of `total` items called `unit`; yields what to report to.

    The first rate counts from here, so open it when the work begins.
    """
    if not _SHOWN.get():
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _PlainLines(title, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=WINDOW) as bar:
        yield _RichBar(bar, title, total, unit)


@contextmanager
def silent() -> Iterator[Reporter]:
    """A reporter that shows nothing."""
    yield _Silent()


class _Silent:
    def advance(self, count: int = 1) -> None: ...

    def line(self, text: str) -> None: ...


class _RichBar:
    """A bar with count, rate and remaining time."""

    def __init__(self, bar: "RichProgress", title: str, total: int, unit: str) -> None:
        self.bar, self.unit, self.pace, self.done = bar, unit, _Pace(time.monotonic()), 0
        self.task = bar.add_task(title, total=total, rate="")

    def advance(self, count: int = 1) -> None:
        self.done += count
        rate = self.pace.rate(time.monotonic(), self.done)
        self.bar.update(self.task, advance=count, rate=_told(rate, self.unit))

    def line(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)
