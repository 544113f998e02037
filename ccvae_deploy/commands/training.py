"""The command `train`: a thin shell over the library function. Imports what it needs when it runs.

`cli` registers it. What is not given is left to `TrainConfig`, or to a recipe.
"""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..latest import is_latest
from .ending import failed
from .extras import needs_train_extra
from .options import names


def train(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="portraits (made on the fly), or KIND:DIR of celeba, chexpert, mnist, fashion-mnist, table.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="The labels to learn, such as smiling,young.")
    ] = None,
    supervision: Annotated[
        float | None,
        typer.Option(metavar="X", help="Share of training images whose labels are shown, above 0, at most 1. [1]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the training images. [8]")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="WORD", help="ccvae, or to compare: vae-classifier, diva, m2, mvae. [ccvae]")
    ] = None,
    estimator: Annotated[str | None, typer.Option(metavar="WORD", help="exact or paper. [exact]")] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Bound of missing labels: exact (the mixture) or jensen (eq. 5). [exact]"),
    ] = None,
    draws: Annotated[int | None, typer.Option(metavar="N", help="Draws of z per image and step. [1]")] = None,
    label_weight: Annotated[
        float | None,
        typer.Option(metavar="X", help="What multiplies log q(y|x). [exact: 2000 to 4000 at 3x64x64; paper: 0]"),
    ] = None,
    class_balance: Annotated[
        float | None, typer.Option(metavar="X", help="How far rare values count more, 0 to 1. [exact: 0.5; paper: 0]")
    ] = None,
    agreement_weight: Annotated[
        float | None,
        typer.Option(metavar="X", help="How much edited images must look as asked. [exact: 200 at 3x64x64; paper: 0]"),
    ] = None,
    labelled_passes: Annotated[
        float | None,
        typer.Option(metavar="X", help="How often each labelled image is shown at least. [exact: 5 or more; paper: 0]"),
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option(metavar="WORD", help="laplace or bernoulli. [that of the data set]")
    ] = None,
    likelihood_scale: Annotated[
        float | None, typer.Option(metavar="X", help="Scale of the Laplace likelihood. [exact: 0.15; paper: 1]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Images per step. [64]")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Peak learning rate. [0.002]")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="X", help="Decay of the networks' weights. [exact: 0.5; paper: 0]")
    ] = None,
    encoder_optimiser: Annotated[
        str | None, typer.Option(metavar="WORD", help="Of the encoder: muon or adamw. [exact: muon; paper: adamw]")
    ] = None,
    decoder_optimiser: Annotated[
        str | None, typer.Option(metavar="WORD", help="Of the decoder: muon or adamw. [exact: muon; paper: adamw]")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="N", help="32, 64 or 128. [64; 32 for mnist, fashion-mnist]")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(metavar="N", help="3 for colour, 1 for grey. [the data's own]")
    ] = None,
    latents: Annotated[int | None, typer.Option(metavar="N", help="Latents in all. [45]")] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Uncertain labels of chexpert count as zeros, ones or ignore. [ignore]"),
    ] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images. [no]")] = None,
    shift: Annotated[int | None, typer.Option(metavar="N", help="Move images by up to so many pixels. [0]")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same run. [0]")] = None,
    device: Annotated[str | None, typer.Option(metavar="WORD", help="auto, cpu or cuda. [auto]")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A TOML file, or a name such as celeba; options given here win."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with runs/latest.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="The run folder. [runs/<data>-<time>]")] = None,
) -> None:
    """Train a CCVAE, or a model to compare it with, and write a run folder. `runs/latest` points at it."""
    given = {key: value for key, value in locals().items() if value is not None}
    settings = {key: value for key, value in given.items() if key not in ("recipe", "resume", "out", "labels")}
    needs_train_extra("train", "torch", "torchvision")
    from ccvae_train.checkpoint import going_on
    from ccvae_train.config import read_recipe
    from ccvae_train.training import train as train_run

    if labels:
        settings["labels"] = names(labels)
    if recipe is not None:
        made = read_recipe(recipe)
        if resume and made.get("data", "").endswith(":"):
            # the kind alone, which the run knows better
            del made["data"]
        settings = made | settings
    result = train_run(settings, out=out, resume=resume)
    if result.rank:
        raise typer.Exit(0 if result.finished else 130)
    if not result.finished:
        raise failed(f"interrupted; {going_on(result.run)}", 130)
    run = "" if is_latest(result.run) else f" {quote(str(result.run))}"
    following = f"export{run} --format onnx" if result.exportable else f"evaluate{run}"
    print(f"{result.run} is trained; next: ccvae-deploy {following}")
