"""The commands `judge` and `evaluate`: thin shells over library functions of the same argument names.

`cli` registers them. Imports what a command needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..latest import LATEST
from ..terminal.screen import console
from .extras import needs_train_extra
from .options import names

LabelsOption = Annotated[list[str] | None, typer.Option(metavar="A,B", help="The labels to tell. [those of the data]")]
DeviceOption = Annotated[str, typer.Option(metavar="WORD", help="auto, cpu or cuda.")]


def judge(
    data: Annotated[str, typer.Option(help="What `train --data` takes.", metavar="SOURCE")] = "portraits",
    labels: LabelsOption = None,
    image_size: Annotated[int | None, typer.Option(metavar="N", help="32, 64 or 128. [that of the data]")] = None,
    channels: Annotated[
        int | None, typer.Option(metavar="N", help="3 for colour, 1 for grey. [those of the data]")
    ] = None,
    uncertain: Annotated[
        str | None, typer.Option(metavar="WORD", help="What chexpert's uncertain labels count as.")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the training images.")] = 4,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same judge.")] = 0,
    device: DeviceOption = "auto",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write judge.onnx beside it.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A new folder. [runs/judge-DATA-SIZE-MODE-FINGERPRINT]")
    ] = None,
) -> None:
    """Train the independent classifier that `evaluate` judges by. It sees real images only."""
    needs_train_extra("judge", "torch", *(["onnxscript"] if onnx else []))
    from ccvae_train.evaluate.tables import judge_table
    from ccvae_train.judge import judge as train_judge

    trained = train_judge(
        data,
        labels=names(labels) if labels else None,
        image_size=image_size,
        channels=channels,
        uncertain=uncertain,  # type: ignore[arg-type]
        epochs=epochs,
        seed=seed,
        device=device,
        out=out,
    )
    console().print(judge_table(trained.state))
    if onnx:
        from ccvae_export.judge_graph import export_judge

        print(f"{export_judge(trained)} is written")
    print(f"{trained.path} holds the judge; `ccvae-deploy evaluate` takes it for runs beside it, or with --judge")


def evaluate(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN...]", help="Run folders. [runs/latest]")] = None,
    data: Annotated[
        str | None, typer.Option(help="What to evaluate on. [the run's own data]", metavar="SOURCE")
    ] = None,
    partition: Annotated[str, typer.Option(metavar="WORD", help="valid, or test where the data have one.")] = "valid",
    protocols: Annotated[list[str] | None, typer.Option(metavar="A,B", help="Such as accuracy,swap. [all]")] = None,
    images: Annotated[int, typer.Option(metavar="N", help="Real images, and made ones, per protocol.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same draws.")] = 0,
    judge: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A judge's folder. [beside the run; trained if missing]")
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(help="Inception weights of torch-fidelity as safetensors, for the FID.", metavar="FILE"),
    ] = None,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder. [RUN/evaluation, or evaluation for several]")
    ] = None,
) -> None:
    """Measure runs by the paper's protocols. Tables, CSV, JSON and one page with every picture."""
    needs_train_extra("evaluate", "torch")
    from ccvae_train.evaluate.evaluate import evaluate as evaluate_runs
    from ccvae_train.evaluate.tables import evaluation_tables

    found = evaluate_runs(
        runs or [LATEST],
        data=data,
        partition=partition,
        protocols=names(protocols or ()),
        images=images,
        seed=seed,
        judge=judge,
        inception=inception,
        device=device,
        out=out,
    )
    for table in evaluation_tables(found):
        console().print(table)
    print(f"{found.out}/report.html, evaluation.json and CSV files are written")
