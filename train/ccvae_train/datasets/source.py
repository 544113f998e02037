"""SOURCE as users type it, such as `celeba:DIR`, to a checked and cached data set."""

from collections.abc import Sequence
from pathlib import Path

from ccvae_deploy.errors import DataError, UsageError, nearest
from ccvae_deploy.schema import ImageSpec

from .celeba import open_celeba
from .dataset import Dataset
from .embedded import open_portraits
from .table import open_table

KINDS = ("portraits", "celeba", "table")


def open_dataset(
    source: str, *, labels: Sequence[str] | None = None, size: int = 64, channels: int = 3, seed: int = 0
) -> Dataset:
    """Open a data set.

    Args:
        source: `portraits`, `celeba:DIR` or `table:DIR`.
        labels: the labels to learn, in order; None takes the data set's own choice.
        seed: draws the validation images of a table without a split column.

    Raises:
        UsageError: an unknown kind of source, or a folder missing from it.
        DataError: the data do not agree with themselves.
        LabelError: an unknown label.
    """
    kind, colon, place = source.partition(":")
    spec = ImageSpec(size=size, channels=channels)  # type: ignore[arg-type]
    if kind == "portraits" and not colon:
        return open_portraits(source, labels, spec)
    if kind not in KINDS:
        raise UsageError(f"--data {source!r}: {nearest(kind, ('portraits', 'celeba:DIR', 'table:DIR'))}")
    if kind == "portraits" or not place:
        raise UsageError(f"--data {source!r}: expected portraits, celeba:DIR or table:DIR")
    folder = Path(place)
    if not folder.is_dir():
        raise DataError(f"--data {source}: {folder} is no folder")
    if kind == "celeba":
        return open_celeba(source, folder, labels, spec)
    return open_table(source, folder, labels, spec, seed)
