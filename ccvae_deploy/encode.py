"""Encode files and folders of images once, for many edits. Writes the latents and a list of failures beside them."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .composer import Composer
from .errors import UsageError
from .folder import Source, part_of, scan
from .latent_store import LatentRow, LatentWriter
from .limits import BATCH, MAX_PIXELS, refuse_speed
from .receipts import Failure
from .records.reading import read_failures
from .storage.new_file import new_file
from .storage.remote import NAME_LIMIT, Paths, local_path, paths
from .storage.store import refuse_file
from .terminal.progress import progress
from .work.stream import Seen, by_batches, stack


@dataclass(frozen=True)
class EncodedFolder:
    """What a run of `encode` came to.

    Attributes:
        sources: images found, `failed` of which could not be read; `ignored` files are no images.
    """

    out: Path
    failures: Path
    provider: str
    sources: int
    failed: int
    ignored: int
    seconds: float


def encode_folder(
    images: Paths,
    *,
    bundle: Path | str,
    out: Path | str = "latents.safetensors",
    provider: str = "auto",
    batch_size: int = BATCH,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    shard: str | None = None,
    overwrite: bool = False,
    allow_torchscript: bool = False,
) -> EncodedFolder:
    """Write what the encoder says of images and folders of images; see `latent_store` for the file.

    An image that cannot be read is recorded in `<out without ending>.failures.jsonl` and passed over.

    Args:
        images: one image or folder of images, or several.
        max_pixels: larger images are recorded as failures; at most 178,956,970.
        shard: `I/N`, part I of N counted from 0, as in `edit`.
        overwrite: replace what is there.

    Raises:
        CCVAEError: refused, and nothing was written; or no image could be read; or the disk is full.
    """
    refuse_speed(batch_size, workers)
    out = local_path(out)
    failures_at = out.parent / f"{out.stem}.failures.jsonl"
    _refuse_out(out, failures_at, overwrite)
    found = part_of(scan([local_path(given) for given in paths(images)]), shard)
    if not found.sources:
        raise UsageError(f"--shard {shard} holds none of these images; there are more shards than images")
    composer = Composer.open(
        bundle,
        provider=provider,
        allow_torchscript=allow_torchscript,
        batch_size=batch_size,
        max_pixels=max_pixels,
    )
    began, failures = time.monotonic(), []
    created = LatentWriter.create(out, composer.bundle, overwrite=overwrite)
    with created as writer, progress("encode", len(found.sources), "images") as bar:
        for one in encode_sources(composer, found.sources, workers=workers):
            if isinstance(one, Failure):
                failures.append(one)
            else:
                writer.add(one)
            bar.advance()
        if len(failures) == len(found.sources):
            raise UsageError(f"no image could be read; the first is {failures[0].source}: {failures[0].reason}")
        # before the latents: a file of latents is whole, and what failed is told beside it
        with new_file(failures_at) as stream:
            stream.writelines(failure.line().encode("ascii") for failure in failures)
    return EncodedFolder(
        out=out,
        failures=failures_at,
        provider=composer.bundle.runs_on,
        sources=len(found.sources),
        failed=len(failures),
        ignored=found.ignored,
        seconds=time.monotonic() - began,
    )


def encode_sources(
    composer: Composer, sources: Sequence[Source], *, workers: int | None = None
) -> Iterator[LatentRow | Failure]:
    """What the encoder says of each source, in order, one batch in memory at a time."""
    return by_batches(composer, sources, _rows, workers=workers)


def _rows(composer: Composer, seen: Sequence[Seen]) -> list[LatentRow]:
    pixels = stack(seen)
    z, scale = composer.posterior(pixels)
    encoded = composer.encoded(pixels, z)
    return [
        LatentRow(
            source=one.source.relative,
            source_sha256=one.digest,
            z_loc=z[row],
            z_scale=scale[row],
            before=encoded.before[row],
            control=float(encoded.control[row]),
            frame=one.picture,
        )
        for row, one in enumerate(seen)
    ]


def _refuse_out(out: Path, failures: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".safetensors":
        raise UsageError(f"--out {out}: expected a name that ends in .safetensors")
    if len(os.fsencode(failures.name)) > NAME_LIMIT:
        raise UsageError(f"--out {out}: {failures.name} would be too long a name; give a shorter one")
    refuse_file(out, overwrite)
    # one of ours is of a run that ended before its latents were in place
    if not _is_ours(failures):
        refuse_file(failures, overwrite)


def _is_ours(failures: Path) -> bool:
    try:
        read_failures(failures.parent, failures.name)
    except (OSError, ValueError, TypeError):
        return False
    return failures.is_file() and not failures.is_symlink()
