"""What a user asks of an edit, parsed and checked against the labels of a bundle. Pure data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from .errors import LabelError, UsageError, nearest
from .schema import Label, LabelSet, folded

Mode = Literal["sample", "mean", "closest"]
Compose = Literal["residual", "decode"]
Value = float | str

MAX_SAMPLES = 100
"""File names number samples with two digits."""


@dataclass(frozen=True)
class Asked:
    """One label and the value it is to take.

    Attributes:
        label: its position in the bundle.
        value: in [0, 1] for a binary label, the class index for a categorical one.
        spelled: `label=value` as file names carry it.
    """

    label: int
    value: float
    spelled: str


@dataclass(frozen=True)
class EditRequest:
    """A checked request; `asked` is in the bundle's label order.

    Attributes:
        mode: `sample` draws the block from p(z_i|y_i), `mean` takes its mean, `closest` makes the smallest move that
            reaches `confidence`.
        strength: 1 is the asked label, 0 its opposite, above 1 beyond it.
        compose: `residual` adds the change to the original, `decode` gives the decoder's image.
    """

    asked: tuple[Asked, ...]
    samples: int
    seed: int
    mode: Mode
    strength: float
    confidence: float
    compose: Compose

    @property
    def name(self) -> str:
        """How output names call this edit, such as `smiling=1` or `smiling=1,young=0`."""
        return ",".join(asked.spelled for asked in self.asked)

    @property
    def values(self) -> dict[str, float]:
        """What was asked, by the spelling of the label."""
        return {asked.spelled.rpartition("=")[0]: asked.value for asked in self.asked}


class RequestOptions(TypedDict, total=False):
    """How an edit is done; every key has a default, see `EditRequest`."""

    samples: int
    seed: int
    mode: str
    strength: float
    confidence: float
    compose: str


def make_request(
    labels: LabelSet,
    asked: Mapping[str, Value] | Sequence[str],
    *,
    samples: int = 1,
    seed: int = 0,
    mode: str = "sample",
    strength: float = 1.0,
    confidence: float = 0.9,
    compose: str = "residual",
) -> EditRequest:
    """Check everything a user can ask.

    Args:
        asked: label to value, or `LABEL=VALUE` strings. A value is 0, 1, a number between, or a class name.

    Raises:
        LabelError: an unknown label or a value outside its range.
        UsageError: another argument outside its range, or a combination that cannot work.
    """
    parsed = _parse(labels, asked)
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"--samples {samples}: expected 1 to {MAX_SAMPLES}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: expected 0 to {2**63 - 1}")
    if mode not in get_args(Mode):
        raise UsageError(f"--mode {mode!r}: {nearest(mode, get_args(Mode))}")
    if compose not in get_args(Compose):
        raise UsageError(f"--compose {compose!r}: {nearest(compose, get_args(Compose))}")
    if not 0 <= strength <= 10:
        raise UsageError(f"--strength {strength:g}: expected 0 to 10; 1 is the asked label")
    if not 0.5 < confidence < 1:
        raise UsageError(f"--confidence {confidence:g}: expected above 0.5 and below 1")
    if mode != "sample" and samples > 1:
        raise UsageError(
            f"--samples {samples} with --mode {mode}: all would be equal; use --mode sample, or --samples 1"
        )
    for one in parsed:
        label = labels.labels[one.label]
        if mode == "closest" and (label.kind != "binary" or one.value not in (0, 1)):
            raise UsageError(f"--mode closest with {one.spelled}: it takes binary labels and the values 0 and 1")
        if label.kind == "categorical" and strength != 1:
            raise UsageError(f"--strength {strength:g} with {one.spelled}: a categorical label has no opposite")
    return EditRequest(parsed, samples, seed, mode, strength, confidence, compose)  # type: ignore[arg-type]


def _parse(labels: LabelSet, asked: Mapping[str, Value] | Sequence[str]) -> tuple[Asked, ...]:
    pairs: list[tuple[str, Value]] = []
    pairs += asked.items() if isinstance(asked, Mapping) else map(_split, asked)
    if not pairs:
        raise UsageError("nothing to change: give at least one --set LABEL=VALUE")
    found: dict[int, Asked] = {}
    for name, value in pairs:
        position = labels.index(name)
        label = labels.labels[position]
        if position in found:
            raise LabelError(f"label {label.name} is set twice; give it one value")
        spelled = f"{'_'.join(name.strip().lower().split())}={str(value).strip()}"
        found[position] = Asked(position, _value(label, value), spelled)
    return tuple(found[position] for position in sorted(found))


def _split(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"--set {item!r}: expected LABEL=VALUE, such as smiling=1")
    return name, value


def _value(label: Label, value: Value) -> float:
    """A number in [0, 1] or a class index."""
    classes = [folded(name) for name in label.classes]
    text = str(value).strip()
    if folded(text) in classes:
        return float(classes.index(folded(text)))
    if label.kind == "categorical":
        raise LabelError(f"{label.name}={text}: {nearest(text, label.classes)}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise LabelError(
            f"{label.name}={text}: expected {label.classes[0]}, {label.classes[1]} or a number from 0 to 1"
        )
    return number
