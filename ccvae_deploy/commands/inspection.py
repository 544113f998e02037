"""The commands that say what is there: `inspect` a bundle, `benchmark` it, `doctor` for the machine.

Thin shells over library functions; `cli` registers them. Imports what a command needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..latest import latest_bundle
from ..limits import BATCH
from ..terminal.screen import console
from .options import BatchOption, ProviderOption, TorchScriptOption, WorkersOption

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def inspect(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE]",
            help="A bundle, a run, or one .onnx, .pt, .pt2 or .safetensors file. [runs/latest/bundle-onnx]",
        ),
    ] = None,
    json: JsonOption = False,
    allow_torchscript: Annotated[
        bool,
        typer.Option("--allow-torchscript", help="Try whether TorchScript opens: it is code, so trust its source."),
    ] = False,
) -> None:
    """Print what a bundle or one exported file says of itself. Ends with 1 where it does not open."""
    from ..inspection import inspect as inspect_path

    report = inspect_path(bundle or latest_bundle(), allow_torchscript=allow_torchscript)
    if json:
        print(_json(report.to_json()))
    else:
        console().print(report.table())
    if report.problem:
        raise typer.Exit(1)


def doctor(json: JsonOption = False) -> None:
    """Say what is wrong with this machine. Versions, onnxruntime, GPU, threads, folders, each with its remedy."""
    from ..doctor import diagnose

    diagnosis = diagnose()
    print(_json(diagnosis.to_json()) if json else diagnosis.text())
    if not diagnosis.healthy:
        raise typer.Exit(1)


def benchmark(
    bundle: Annotated[Path | None, typer.Argument(metavar="[BUNDLE]", help="[runs/latest/bundle-onnx]")] = None,
    json: JsonOption = False,
    provider: ProviderOption = "auto",
    batch_size: BatchOption = BATCH,
    workers: WorkersOption = None,
    allow_torchscript: TorchScriptOption = False,
) -> None:
    """Say how fast a bundle is on this machine. Times its graphs, and edits of made pictures."""
    from ..benchmark import benchmark as measure

    found = measure(
        bundle or latest_bundle(),
        provider=provider,
        batch_size=batch_size,
        workers=workers,
        allow_torchscript=allow_torchscript,
    )
    if json:
        print(_json(found.to_json()))
    else:
        console().print(found.table())


def _json(content: object) -> str:
    """JSON that a terminal may show: ASCII, and no control character."""
    from json import dumps

    return dumps(content, indent=2).replace("\x7f", "\\u007f")
