"""The command line: every command under one application. Commands import what they need when they run, so that
`--help` loads neither onnxruntime nor torch.

Exit codes: 0 all done; 1 finished, but some inputs failed or a check did not hold; 2 refused, nothing written;
130 interrupted.
"""

import sys
import warnings
from collections import UserDict
from traceback import print_exception
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from . import __version__
from .commands import images
from .commands.audit import audit
from .commands.data import data_app
from .commands.editing import edit
from .commands.ending import ended, misused
from .commands.evaluation import evaluate, judge
from .commands.exporting import export
from .commands.inspection import benchmark, doctor, inspect
from .commands.options import Once
from .commands.training import train
from .errors import UsageError
from .terminal.progress import shown
from .terminal.screen import usable_streams


class OnDemand(UserDict[str, Any]):
    """Commands by name, each built when it is asked for: a cold edit would wait for all the others."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, typer.Typer):
            return get_command(found)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=Once)(found)
        return get_command(alone)


FUNCTIONS = (
    *(train, export, edit),
    *(images.merge, images.classify, images.encode, images.generate, images.swap, images.traverse, images.variance),
    *(audit, inspect, benchmark, doctor),
    *(judge, evaluate),
)


class Commands(TyperGroup):
    """All commands, with one place that turns an error into one line and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = OnDemand({function.__name__: function for function in FUNCTIONS} | {"data": data_app})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--debug` stand anywhere on the line, and refuse what is empty."""
        if any(not arg or (arg.startswith("--") and arg.find("=") == len(arg) - 1) for arg in args):
            raise ended(UsageError("an option or argument is empty, as an unset variable makes it; give a value"), None)
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        usable_streams()
        try:
            try:
                return super().parse_args(ctx, args)
            finally:
                # what --help and --version print
                sys.stdout.flush()
        except typer.TyperException as error:
            raise misused(error) from None
        except (OSError, KeyboardInterrupt) as error:
            raise ended(error, None) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a user's error becomes one line on stderr."""
        # Pillow's, of damaged metadata; what cannot be done is told by other means
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            try:
                with shown():
                    return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params.get("debug"):
                print_exception(error)
            raise ended(error, ctx.invoked_subcommand) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ccvae-deploy {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train, export and edit with CCVAE: controlled image edits by label."""
