"""From records of images to effects of labels on outputs. Pure: iterates over records, keeps a few numbers of each.

With d = f(edited) - f(redrawn) of an image, f averaged over the K samples, the effect of a binary label is

    half of (mean of d where the label was turned on - mean of d where it was turned off)

so it is what the label's presence adds. What an edit does to an output whichever way it goes, such as more edges, falls
out; it stands beside as the half sum. Where one of the two has too few images the other counts alone. The effect of a
class is the mean of d over the images of other classes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..schema import Frozen, LabelSet
from .record import AuditSettings, spelled
from .statistics import FEWEST, Resampled, Wide, adjusted, critical, halves, resample, student

Verdict = Literal["moves", "moves slightly", "no effect found", "not tested"]
FEWEST_OF_A_KIND = FEWEST // 2
REACHED = 0.5
"""Where fewer edits than this reach their label, finding no effect says nothing."""
SLIGHT = 0.2
"""An effect below this share of what the output varies among the images is slight, by Cohen's convention: a bundle's
edits are not perfectly local, and with many images their least side effect is seen."""


class Dose(Frozen):
    """The effect at one strength, with the interval of this figure alone, and the share that reached the label."""

    strength: float
    effect: float
    low: float
    high: float
    reached: float


class Effect(Frozen):
    """What one label, or one class of it, does to one output.

    Attributes:
        label: `label`, or `label=class` for a class of a categorical label.
        images: those that the effect, the flips and the shares are told of; a direction that has too few does not
            count.
        effect: mean shift against the redraw; `low` to `high` holds it with 95 %, this figure taken alone.
        joint_low, joint_high: the interval that decides: those of all effects with enough images hold together with
            95 %.
        p: of no effect, adjusted for all tests of the audit; effects with too few images are none of them.
        against_control: the same mean shift, against the control picture instead of the redraw.
        spread: standard deviation of the output over the control pictures.
        turned_on, turned_off: mean of f(edited) - f(redrawn) where the label was absent, and where it was there; None
            where no image was so.
        either_way: their half sum: what an edit of the label does whichever way it goes; None where one has too few
            images.
        flips: share of edited pictures whose decision is not that of the control; `redrawn_flips` of redrawn ones.
        reached: share of edited pictures on which the bundle's classifier sees the label as asked; `kept` of redrawn
            ones on which it still sees the state they had.
    """

    label: str
    output: str
    images: int
    effect: float
    low: float
    high: float
    joint_low: float
    joint_high: float
    p: float
    verdict: Verdict
    against_control: float
    spread: float
    turned_on: float | None
    turned_off: float | None
    either_way: float | None
    flips: float
    redrawn_flips: float
    reached: float
    kept: float
    doses: tuple[Dose, ...]


@dataclass(frozen=True)
class Row:
    """What is tested: a binary label (value None), or one class of a categorical one."""

    label: int
    value: int | None
    name: str
    strengths: tuple[float, ...]


@dataclass
class Column:
    """What is kept of the images of one row, one array per image.

    Attributes:
        where: places among all images.
        signs: 1 where it was turned on, -1 where off.
        shifts: f(edited) - f(redrawn), (strengths, outputs).
        others: against the control, flips, flips of the redraw, (3, outputs).
        reached: by strength, and at last the redraw's, (strengths + 1,).
    """

    where: list[int] = field(default_factory=list)
    signs: list[int] = field(default_factory=list)
    shifts: list[NDArray[np.float32]] = field(default_factory=list)
    others: list[NDArray[np.float32]] = field(default_factory=list)
    reached: list[NDArray[np.float32]] = field(default_factory=list)


def effects(labels: LabelSet, settings: AuditSettings, records: Iterable[Mapping[str, Any]]) -> list[Effect]:
    """The effect of every audited label on every output, in the order of labels, then of outputs."""
    rows = list(_rows(labels, settings))
    columns = [Column() for _ in rows]
    controls = []
    for place, record in enumerate(records):
        controls.append(np.array(record["control"], np.float32))
        for row, column in zip(rows, columns, strict=True):
            _add(labels, row, column, place, record)
    if not controls:
        return []
    spread = np.stack(controls).std(axis=0, dtype=np.float64)
    found = [
        _resampled(row, column, len(controls), len(spread), settings.seed)
        for row, column in zip(rows, columns, strict=True)
    ]
    tested = [slice(one * len(spread), (one + 1) * len(spread)) for one in (row.strengths.index(1.0) for row in rows)]
    # what has too few images is not tested, and others need not pay for it
    counted = [_counted(np.array(column.signs)) for column in columns]
    enough = [mine.sum() >= FEWEST for mine in counted]
    largest = np.max(
        [part.deviations(at) for part, at, much in zip(found, tested, enough, strict=True) if much or not any(enough)],
        axis=0,
    )
    return [
        effect
        for row, column, part, at in zip(rows, columns, found, tested, strict=True)
        if column.where
        for effect in _effects(row, column, part, at, largest, settings.reading.names, spread)
    ]


def _rows(labels: LabelSet, settings: AuditSettings) -> Iterator[Row]:
    for name in settings.labels:
        label = labels.index(name)
        if labels.labels[label].kind == "binary":
            yield Row(label, None, name, settings.strengths)
        else:
            for value in range(len(labels.labels[label].classes)):
                yield Row(label, value, spelled(labels, label, value), (1.0,))


def _add(labels: LabelSet, row: Row, column: Column, place: int, record: Mapping[str, Any]) -> None:
    name = labels.names[row.label]
    own = record["state"][name]
    value = 1 - own if row.value is None else row.value
    if value == own:
        return
    redrawn, edited = record["redrawn"][name], record["edited"][spelled(labels, row.label, value)]
    doses = [edited[f"{strength:g}"] for strength in row.strengths]
    asked = edited["1"]
    base = np.array(redrawn["outputs"])
    column.where.append(place)
    column.signs.append(-1 if row.value is None and value == 0 else 1)
    column.shifts.append(np.array([np.array(dose["outputs"]) - base for dose in doses], np.float32))
    against = np.array(asked["outputs"]) - record["control"]
    column.others.append(np.array([against, asked["flips"], redrawn["flips"]], np.float32))
    column.reached.append(np.array([*(dose["reached"] for dose in doses), redrawn["reached"]], np.float32))


def _resampled(row: Row, column: Column, images: int, outputs: int, seed: int) -> Resampled:
    """The effect on every output at every strength; columns are strength by strength."""
    width = len(row.strengths) * outputs
    shifts = np.stack(column.shifts).reshape(-1, width) if column.shifts else np.zeros((0, width), np.float32)
    where, signs = np.array(column.where, np.intp), np.array(column.signs)
    parts = [resample(shifts[kind] * signs[kind, None], images, where[kind], seed) for kind in _kinds(signs)]
    return halves(*parts) if len(parts) == 2 else parts[0]


def _kinds(signs: NDArray[np.intp]) -> list[NDArray[np.bool_]]:
    """The images that were turned on and those that were turned off, without a kind that has too few to say anything.

    Where both have, all images together.
    """
    kinds = [kind for kind in (signs > 0, signs < 0) if kind.sum() >= FEWEST_OF_A_KIND]
    return kinds or [np.ones(len(signs), bool)]


def _counted(signs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The images that an effect is told of."""
    counted: NDArray[np.bool_] = np.any(_kinds(signs), axis=0)
    return counted


