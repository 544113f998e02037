"""The commands `judge` and `evaluate`: thin shells over library functions of the same argument names.

`cli` registers them. Imports what a command needs when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from .commands import names
from .extras import needs_train_extra
from .screen import console

LabelsOption = Annotated[list[str] | None, typer.Option(help="The labels to tell. [those of the data]")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def judge(
    data: Annotated[str, typer.Option(help="What `train --data` takes.", metavar="SOURCE")] = "portraits",
    labels: LabelsOption = None,
    image_size: Annotated[int, typer.Option(help="32, 64 or 128.")] = 64,
    channels: Annotated[int, typer.Option(help="3 for colour, 1 for grey.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 4,
    seed: Annotated[int, typer.Option(help="Same seed, same judge.")] = 0,
    device: DeviceOption = "auto",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write judge.onnx beside it.")] = False,
    out: Annotated[Path | None, typer.Option(help="A new folder. [runs/judge-DATA-FINGERPRINT]")] = None,
) -> None:
    """Train the independent classifier that `evaluate` judges by. It sees real images only."""
    needs_train_extra("judge")
    from ccvae_train.evaluate.tables import judge_table
    from ccvae_train.judge import judge as train_judge

    trained = train_judge(
        data,
        labels=names(labels) if labels else None,
        image_size=image_size,
        channels=channels,
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
