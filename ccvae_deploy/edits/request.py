"""What a user asks of an edit, parsed and checked against the labels of a bundle. Pure data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np

from ..errors import LabelError, UsageError, nearest, one_line
from ..given import each, real, refuse_outside
from ..schema import Label, LabelSet, folded

Mode = Literal["sample", "mean", "closest"]
Compose = Literal["residual", "decode"]
Value = float | str
Asking = Mapping[str, Value] | Sequence[str | tuple[str, Value]]
"""Labels to values, `LABEL=VALUE` texts, or pairs."""

VARY = "vary"
MAX_SAMPLES = 100
"""File names number samples with two digits."""
MAX_ATTEMPTS = 100
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Asked:
    """One label and the value it is to take.

    Attributes:
        label: its position in the bundle.
        value: in [0, 1] for a binary label, the class index for a categorical one; None varies the label within the
            state it has.
        spelled: `label=value` as file names carry it, or `label=vary`; of one value there is one spelling.
    """

    label: int
    value: float | None
    spelled: str


@dataclass(frozen=True)
class EditRequest:
    """A checked request; `asked` is in the bundle's label order.

    Attributes:
        mode: how labels get their value: `sample` draws the block from p(z_i|y_i), `mean` takes its mean, `closest`
            makes the smallest move that reaches `confidence`. Varied labels are always drawn.
        strength: 1 is the asked label, 0 its opposite, above 1 beyond it.
        confidence: what `closest` reaches, and what a draw without a conditional prior must have.
        until_reached: how many draws an output may take until it classifies as asked.
        compose: `residual` adds the change to the original, `decode` gives the decoder's image.
    """

    asked: tuple[Asked, ...]
    samples: int
    seed: int
    mode: Mode
    strength: float
    confidence: float
    compose: Compose
    until_reached: int = 1

    @property
    def name(self) -> str:
        """How output names call this edit, such as `smiling=1` or `smiling=1,young=0`."""
        return ",".join(asked.spelled for asked in self.asked)

    def values(self, labels: LabelSet) -> dict[str, float | str]:
        """What was asked, by the label's own name; `vary` for a varied one."""
        return {labels.names[one.label]: VARY if one.value is None else one.value for one in self.asked}

    @property
    def draws(self) -> bool:
        """Whether anything is drawn, so that samples and attempts differ."""
        return any(one.value is None or self.mode == "sample" for one in self.asked)


def asked_of(labels: LabelSet, values: Mapping[str, Value]) -> tuple[Asked, ...]:
    """The inverse of `EditRequest.values`; each is spelled by the label's own name."""
    positions, found = {name: i for i, name in enumerate(labels.names)}, []
    for name, value in values.items():
        label, number = positions[name], None if value == VARY else float(value)
        found.append(Asked(label, number, f"{name}={_spelled(labels.labels[label], number)}"))
    return tuple(found)


class RequestOptions(TypedDict, total=False):
    """How an edit is done; every key has a default, see `EditRequest`."""

    vary: Sequence[str]
    samples: int
    seed: int
    mode: str
    strength: float
    confidence: float
    compose: str
    until_reached: int


def make_request(
    labels: LabelSet,
    asked: Asking,
    *,
    vary: Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    mode: str = "sample",
    strength: float = 1.0,
    confidence: float = CONFIDENCE,
    compose: str = "residual",
    until_reached: int = 1,
) -> EditRequest:
    """Check everything a user can ask that does not depend on the model.

    Args:
        asked: label to value, `LABEL=VALUE` strings, or pairs of label and value. A value is 0, 1, a number between, a
            truth value, or a class name; of classes that are numbers, such as 1 and 2, a class name alone.
        vary: labels to redraw within the state they have.

    Raises:
        LabelError: an unknown label or a value outside its range.
        UsageError: another argument outside its range, or a combination that cannot work.
    """
    parsed = _parse(labels, asked, each("--vary", vary))
    refuse_outside("--samples", samples, 1, MAX_SAMPLES)
    refuse_seed(seed)
    if mode not in get_args(Mode):
        raise UsageError(f"--mode {mode!r}: {nearest(mode, get_args(Mode))}")
    strength, confidence = real("--strength", strength), real("--confidence", confidence)
    if not 0 <= strength <= 10:
        raise UsageError(f"--strength {strength:g}: expected 0 to 10; 1 is the asked label")
    if not 0.5 < confidence < 1:
        raise UsageError(f"--confidence {confidence:g}: expected above 0.5 and below 1")
    refuse_outside("--until-reached", until_reached, 1, MAX_ATTEMPTS, " draws")
    request = EditRequest(parsed, samples, seed, mode, strength, confidence, checked_compose(compose), until_reached)  # type: ignore[arg-type]
    _refuse_combinations(request, labels)
    return request


def checked_compose(compose: str) -> Compose:
    """The way of compositing that a word names.

    Raises:
        UsageError: an unknown word.
    """
    if compose not in get_args(Compose):
        raise UsageError(f"--compose {compose!r}: {nearest(compose, get_args(Compose))}")
    return compose  # type: ignore[return-value]


def _refuse_combinations(request: EditRequest, labels: LabelSet) -> None:
    """Options that would change nothing, or that contradict each other."""
    mode, strength = request.mode, request.strength
    for option, count in (("--samples", request.samples), ("--until-reached", request.until_reached)):
        if count > 1 and not request.draws:
            raise UsageError(
                f"{option} {count} with --mode {mode}: all would be equal; use --mode sample, or leave {option} out"
            )
    if all(one.value is None for one in request.asked) and (mode != "sample" or strength != 1):
        raise UsageError("--mode and --strength are about --set, and --vary always draws; leave them out")
    if mode == "closest" and strength != 1:
        raise UsageError(f"--strength {strength:g} with --mode closest: how far it goes is --confidence")
    for one in request.asked:
        if one.value is not None and labels.labels[one.label].kind == "categorical" and strength != 1:
            raise UsageError(f"--strength {strength:g} with {one.spelled}: a categorical label has no opposite")


