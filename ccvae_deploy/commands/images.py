"""The commands beside `train`, `export` and `edit`: thin shells over library functions of the same argument names.

`cli` registers them. Imports what a command needs when it runs.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..latest import latest_bundle
from ..limits import BATCH, MAX_PIXELS
from ..terminal.printable import printable
from ..terminal.screen import console, counted, passed_over
from .options import (
    BatchOption,
    BundleOption,
    ComposeOption,
    FormatOption,
    ImageArgument,
    ImagesArgument,
    NoSheetOption,
    OverwriteOption,
    PictureOption,
    PixelsOption,
    ProviderOption,
    SeedOption,
    ShardOption,
    TorchScriptOption,
    WorkersOption,
    names,
)


def classify(
    images: ImagesArgument,
    bundle: BundleOption = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="A .csv or .jsonl file. [CSV on stdout]")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Average over this many posterior draws.")] = None,
    seed: SeedOption = 0,
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    max_pixels: PixelsOption = MAX_PIXELS,
    shard: ShardOption = None,
    overwrite: OverwriteOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Label probabilities of images, as CSV or JSON lines."""
    from ..classify import classify_folder

    result = classify_folder(
        images,
        bundle=bundle or latest_bundle(),
        out=out or sys.stdout.buffer,
        samples=samples,
        seed=seed,
        provider=provider,
        batch_size=batch_size,
        workers=workers,
        max_pixels=max_pixels,
        shard=shard,
        overwrite=overwrite,
        allow_torchscript=allow_torchscript,
    )
    failures = f", {result.failed:,} failed (see the column `error`)" if result.failed else ""
    said = f"{failures}{passed_over(result.ignored)}"
    rate = result.sources / max(result.seconds, 1e-9)
    place = f" in {result.out}" if result.out else ""
    print(f"{counted(result.sources, 'image')}{place}{said}, {rate:,.0f} images/s, {result.provider}", file=sys.stderr)
    if result.failed:
        raise typer.Exit(1)


def encode(
    images: ImagesArgument,
    bundle: BundleOption = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="A .safetensors file.")] = Path("latents.safetensors"),
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    max_pixels: PixelsOption = MAX_PIXELS,
    shard: ShardOption = None,
    overwrite: OverwriteOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Encode images and folders of images once, for many edits."""
    from ..encode import encode_folder

    result = encode_folder(
        images,
        bundle=bundle or latest_bundle(),
        out=out,
        provider=provider,
        batch_size=batch_size,
        workers=workers,
        max_pixels=max_pixels,
        shard=shard,
        overwrite=overwrite,
        allow_torchscript=allow_torchscript,
    )
    failures = f", {result.failed:,} failed ({result.failures})" if result.failed else ""
    said = f"{failures}{passed_over(result.ignored)}"
    rate = result.sources / max(result.seconds, 1e-9)
    print(f"latents of {counted(result.sources - result.failed, 'image')} are in {result.out}{said}")
    print(f"{rate:,.0f} images/s, {result.provider}")
    if result.failed:
        raise typer.Exit(1)


def generate(
    count: Annotated[
        int, typer.Option(metavar="N", help="How many images; a greater count adds to those that are there.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LABEL=VALUE", help="Repeat for more; other labels come from the label prior."),
    ] = None,
    bundle: BundleOption = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="Where images go.")] = Path("generated"),
    seed: SeedOption = 0,
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    overwrite: OverwriteOption = False,
    no_sheet: NoSheetOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Make images of given labels, each with a receipt."""
    from ..generate import generate_folder
    from ..records.results import outcome_table

    outcome = generate_folder(
        bundle=bundle or latest_bundle(),
        count=count,
        set=set_ or (),
        out=out,
        seed=seed,
        provider=provider,
        batch_size=batch_size,
        overwrite=overwrite,
        sheet=not no_sheet,
        allow_torchscript=allow_torchscript,
    )
    console().print(outcome_table(outcome))


