"""The command `audit`: a thin shell over the library function of the same argument names.

`cli` registers it. Imports what it needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..latest import latest_bundle
from ..limits import BATCH
from ..terminal.screen import console
from .options import (
    BatchOption,
    ComposeOption,
    OverwriteOption,
    ProviderOption,
    SeedOption,
    TorchScriptOption,
    WorkersOption,
    names,
)


def audit(
    model: Annotated[Path, typer.Option(metavar="FILE", help="The classifier to audit, an ONNX file.")],
    images: Annotated[list[Path], typer.Option(metavar="PATH", help="A folder of images, or one; repeat for more.")],
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="The bundle folder. [runs/latest/bundle-onnx]")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Which labels, such as smiling,young. [all]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Audit so many of the images, chosen by their paths. [all]")
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Draws per image, label and strength.")] = 4,
    strength: Annotated[str, typer.Option(metavar="X,Y", help="Where to measure besides 0 (redrawn) and 1.")] = "0.5,1",
    compose: ComposeOption = "residual",
    size: Annotated[
        str | None, typer.Option(metavar="N", help="Its input, such as 224 or 224x192 (height x width).")
    ] = None,
    layout: Annotated[str | None, typer.Option(metavar="WORD", help="nchw or nhwc.")] = None,
    order: Annotated[
        str | None, typer.Option(metavar="WORD", help="rgb, bgr or grey. [rgb, or grey for one channel]")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(metavar="X", help="1 or 255: what white is, before mean and std.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="X,Y", help="Subtracted, such as 0.485,0.456,0.406. [0]")] = None,
    std: Annotated[str | None, typer.Option(metavar="X,Y", help="Divided by, such as 0.229,0.224,0.225. [1]")] = None,
    outputs: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="INDEX, TENSOR or TENSOR:INDEX, such as 0=cat,1=dog. [all]")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="WORD", help="none, sigmoid or softmax. [none where the graph ends in one]")
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="X", help="An output above it is a yes; a softmax decides by its largest.")
    ] = 0.5,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Where results go. [audit-<model>]")] = None,
    seed: SeedOption = 0,
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    overwrite: OverwriteOption = False,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Measure what moves someone else's classifier. Every label of every image is changed, one at a time."""
    from ..audit import audit as run_audit
    from ..audit.results import audit_table

    found = run_audit(
        bundle or latest_bundle(),
        model=model,
        images=images,
        labels=names(labels or ()),
        limit=limit,
        samples=samples,
        strength=_numbers("--strength", strength),
        compose=compose,
        size=size,
        layout=layout,
        order=order,
        scale=scale,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        outputs=names(outputs or ()),
        activation=activation,
        threshold=threshold,
        out=out,
        seed=seed,
        provider=provider,
        batch_size=batch_size,
        workers=workers,
        overwrite=overwrite,
        allow_torchscript=allow_torchscript,
    )
    console().print(audit_table(found))
    if found.failed:
        raise typer.Exit(1)


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in (names([text]) if text else ()))
    except ValueError:
        raise UsageError(f"{option} {text!r}: expected numbers with commas between them, such as 0.5,1") from None
