"""The command `edit`: a thin shell over `edit_folder` and `dry_run`. Imports what it needs when it runs.

`cli` registers it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..latest import latest_bundle
from ..limits import BATCH, MAX_PIXELS
from ..terminal.screen import console
from .options import (
    BatchOption,
    BundleOption,
    ComposeOption,
    FormatOption,
    NoSheetOption,
    PixelsOption,
    ProviderOption,
    SeedOption,
    ShardOption,
    TorchScriptOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from ..work.job import RunOptions


def edit(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES...", help="Images and folders of images, or URLs of such.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="LABEL=VALUE", help="What to change; repeat for more.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="CSV", help="What to change, image by image: file,label,label,...")
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Redraw a label within the state it has; repeat for more.")
    ] = None,
    until_reached: Annotated[
        int, typer.Option(metavar="N", help="Draw up to N times until the written image classifies as asked.")
    ] = 1,
    samples: Annotated[int, typer.Option(metavar="N", help="Draws per image.")] = 1,
    bundle: BundleOption = None,
    latents: Annotated[
        Path | None, typer.Option(metavar="PATH", help="What `encode` has stored of these images.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where results go, or a URL. [<folder>-edited]")
    ] = None,
    seed: SeedOption = 0,
    mode: Annotated[str, typer.Option(metavar="WORD", help="sample, mean or closest.")] = "sample",
    strength: Annotated[
        float, typer.Option(metavar="X", help="1 is the asked label, 0 its opposite, above 1 beyond.")
    ] = 1.0,
    confidence: Annotated[
        float,
        typer.Option(metavar="X", help="How sure the classifier must be: --mode closest, and bundles without a prior."),
    ] = 0.9,
    compose: ComposeOption = "residual",
    format: FormatOption = "same",
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    engine: Annotated[
        str, typer.Option(metavar="WORD", help="local, or ray: on the machines of a Ray cluster.")
    ] = "local",
    max_pixels: PixelsOption = MAX_PIXELS,
    shard: ShardOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other settings' results and unexplained files.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    no_sheet: NoSheetOption = False,
    report: Annotated[bool, typer.Option("--report", help="Write report.html: plots, best and worst edits.")] = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Edit images and folders of images. Each of K draws per image has a receipt."""
    options: RunOptions = {
        "bundle": bundle or latest_bundle(),
        "set": set_ or (),
        "vary": vary or (),
        "until_reached": until_reached,
        "plan": plan,
        "samples": samples,
        "latents": latents,
        "out": out,
        "seed": seed,
        "mode": mode,
        "strength": strength,
        "confidence": confidence,
        "compose": compose,
        "format": format,
        "provider": provider,
        "batch_size": batch_size,
        "max_pixels": max_pixels,
        "shard": shard,
        "overwrite": overwrite,
        "allow_torchscript": allow_torchscript,
        "workers": workers,
        "engine": engine,
        "sheet": not no_sheet,
        "report": report,
    }
    if dry_run:
        from ..dry_run import dry_run as forecast
        from ..dry_run import forecast_table

        console().print(forecast_table(forecast(images or (), **options)))
        return
    from ..pipeline import edit_folder
    from ..records.summary import summary_table

    summary = edit_folder(images or (), **options)
    console().print(summary_table(summary))
    if summary.failed:
        raise typer.Exit(1)
