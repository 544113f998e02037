"""The command `export`: a thin shell over the library function. Imports what it needs when it runs.

`cli` registers it.
"""

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ..latest import LATEST, latest_bundle
from ..terminal.screen import console
from .extras import needs_train_extra

if TYPE_CHECKING:
    from ccvae_export.export import Exported


def export(
    run: Annotated[Path, typer.Argument(metavar="[RUN]", help="A run folder.")] = LATEST,
    format: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="onnx, torchscript or pt2; repeat for several. [onnx]")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="WORD", help="fp32, fp16, int8, or auto: the smallest that is good enough.")
    ] = "fp32",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The bundle folder. [RUN/bundle-FORMAT[-PRECISION]]")
    ] = None,
) -> None:
    """Split a run into its graphs. They are checked against the model; one bundle per format."""
    formats = format or ["onnx"]
    needs_train_extra("export", "torch", *(["onnxscript"] if "onnx" in formats else []))
    from ccvae_export.export import export_run

    report = export_run(run, formats, out, precision=precision)
    console().print(report.table())
    for reason in report.unchecked:
        print(reason, file=sys.stderr)
    for one in report.exported:
        print(f"{one.bundle} is written")
    usable = next((one for one in report.exported if one.manifest.format != "pt2"), None)
    if usable:
        label = usable.manifest.labels.labels[0]
        asked = quote(f"{label.name}={label.classes[-1]}")
        print(f"next: ccvae-deploy edit imgs/{_bundle_options(usable)} --set {asked} --samples 8")


def _bundle_options(exported: "Exported") -> str:
    """What `edit` needs to be told to take this bundle."""
    bundle = exported.bundle
    option = "" if bundle.resolve() == latest_bundle().resolve() else f" --bundle {quote(str(bundle))}"
    return f"{option} --allow-torchscript" if exported.manifest.format == "torchscript" else option
