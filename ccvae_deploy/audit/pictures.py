"""The images on which the audited model changes its mind most, as strips: control, redrawn, edited.

Reads sources, writes nothing. Only places are kept while records are gone through; pictures are made again from the
same noise, so they are those that were counted.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import images
from ..errors import ImageError
from ..folder import Source
from ..pictures.film import Cell, film_grid
from ..work.stream import Seen
from .auditor import REDRAW, Answer, Auditor
from .effects import Effect
from .record import Change, spelled
from .table import number, ranked

EFFECTS, EACH, CELL = 12, 3, 160


@dataclass(frozen=True)
class Shown:
    """One strip.

    Attributes:
        edit: `label=class`.
        control, redrawn, edited: the output's values, of the sample in which it moves most.
        flips: share of this image's edited samples whose decision is another than on the control.
        data: the strip as a JPEG file.
    """

    source: str
    edit: str
    output: str
    control: float
    redrawn: float
    edited: float
    flips: float
    data: bytes


def largest_flips(
    auditor: Auditor, effects: Sequence[Effect], records: Iterable[Mapping[str, Any]], sources: Mapping[str, Source]
) -> list[Shown]:
    """Strips of the largest effects, up to three images of each: most samples flipped, then moved furthest."""
    wanted = ranked(effects)[:EFFECTS]
    found: list[list[tuple[float, float, str, str]]] = [[] for _ in wanted]
    for record in records:
        for effect, best in zip(wanted, found, strict=True):
            best[:] = heapq.nlargest(EACH, [*best, *_candidates(auditor, effect, record)])
    shown = []
    for effect, best in zip(wanted, found, strict=True):
        for flips, _, relative, edit in best:
            try:
                shown.append(_strip(auditor, auditor.read(sources[relative]), effect, edit, flips))
            except ImageError:
                # it was there a moment ago
                continue
    return shown


def _candidates(auditor: Auditor, effect: Effect, record: Mapping[str, Any]) -> Iterable[tuple[float, float, str, str]]:
    """Flips, shift, source and edit of an image: one for a binary label or a class, none where it has that already."""
    column = auditor.settings.reading.names.index(effect.output)
    for change in _changes(auditor, effect):
        edit, name = (
            spelled(auditor.composer.labels, change.label, change.value),
            auditor.composer.labels.names[change.label],
        )
        if edit in record["edited"]:
            asked = record["edited"][edit]["1"]
            shift = abs(asked["outputs"][column] - record["redrawn"][name]["outputs"][column])
            yield asked["flips"][column], shift, record["source"], edit


def _changes(auditor: Auditor, effect: Effect) -> list[Change]:
    """The interventions whose effect it is: both of a binary label, or one of a class."""
    labels = auditor.composer.labels
    return [
        change
        for label in auditor.labels
        for change in auditor.requests[label]
        if change.strength == 1 and effect.label in (labels.names[label], spelled(labels, label, change.value))
    ]


def _strip(auditor: Auditor, original: Seen, effect: Effect, edit: str, flips: float) -> Shown:
    labels, column = auditor.composer.labels, auditor.settings.reading.names.index(effect.output)
    change = next(one for one in _changes(auditor, effect) if spelled(labels, one.label, one.value) == edit)
    control, answers = auditor.look_again(original, change.label, CELL)
    pairs = [(answers[change, k], _redrawn(answers, change.label, k)) for k in range(auditor.settings.samples)]
    edited, redrawn = max(pairs, key=lambda pair: abs(float(pair[0].values[column] - pair[1].values[column])))
    before, anew, after = (float(one.values[column]) for one in (control, redrawn, edited))
    cells = [
        Cell(one.thumbnail, f"{name}: {value:.3g}")
        for one, name, value in ((control, "control", before), (redrawn, "redrawn", anew), (edited, edit, after))
        if one.thumbnail is not None
    ]
    sheet = film_grid([cells], f"{effect.output}: {number(after - anew, effect.spread)}", size=CELL)
    data = images.encode(images.from_pil(sheet), "jpeg")
    return Shown(original.source.relative, edit, effect.output, before, anew, after, flips, data)


def _redrawn(answers: Mapping[tuple[Change, int], Answer], label: int, sample: int) -> Answer:
    return next(
        answer
        for (change, k), answer in answers.items()
        if (change.label, change.strength, k) == (label, REDRAW, sample)
    )
