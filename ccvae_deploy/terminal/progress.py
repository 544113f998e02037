"""Progress of long work: a rich bar on a terminal, plain lines elsewhere. Writes to stderr only, and only where a
command, or a program that asks for it with `shown`, waits for the work.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SHOWN = ContextVar("progress is shown", default=False)
INTERVAL = 10.0
"""Seconds between two plain lines."""


class Reporter(Protocol):
    """What long work reports to."""

    def advance(self, count: int = 1) -> None:
        """`count` more items are done."""

    def line(self, text: str) -> None:
        """A line that stays on the screen."""


class _PlainLines:
    """One line every few seconds: done, rate, remaining time where one is known."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.start = self.last = time.monotonic()
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= INTERVAL:
            self.last = now
            rate = self.done / (now - self.start)
            left = f", {(self.total - self.done) / rate:,.0f} s left" if rate else ""
            print(
                f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f} {self.unit}/s{left}",
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

    The rate counts from here, so open it when the work begins.
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
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
        self.bar, self.unit, self.start, self.done = bar, unit, time.monotonic(), 0
        self.task = bar.add_task(title, total=total, rate="")

    def advance(self, count: int = 1) -> None:
        self.done += count
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        self.bar.update(self.task, advance=count, rate=f"{rate:,.0f} {self.unit}/s")

    def line(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)
