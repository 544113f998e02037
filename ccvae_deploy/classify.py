"""Label probabilities for files and folders of images. Writes one table, nothing else."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import TextIOBase
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .arrays import Array
from .composer import Composer
from .edits.noise import latent_noise
from .edits.request import refuse_seed
from .errors import UsageError, one_line, underway
from .folder import Source, part_of, scan
from .given import refuse_outside
from .images import Picture, network_input
from .limits import BATCH, MAX_PIXELS, refuse_speed
from .receipts import Failure
from .records.label_table import LabelTable, Row, refuse_table
from .storage.remote import Paths, local_path, paths
from .terminal.progress import progress, silent
from .work.stream import Seen, by_batches, stack

MAX_DRAWS = 1000


@dataclass(frozen=True)
class Classified:
    """What a run of `classify` came to.

    Attributes:
        sources: images found, `failed` of which could not be read; `ignored` files are no images.
    """

    out: Path | None
    provider: str
    sources: int
    failed: int
    ignored: int
    seconds: float


def classify_folder(
    images: Paths,
    *,
    bundle: Path | str,
    out: Path | str | BinaryIO,
    samples: int | None = None,
    seed: int = 0,
    provider: str = "auto",
    batch_size: int = BATCH,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    shard: str | None = None,
    overwrite: bool = False,
    allow_torchscript: bool = False,
) -> Classified:
    """Write the label probabilities of images and folders of images as a table, in the order of their paths.

    An image that cannot be read is a row with an `error`.

    Args:
        images: one image or folder of images, or several.
        out: a file that ends in .csv or .jsonl, or a binary stream, which is given CSV.
        samples: None classifies the posterior mean; K averages over K posterior draws and adds their spread.
        max_pixels: larger images are rows with an error; at most 178,956,970.
        shard: `I/N`, part I of N counted from 0, as in `edit`.
        overwrite: replace a file that is there.

    Raises:
        CCVAEError: refused, and nothing was written; or the disk is full.
    """
    refuse_speed(batch_size, workers)
    _refuse_draws(samples, seed)
    out = _place(out)
    if isinstance(out, Path):
        refuse_table(out, overwrite)
    found = part_of(scan([local_path(given) for given in paths(images)]), shard)
    composer = Composer.open(
        bundle,
        provider=provider,
        allow_torchscript=allow_torchscript,
        batch_size=batch_size,
        max_pixels=max_pixels,
    )
    began, failed, spread = time.monotonic(), 0, samples is not None
    with ExitStack() as opened:
        table = (
            opened.enter_context(LabelTable.create(out, composer.labels.column_names, spread, overwrite))
            if isinstance(out, Path)
            else LabelTable(out, "csv", composer.labels.column_names, spread)
        )
        # a table on a terminal shows itself how far it is, and a bar would be drawn over it
        on_screen = not isinstance(out, Path) and out.isatty()
        bar = opened.enter_context(silent() if on_screen else progress("classify", len(found.sources), "images"))
        opened.enter_context(underway())
        for row in classify_sources(composer, found.sources, samples=samples, seed=seed, workers=workers):
            table.write(row)
            failed += bool(row.error)
            bar.advance()
    return Classified(
        out=out if isinstance(out, Path) else None,
        provider=composer.bundle.runs_on,
        sources=len(found.sources),
        failed=failed,
        ignored=found.ignored,
        seconds=time.monotonic() - began,
    )


def classify_sources(
    composer: Composer,
    sources: Sequence[Source],
    *,
    samples: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Iterator[Row]:
    """Label probabilities of each source, in order, one batch in memory at a time; see `classify_seen`."""
    of = partial(classify_seen, samples=samples, seed=seed)
    for one in by_batches(composer, sources, of, workers=workers):
        yield Row(one.source, error=one.reason) if isinstance(one, Failure) else one


def classify_picture(
    composer: Composer, picture: Picture, name: str, digest: str, *, samples: int | None = None, seed: int = 0
) -> Row:
    """Label probabilities of one picture; `name` keys the noise of the draws.

    Args:
        samples: None classifies the posterior mean; K averages over K posterior draws and adds their spread.

    Raises:
        UsageError: samples or seed outside its range.
    """
    pixels = network_input(picture, composer.bundle.manifest.image)
    seen = Seen(Source(Path(name), name), digest, pixels, picture)
    return classify_seen(composer, [seen], samples=samples, seed=seed)[0]


def classify_seen(composer: Composer, seen: Sequence[Seen], *, samples: int | None = None, seed: int = 0) -> list[Row]:
    """Label probabilities of sources in memory, at least one.

    Raises:
        UsageError: samples or seed outside its range.
    """
    _refuse_draws(samples, seed)
    if samples is None:
        means, deviations = composer.classify(stack(seen)), None
    else:
        means, deviations = _averaged(composer, seen, samples, seed)
    return [
        Row(
            one.source.relative,
            one.digest,
            composer.named(means[row]),
            None if deviations is None else composer.named(deviations[row]),
        )
        for row, one in enumerate(seen)
    ]


def _averaged(composer: Composer, seen: Sequence[Seen], samples: int, seed: int) -> tuple[Array, Array]:
    """Mean and standard deviation over draws z_c ~ q(z_c|x) of q(y|z_c), both (N, Y).

    The deviation is that of the K draws themselves (divided by K): how far the posterior leaves each label open.
    """
    layout = composer.bundle.manifest.layout
    loc, scale = composer.posterior(stack(seen))
    noise = np.stack([latent_noise(seed, one.source.relative, samples, layout.z_c) for one in seen])
    drawn = loc[:, None, : layout.z_c] + scale[:, None, : layout.z_c] * noise
    probabilities = composer.probabilities(drawn.reshape(-1, layout.z_c)).reshape(len(seen), samples, -1)
    wide = probabilities.astype(np.float64)
    return wide.mean(axis=1).astype(np.float32), wide.std(axis=1).astype(np.float32)


def _place(out: Path | str | BinaryIO) -> Path | BinaryIO:
    if isinstance(out, str | Path):
        return local_path(out)
    if isinstance(out, TextIOBase) or not hasattr(out, "write"):
        given = one_line(repr(out), 40)
        raise UsageError(f"--out {given}: expected a path, or a stream of bytes such as sys.stdout.buffer")
    return out


def _refuse_draws(samples: int | None, seed: int) -> None:
    if samples is not None:
        refuse_outside("--samples", samples, 1, MAX_DRAWS)
    refuse_seed(seed)
