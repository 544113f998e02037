"""The command `export`: a thin shell over the library function. Imports what it needs when it runs.

`cli` registers it.
"""

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..latest import LATEST, latest_bundle
from ..terminal.screen import console
from .extras import needs_train_extra


def export(
    run: Annotated[Path, typer.Argument(metavar="[RUN]", help="A run folder.")] = LATEST,
    format: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="onnx, torchscript or pt2; repeat for several. [onnx]")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="WORD", help="fp32, fp16, int8, or auto: the smallest that is good enough.")
    ] = "fp32",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The bundle folder. [RUN/bundle-FORMAT[-PRECISION]]")
    ] = None,
) -> None:
    """Split a run into its graphs. They are checked against the model; one bundle per format."""
    needs_train_extra("export")
    from ccvae_export.export import export_run

    report = export_run(run, format or ["onnx"], out, precision=precision)
    console().print(report.table())
    if report.unchecked:
        print(report.unchecked, file=sys.stderr)
    for one in report.exported:
        print(f"{one.bundle} is written")
    usable = {one.manifest.format: one.bundle for one in report.exported if one.manifest.format != "pt2"}
    if usable:
        chosen = _bundle_options(*next(iter(usable.items())))
        print(f"next: ccvae-deploy edit imgs/{chosen} --set LABEL=VALUE --samples 8")


def _bundle_options(format: str, bundle: Path) -> str:
    """What `edit` needs to be told to take this bundle."""
    option = "" if bundle.resolve() == latest_bundle().resolve() else f" --bundle {quote(str(bundle))}"
    return f"{option} --allow-torchscript" if format == "torchscript" else option
