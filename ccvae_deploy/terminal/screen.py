"""The console, and the tables of facts that are printed on it. Writes to stdout when it is told to."""

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> "Console":
    """As wide as the terminal, or 80 columns where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 80, highlight=False)


def usable_streams() -> None:
    """Let a closed stdout or stderr swallow what is printed, and one that is not UTF-8 escape what it lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as `1 image` or `1,200 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def passed_over(ignored: int) -> str:
    """What is said of files that are no images behind a number of those that are; nothing where there are none."""
    return f", {counted(ignored, 'other file')} passed over" if ignored else ""


def facts(rows: Iterable[tuple[str, str]]) -> "Table":
    """Names beside what is to be said of them; long text goes on in the next line, in its own column."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        # a file may be called [/b].png, which is no markup
        table.add_row(name, Text(text))
    return table
