"""The command line: thin shells over library functions of the same argument names. Imports what a command needs
when it runs, so that `--help` loads neither onnxruntime nor torch.

Exit codes: 0 all done; 1 finished, but some inputs failed or a check did not hold; 2 refused, nothing written;
130 interrupted.
"""

import errno
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from shlex import quote
from traceback import print_exception
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__, audit_command, commands, evaluation_commands, inspection_commands
from .data_commands import data_app
from .errors import CCVAEError
from .extras import needs_train_extra as _needs_train_extra
from .latest import LATEST, latest_bundle
from .screen import console, usable_streams
from .terminal import printable

if TYPE_CHECKING:
    from .job import RunOptions


RESUMED = ("edit", "generate", "swap", "merge", "audit", "evaluate")
FULL = (errno.ENOSPC, errno.EDQUOT)


class Commands(TyperGroup):
    """All commands, with one place that turns an error into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--debug` stand anywhere on the line."""
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
            raise _misused(error) from None
        except OSError as error:
            raise _ended(error, None) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a user's error becomes one line on stderr."""
        # Pillow's, of damaged metadata; what cannot be done is told by other means
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.params.get("debug"):
                print_exception(error)
            raise _ended(error, ctx.invoked_subcommand) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Run = Annotated[Path, typer.Argument(help="A run folder.")]


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


@app.command()
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
        typer.Option(metavar="X", help="How often each labelled image is shown at least. [exact: 15; paper: 0]"),
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option(metavar="WORD", help="laplace or bernoulli. [that of the data set]")
    ] = None,
    likelihood_scale: Annotated[
        float | None, typer.Option(metavar="X", help="Scale of the Laplace likelihood. [exact: 0.15; paper: 1]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Images per step. [64]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Peak learning rate of Adam. [0.002]")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="X", help="Decay of the networks' weights. [exact: 0.5; paper: 0]")
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
        Path | None, typer.Option(metavar="PATH", help="A TOML file of settings; options given here win.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or with runs/latest.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="The run folder. [runs/<data>-<time>]")] = None,
) -> None:
    """Train a CCVAE, or a model to compare it with, and write a run folder. `runs/latest` points at it."""
    given = {key: value for key, value in locals().items() if value is not None}
    settings = {key: value for key, value in given.items() if key not in ("recipe", "resume", "out", "labels")}
    _needs_train_extra("train")
    from ccvae_train.config import read_recipe
    from ccvae_train.training import train as train_run

    if labels:
        settings["labels"] = commands.names(labels)
    if recipe is not None:
        settings = read_recipe(recipe) | settings
    result = train_run(settings, out=out, resume=resume)
    if result.rank:
        raise typer.Exit(0 if result.finished else 130)
    if not result.finished:
        raise _failed(f"interrupted; go on with `ccvae-deploy train --resume{_out_option(out)}`", 130)
    following = f"export{_run_argument(out)} --format onnx" if result.exportable else f"evaluate{_run_argument(out)}"
    print(f"{result.run} is trained; next: ccvae-deploy {following}")


@app.command()
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
    _needs_train_extra("export")
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


@app.command()
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
    bundle: commands.BundleOption = None,
    latents: Annotated[
        Path | None, typer.Option(metavar="PATH", help="What `encode` has stored of these images.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where results go, or a URL. [<folder>-edited]")
    ] = None,
    seed: commands.SeedOption = 0,
    mode: Annotated[str, typer.Option(metavar="WORD", help="sample, mean or closest.")] = "sample",
    strength: Annotated[float, typer.Option(metavar="X", help="1 is the asked label, above 1 beyond it.")] = 1.0,
    confidence: Annotated[
        float,
        typer.Option(metavar="X", help="How sure the classifier must be: --mode closest, and bundles without a prior."),
    ] = 0.9,
    compose: commands.ComposeOption = "residual",
    format: commands.FormatOption = "same",
    provider: commands.ProviderOption = "auto",
    batch_size: commands.BatchOption = 16,
    workers: commands.WorkersOption = None,
    engine: Annotated[
        str, typer.Option(metavar="WORD", help="local, or ray: on the machines of a Ray cluster.")
    ] = "local",
    max_pixels: commands.PixelsOption = 100_000_000,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Do part I of N, counted from 0.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other settings' results and unexplained files.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    no_sheet: commands.NoSheetOption = False,
    report: Annotated[bool, typer.Option("--report", help="Write report.html: plots, best and worst edits.")] = False,
    allow_torchscript: commands.TorchScriptOption = False,
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
        from .dry_run import dry_run as forecast
        from .dry_run import forecast_table

        console().print(forecast_table(forecast(images or (), **options)))
        return
    from .pipeline import edit_folder
    from .summary import summary_table

    summary = edit_folder(images or (), **options)
    console().print(summary_table(summary))
    if summary.failed:
        raise typer.Exit(1)


for command in (
    *(commands.merge, commands.classify, commands.encode, commands.generate, commands.swap, commands.traverse),
    *(commands.variance, audit_command.audit),
    *(inspection_commands.inspect, inspection_commands.benchmark, inspection_commands.doctor),
    *(evaluation_commands.judge, evaluation_commands.evaluate),
):
    app.command()(command)


def _ended(error: BaseException, command: str | None) -> typer.Exit:
    """The line and the exit code of what ended a command."""
    if isinstance(error, CCVAEError):
        return _failed(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        return _misused(error)
    if isinstance(error, KeyboardInterrupt):
        goes_on = "the same command goes on where it stopped"
        return _failed(f"interrupted; {goes_on if command in RESUMED else 'run the same command again'}", 130)
    if isinstance(error, BrokenPipeError):
        _leave_stdout()
        return typer.Exit(1)
    if isinstance(error, OSError) and error.errno in FULL:
        _leave_stdout()
        return _failed(f"cannot write: {error.strerror}; make room and start again", 1)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return _failed(f"{name}: {error.strerror.lower()}; check the path and who may use it", 2)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _failed(f"unexpected {what}; report what it prints with --debug", 1)


def _leave_stdout() -> None:
    """Python writes what is left in the buffer once more when it ends; let that go nowhere."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _misused(error: typer.TyperException) -> typer.Exit:
    message = getattr(error, "format_message", error.__str__)()
    if message.startswith("Usage:"):
        # a group without a command shows its help
        print(message, file=sys.stderr)
        return typer.Exit(2)
    return _failed(" ".join(message.split()).rstrip(".") + "; see --help", 2)


def _failed(message: str, code: int) -> typer.Exit:
    # a message may carry names from a stranger's file
    print(f"error: {printable(message)}", file=sys.stderr)
    return typer.Exit(code)


def _out_option(out: Path | None) -> str:
    return f" --out {out}" if out else ""


def _bundle_options(format: str, bundle: Path) -> str:
    """What `edit` needs to be told to take this bundle."""
    option = "" if bundle.resolve() == latest_bundle().resolve() else f" --bundle {quote(str(bundle))}"
    return f"{option} --allow-torchscript" if format == "torchscript" else option


def _run_argument(out: Path | None) -> str:
    return f" {out}" if out else ""