def _effects(
    row: Row,
    column: Column,
    part: Resampled,
    tested: slice,
    largest: NDArray[np.float64],
    names: tuple[str, ...],
    spread: Wide,
) -> Iterator[Effect]:
    signs = np.array(column.signs)
    kinds, counted = _kinds(signs), _counted(signs)
    images = int(counted.sum())
    whole = row.strengths.index(1.0)
    shifts = np.stack(column.shifts)[:, whole]
    others, reached = np.stack(column.others), np.stack(column.reached)[counted].mean(axis=0)
    low, high = part.interval()
    q = critical(largest)
    for i, name in enumerate(names):
        at = tested.start + i
        on, off = _mean(shifts[signs > 0, i]), _mean(shifts[signs < 0, i])
        mean, error, share = float(part.mean[at]), float(part.error[at]), float(reached[whole])
        half = student(q, float(part.freedom[at])) * error
        yield Effect(
            label=row.name,
            output=name,
            images=images,
            effect=mean,
            low=float(low[at]),
            high=float(high[at]),
            joint_low=mean - half,
            joint_high=mean + half,
            p=adjusted(mean, error, float(part.freedom[at]), largest) if images > 1 else 1.0,
            verdict=verdict(mean, half, float(spread[i]), images, share),
            against_control=float(np.mean([(others[kind, 0, i] * signs[kind]).mean() for kind in kinds])),
            spread=float(spread[i]),
            turned_on=on,
            turned_off=off,
            either_way=(on + off) / 2 if len(kinds) == 2 and on is not None and off is not None else None,
            flips=float(others[counted, 1, i].mean()),
            redrawn_flips=float(others[counted, 2, i].mean()),
            reached=share,
            kept=float(reached[-1]),
            doses=_doses(row, part, i, (low, high), reached),
        )


def verdict(effect: float, half: float, spread: float, images: int, reached: float) -> Verdict:
    """What is said of an effect.

    Args:
        half: half the width of its joint interval.
        spread: standard deviation of the output over the control pictures.
        images: on which it was measured.
        reached: share of the edits that reach the label.
    """
    if images < FEWEST:
        return "not tested"
    if abs(effect) > half:
        return "moves" if abs(effect) >= SLIGHT * spread else "moves slightly"
    return "no effect found" if reached >= REACHED else "not tested"


def _doses(
    row: Row, part: Resampled, output: int, interval: tuple[Wide, Wide], reached: NDArray[np.float32]
) -> tuple[Dose, ...]:
    """One output's effect at every strength; columns are strength by strength."""
    at = range(output, len(part.mean), len(part.mean) // len(row.strengths))
    return tuple(
        Dose(
            strength=strength,
            effect=float(part.mean[column]),
            low=float(interval[0][column]),
            high=float(interval[1][column]),
            reached=float(reached[j]),
        )
        for j, (strength, column) in enumerate(zip(row.strengths, at, strict=True))
    )


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean()) if len(values) else None
