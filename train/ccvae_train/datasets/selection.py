"""Choose labels by name, and refuse the kinds that training does not take. Pure."""

from collections.abc import Iterable, Sequence

from ccvae_deploy.errors import LabelError, nearest
from ccvae_deploy.schema import Label, folded


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


def require_binary(labels: Iterable[Label]) -> None:
    """Training takes binary labels.

    Raises:
        LabelError: a label is categorical.
    """
    for label in labels:
        if label.kind != "binary":
            raise LabelError(
                f"label {label.name} has {len(label.classes)} classes; training takes binary labels: "
                "give each class a 0/1 column of its own, or leave the label out with --labels"
            )