def swap(
    images: ImagesArgument,
    from_: Annotated[Path, typer.Option("--from", metavar="REF", help="The reference, or a folder of them.")],
    labels: Annotated[list[str], typer.Option(metavar="A,B", help="Whose blocks are taken, such as smiling,young.")],
    pairs: Annotated[
        str, typer.Option(metavar="WORD", help="one reference per image, in the order of paths; or all with all.")
    ] = "one",
    bundle: BundleOption = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Where results go. [<folder>-swapped]")] = None,
    compose: ComposeOption = "residual",
    format: FormatOption = "same",
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    max_pixels: PixelsOption = MAX_PIXELS,
    overwrite: OverwriteOption = False,
    no_sheet: NoSheetOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Give images the characteristics of a reference. Each output has a receipt."""
    from ..records.results import outcome_table
    from ..swap_folder import swap_folder

    outcome = swap_folder(
        images,
        bundle=bundle or latest_bundle(),
        from_=from_,
        labels=names(labels),
        pairs=pairs,
        out=out,
        compose=compose,
        format=format,
        provider=provider,
        batch_size=batch_size,
        workers=workers,
        max_pixels=max_pixels,
        overwrite=overwrite,
        sheet=not no_sheet,
        allow_torchscript=allow_torchscript,
    )
    console().print(outcome_table(outcome))
    if outcome.failed:
        raise typer.Exit(1)


def traverse(
    image: ImageArgument,
    labels: Annotated[
        list[str], typer.Option(metavar="A,B", help="One label for a strip, two for a grid, such as smiling,young.")
    ],
    steps: Annotated[int, typer.Option(metavar="N", help="Pictures per axis.")] = 8,
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Corners of a categorical label's square, two to four. [its first four]"),
    ] = None,
    reach: Annotated[
        float, typer.Option(metavar="X", help="How far beyond the two modes, in scales of the prior.")
    ] = 2.0,
    compose: ComposeOption = "residual",
    bundle: BundleOption = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="A .png file, or .gif for one label.")] = Path("walk.png"),
    provider: ProviderOption = "auto",
    max_pixels: PictureOption = MAX_PIXELS,
    overwrite: OverwriteOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Walk through the latents of one or two labels. Gives a strip, a grid, or an animation."""
    from ..traverse import traverse as traverse_image

    found = traverse_image(
        image,
        bundle=bundle or latest_bundle(),
        labels=names(labels),
        steps=steps,
        classes=names(classes) if classes else None,
        reach=reach,
        compose=compose,
        out=out,
        provider=provider,
        max_pixels=max_pixels,
        overwrite=overwrite,
        allow_torchscript=allow_torchscript,
    )
    print(f"{len(found.cells)} x {len(found.cells[0])} pictures are in {printable(str(out))}")


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Output folders of `edit --shard`.")],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A folder for all of them. [OUT itself, when there is one]")
    ] = None,
) -> None:
    """Join what shards have left. Outputs come into one folder, records into one ledger."""
    from ..merge import merge_folders

    merged = merge_folders(folders, out)
    absent = f"; still without records: {', '.join(merged.absent)}" if merged.absent else ""
    unseen = "; outputs were not looked at" if out is None else ""
    of = f"{counted(merged.receipts, 'receipt')} of {counted(merged.sources, 'source')}"
    print(f"{printable(str(merged.out))}: {of} in one ledger{unseen}{absent}")
    if merged.missing:
        found = counted(merged.missing, "output")
        print(f"{found} missing or changed; run `edit` over the same images into it, which makes them again")
        raise typer.Exit(1)


def variance(
    image: ImageArgument,
    out: Annotated[Path, typer.Option(metavar="PATH", help="A .png, .npy or .safetensors file.")] = Path("maps.png"),
    labels: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Which labels, such as smiling,young. [all]")
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Draws per label, 2 to 100.")] = 64,
    bundle: BundleOption = None,
    seed: SeedOption = 0,
    provider: ProviderOption = "auto",
    max_pixels: PictureOption = MAX_PIXELS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Show where draws of each label differ. Gives green overlays, or the maps as arrays."""
    from ..variance import variance as write_variance

    found = write_variance(
        image,
        bundle=bundle or latest_bundle(),
        out=out,
        labels=names(labels or ()),
        samples=samples,
        seed=seed,
        provider=provider,
        max_pixels=max_pixels,
        overwrite=overwrite,
        allow_torchscript=allow_torchscript,
    )
    print(f"{printable(str(out))} shows where {samples} draws of {', '.join(found.labels)} differ")
