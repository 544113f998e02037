"""References of a swap: images whose characteristics are taken, and which source takes them. Reads files only."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..arrays import Array
from ..composer import Composer
from ..errors import ImageError, UsageError, nearest
from ..folder import Source, output_stems, scan
from ..receipts import Failure
from .stream import Seen, by_batches, stack

Pairs = Literal["one", "all"]


@dataclass(frozen=True)
class Reference:
    """One image as the encoder sees it.

    Attributes:
        stem: its relative path without ending, by which outputs are named.
        z_c: characteristic latents at the posterior mean, (Zc,).
        probabilities: label probabilities, (Y,).
    """

    source: Source
    stem: str
    digest: str
    z_c: Array
    probabilities: Array


@dataclass(frozen=True)
class References:
    """All references in path order; None stands for one that could not be read, told in `failures`."""

    all: tuple[Reference | None, ...]
    failures: tuple[Failure, ...]
    pairs: Pairs

    @property
    def digest(self) -> str:
        """16 hex digits of all their paths and contents."""
        lines = (os.fsencode(one.source.relative) + one.digest.encode() for one in self.all if one)
        return hashlib.sha256(b"\0".join(lines)).hexdigest()[:16]

    @property
    def shared(self) -> bool:
        """Whether every source takes all of them."""
        return self.pairs == "all" or len(self.all) == 1

    def of(self, row: int) -> list[tuple[int, Reference]]:
        """The references of the source in this place, each with its number."""
        chosen = enumerate(self.all) if self.shared else [(row, self.all[row])]
        return [(number, one) for number, one in chosen if one is not None]


def read_references(
    composer: Composer, path: Path, pairs: str, sources: int, *, workers: int | None = None
) -> References:
    """Encode one reference, or a folder of them. Memory is Zc + Y numbers each.

    Args:
        pairs: `one` gives every source the only reference, or the one in its own place of the order of paths; `all`
            gives every source all of them.
        sources: how many sources there are.

    Raises:
        ImageError: the only reference cannot be read.
        UsageError: none is found, or they do not pair up.
    """
    if pairs not in get_args(Pairs):
        raise UsageError(f"--pairs {pairs!r}: {nearest(pairs, get_args(Pairs))}")
    found = scan([path]).sources
    if pairs == "one" and len(found) not in (1, sources):
        raise UsageError(
            f"{sources:,} images and {len(found):,} references do not pair up; add --pairs all, or give one reference"
        )
    all_: list[Reference | None] = []
    failures: list[Failure] = []
    read = by_batches(composer, found, _encoded, workers=workers)
    for source, stem, one in zip(found, output_stems(found), read, strict=True):
        if isinstance(one, Failure):
            all_.append(None)
            # by the path as given, which no source's relative path is mistaken for
            failures.append(one.model_copy(update={"source": str(source.path)}))
        else:
            all_.append(Reference(source, stem, *one))
    if len(failures) == len(all_):
        raise ImageError(f"{path}: no reference can be read: {failures[0].reason}")
    return References(tuple(all_), tuple(failures), pairs)  # type: ignore[arg-type]


def _encoded(composer: Composer, seen: Sequence[Seen]) -> list[tuple[str, Array, Array]]:
    z, _ = composer.posterior(stack(seen))
    z_c, digests = z[:, : composer.bundle.manifest.layout.z_c], [one.digest for one in seen]
    return list(zip(digests, z_c, composer.probabilities(z), strict=True))
