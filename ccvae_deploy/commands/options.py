"""Options that several commands take, the names that one option may hold, and that it is given once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from ..errors import UsageError

ImagesArgument = Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images and folders of images.")]
ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="One image.")]
BundleOption = Annotated[Path | None, typer.Option(metavar="PATH", help="The bundle folder. [runs/latest/bundle-onnx]")]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Same seed, same draws.")]
ProviderOption = Annotated[str, typer.Option(metavar="WORD", help="auto, cpu, cuda or tensorrt.")]
BatchOption = Annotated[int, typer.Option(metavar="N", help="Images per graph run; changes no result.")]
WorkersOption = Annotated[int | None, typer.Option(metavar="N", help="How many read and render at once. [cores]")]
PixelsOption = Annotated[int, typer.Option(metavar="N", help="Larger images are passed over as failures.")]
ShardOption = Annotated[str | None, typer.Option(metavar="I/N", help="Do part I of N, counted from 0.")]
PictureOption = Annotated[int, typer.Option("--max-pixels", metavar="N", help="A larger image is refused.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
NoSheetOption = Annotated[bool, typer.Option("--no-sheet", help="Write no contact sheet.")]
ComposeOption = Annotated[
    str, typer.Option(metavar="WORD", help="residual keeps the original's detail; decode is the model's image.")
]
FormatOption = Annotated[str, typer.Option(metavar="WORD", help="same, png, jpeg, webp or avif.")]
TorchScriptOption = Annotated[
    bool, typer.Option("--allow-torchscript", help="Open a TorchScript bundle: it is code, so trust its source.")
]


def names(given: Sequence[str]) -> tuple[str, ...]:
    """The names of an option that is repeated, takes several with commas between them, or both.

    Raises:
        UsageError: it was given and names nothing, as an unset variable does.
    """
    found = tuple(name.strip() for text in given for name in text.split(",") if name.strip())
    if given and not found:
        raise UsageError(f"an option of names is {', '.join(map(repr, given))}, which names nothing; leave it out")
    return found


class Once(TyperCommand):
    """A command whose options are given once: of two values the last would count without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option that is there again, unless it is to be repeated, or a switch with nothing to contradict.

        Raises:
            UsageError: it is given twice.
        """
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for one in given if not ctx.resilient_parsing else ():
            repeatable = not isinstance(one, TyperOption) or one.multiple or (one.is_flag and not one.secondary_opts)
            if not repeatable and given.count(one) > 1:
                raise UsageError(f"{one.opts[0]} is given {given.count(one)} times; give it once")
        return super().parse_args(ctx, args)