def labels_or_all(labels: LabelSet, names: str | Sequence[str]) -> list[int]:
    """Positions of the named labels, in the order of the names; of all labels where none is named.

    Raises:
        LabelError: an unknown label.
        UsageError: one twice.
    """
    found = labels.positions(names) or list(range(len(labels)))
    if len(set(found)) != len(found):
        raise UsageError(f"--labels {','.join(names)}: expected different labels, such as smiling,young")
    return found


def refuse_seed(seed: int) -> None:
    """Refuse a seed that the noise cannot be keyed by.

    Raises:
        UsageError: it is no whole number, or outside its range.
    """
    refuse_outside("--seed", seed, 0, 2**63 - 1)


def _parse(labels: LabelSet, asked: Asking, vary: Sequence[str]) -> tuple[Asked, ...]:
    wanted: list[tuple[str, Value | None]] = [*pairs(asked)]
    for name, value in wanted:
        if value is None:
            raise LabelError(f"{name}=None: expected a value; `vary` names the labels to redraw")
    for name in vary:
        if "," in name and name not in labels.names:
            raise UsageError(f"--vary {name!r}: expected one label; give each a --vary of its own")
    wanted += [(name, None) for name in vary]
    if not wanted:
        raise UsageError("nothing to change: give at least one --set LABEL=VALUE or --vary LABEL, or a --plan")
    found: dict[int, Asked] = {}
    for name, value in wanted:
        position = labels.index(name)
        label = labels.labels[position]
        if position in found:
            raise LabelError(f"label {label.name} is {_twice(found[position].value, value)}")
        spelled = "_".join(name.strip().lower().split())
        number = None if value is None else _value(label, value)
        found[position] = Asked(position, number, f"{spelled}={_spelled(label, number)}")
    return tuple(found[position] for position in sorted(found))


def _twice(first: float | None, second: Value | None) -> str:
    """What is wrong with a label that is named twice; None is one to redraw."""
    if first is None:
        return "varied twice; name it once"
    return "set and varied; do one of both" if second is None else "set twice; give it one value"


def _spelled(label: Label, value: float | None) -> str:
    """`vary`; a class by name where there are many or numbers name them; else 0, 1 or the shortest number between."""
    if value is None:
        return VARY
    if label.kind == "categorical" or (_numbered(label) and value in (0, 1)):
        return label.classes[int(value)]
    return str(int(value)) if value in (0, 1) else repr(value)


def pairs(asked: Asking) -> list[tuple[str, Value]]:
    """Label and value of everything that is asked.

    Raises:
        UsageError: it is written in another way.
    """
    if isinstance(asked, Mapping):
        return list(asked.items())
    if isinstance(asked, str):
        return [_split(asked)]
    try:
        return [item if isinstance(item, tuple) and len(item) == 2 else _split(item) for item in asked]
    except TypeError as error:
        raise UsageError(
            f"--set {one_line(repr(asked), 40)}: expected LABEL=VALUE texts, or labels to values"
        ) from error


def _split(item: object) -> tuple[str, str]:
    name, equals, value = item.partition("=") if isinstance(item, str) else ("", "", "")
    if not equals or not name.strip() or not value.strip():
        raise UsageError(f"--set {item!r}: expected LABEL=VALUE, such as smiling=1")
    # no class is called so, see `LabelSet`
    if "," in value and "=" in value:
        raise UsageError(f"--set {item!r}: expected one label; give each a --set of its own")
    return name, value


def class_position(label: Label, value: object) -> int | None:
    """Position of the class that a value names: by its text, or as the one class whose name is that number."""
    text = str(value).strip()
    for position, name in enumerate(label.classes):
        # -1 is no other way to write 1
        if text == name or (folded(text) == folded(name) and _number(name) is None):
            return position
    number = _number(text)
    same = [position for position, name in enumerate(label.classes) if _number(name) == number]
    return same[0] if number is not None and len(same) == 1 else None


def _value(label: Label, value: Value) -> float:
    """A number in [0, 1] or a class index."""
    binary, numbered = label.kind == "binary", _numbered(label)
    if isinstance(value, bool | np.bool_) and binary and not numbered:
        return float(value)
    position, text = class_position(label, value), str(value).strip()
    if position is not None:
        return float(position)
    if not binary:
        raise LabelError(f"{label.name}={text}: {nearest(text, label.classes)}")
    first, second = label.classes
    if numbered:
        raise LabelError(
            f"{label.name}={text}: its classes are called {first} and {second}; "
            f"give {label.name}={first} or {label.name}={second}"
        )
    number = _number(text)
    if number is None or not 0 <= number <= 1:
        raise LabelError(f"{label.name}={text}: expected {first}, {second} or a number from 0 to 1")
    # minus zero is zero
    return number + 0.0


def _numbered(label: Label) -> bool:
    """Whether numbers name classes of a binary label other than by their position, as 1 and 2 do: then 1 is a name."""
    numbers = [_number(name) for name in label.classes]
    return label.kind == "binary" and any(number not in (None, k) for k, number in enumerate(numbers))


def _number(text: str) -> float | None:
    """The finite number that a text is."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
