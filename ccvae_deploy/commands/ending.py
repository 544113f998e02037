"""How a command ends that does not end well: one line on stderr, and the exit code."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import typer

from ..errors import CCVAEError
from ..terminal.printable import printable

RESUMED = ("edit", "generate", "swap", "merge", "audit", "evaluate")
FULL = (errno.ENOSPC, errno.EDQUOT)


def ended(error: BaseException, command: str | None) -> typer.Exit:
    """The line and the exit code of what ended a command."""
    if isinstance(error, CCVAEError):
        return failed(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        return misused(error)
    if isinstance(error, KeyboardInterrupt):
        goes_on = "the same command goes on where it stopped" if command in RESUMED else "run the same command again"
        return failed(f"interrupted; {error.args[0] if error.args else goes_on}", 130)
    if isinstance(error, BrokenPipeError):
        _leave_stdout()
        return typer.Exit(1)
    if isinstance(error, OSError) and error.errno in FULL:
        _leave_stdout()
        return failed(f"cannot write: {error.strerror}; make room and start again", 1)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return failed(f"{name}: {error.strerror.lower()}; check the path and who may use it", 2)
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return failed("the current folder is gone; go to one that is there", 2)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return failed(f"unexpected {what}; report what it prints with --debug", 1)


def misused(error: typer.TyperException) -> typer.Exit:
    """Tell in one line what is wrong with a command line that cannot be understood."""
    message = getattr(error, "format_message", error.__str__)()
    if message.startswith("Usage:"):
        # a group without a command shows its help
        print(message, file=sys.stderr)
        return typer.Exit(2)
    line = " ".join(message.split())
    return failed(line if line.endswith("?") else line.rstrip(".") + "; see --help", 2)


def failed(message: str, code: int) -> typer.Exit:
    """Print the line of an error; gives what to raise."""
    # a message may carry names from a stranger's file
    print(f"error: {printable(message)}", file=sys.stderr)
    return typer.Exit(code)


def _leave_stdout() -> None:
    """Python writes what is left in the buffer once more when it ends; let that go nowhere."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
