"""Choose labels by name. Pure."""

from collections.abc import Sequence

from ccvae_deploy.errors import LabelError, nearest
from ccvae_deploy.schema import folded


def select(known: Sequence[str], asked: Sequence[str]) -> list[int]:
    """Positions in `known` of the asked names, in the asked order, without regard to case, `-`, `_` and blanks.

    Raises:
        LabelError: a name is unknown or given twice.
    """
    positions = {folded(name): index for index, name in enumerate(known)}
    chosen: list[int] = []
    for name in asked:
        index = positions.get(folded(name))
        if index is None:
            raise LabelError(f"unknown label {name!r}: {nearest(name, known)}")
        if index in chosen:
            raise LabelError(f"label {known[index]} is given twice in --labels")
        chosen.append(index)
    return chosen
