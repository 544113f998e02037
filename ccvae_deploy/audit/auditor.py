"""Intervene on images and ask someone else's classifier, batch by batch. Reads images, writes nothing.

Of each label, three kinds of pictures are made of an image x, all composited at its own size as `edit` does:

    control      no latent changed: x itself (residual), or its reconstruction (decode)
    redrawn      the label's block drawn from p(z_i|y_i) at the state that the bundle's classifier sees
    edited       the same draws at every other state, and at other strengths between or beyond the two

Redrawn and edited pictures differ in the label's state alone: same image, same noise, same compositing, same blur.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .. import images
from ..arrays import Array
from ..composer import Composer, Encoded
from ..edits.outcome import state
from ..edits.request import EditRequest, checked_compose
from ..folder import Source
from ..images import Picture
from ..pictures.film import shrunk
from ..pictures.pixels import Pixels
from ..pictures.rendering import render
from ..storage.source_file import read_file
from ..work.stream import Seen, see, stack
from .model import AuditedModel
from .record import AuditRecord, AuditSettings, Change, Response, Tally, spelled

REDRAW = 0.0
"""The strength that stands for a redraw."""


@dataclass(frozen=True)
class Unit:
    """One picture to make: the source's place in its batch, the change, the sample's number and its latents (Z,)."""

    at: int
    change: Change
    sample: int
    z: Array


@dataclass(frozen=True)
class Looked:
    """One picture as it is given to the bundle's encoder, (C, S, S), to the audited model, (H, W, C), and to people."""

    seen: Array
    pixels: Pixels
    thumbnail: Picture | None


@dataclass(frozen=True)
class Answer:
    """What both classifiers say of one picture.

    Attributes:
        thumbnail: the picture, its longer side brought down, where that was asked for.
        values, decisions: its outputs, (outputs,).
        probabilities: of the bundle's classifier, (Y,).
    """

    thumbnail: Picture | None
    values: NDArray[np.float32]
    decisions: NDArray[np.bool_]
    probabilities: Array


class Auditor:
    """A bundle and someone else's classifier, with what is to be changed.

    Args:
        labels: positions of the labels that are intervened on.

    Raises:
        UsageError: an option outside its range, or that this bundle cannot do.
    """

    def __init__(
        self,
        composer: Composer,
        model: AuditedModel,
        settings: AuditSettings,
        labels: Sequence[int],
        pool: ThreadPoolExecutor,
    ) -> None:
        self.composer, self.model, self.settings, self.labels, self.pool = composer, model, settings, labels, pool
        self.compose = checked_compose(settings.compose)
        self.requests = {label: dict(self._requests(label)) for label in labels}

    def read(self, source: Source) -> Seen:
        """A source decoded.

        Raises:
            ImageError: it cannot be read as an image.
        """
        return see(self.composer, source, read_file(source.path))

    def records(self, batch: Sequence[Seen]) -> list[AuditRecord]:
        """Every intervention on a batch of sources; memory does not grow with their number per image."""
        encoded = self._encode(batch)
        controls = list(self._answers(batch, encoded, None))
        tallies: list[dict[Change, Tally]] = [{} for _ in batch]
        for label in self.labels:
            for unit, answer in self._answers(batch, encoded, self._units(batch, encoded, label)):
                tally = tallies[unit.at].setdefault(unit.change, Tally(len(answer.values)))
                reached = bool(state(self.composer.labels, label, answer.probabilities) == unit.change.value)
                flipped = answer.decisions != controls[unit.at][1].decisions
                tally.add(answer.values.tolist(), flipped.tolist(), reached)
        return [
            self._record(original, encoded.before[at], controls[at][1], tallies[at])
            for at, original in enumerate(batch)
        ]

    def look_again(self, original: Seen, label: int, shown: int) -> tuple[Answer, dict[tuple[Change, int], Answer]]:
        """The control and every answer of one label of one source, by change and sample.

        Args:
            shown: longer side of the thumbnails in pixels.
        """
        encoded = self._encode([original])
        ((_, control),) = self._answers([original], encoded, None, shown)
        found = self._answers([original], encoded, self._units([original], encoded, label), shown)
        return control, {(unit.change, unit.sample): answer for unit, answer in found}

    def _encode(self, batch: Sequence[Seen]) -> Encoded:
        return self.composer.encode(stack(batch))

    def _requests(self, label: int) -> Iterator[tuple[Change, EditRequest]]:
        """What to ask for each value; a binary label's strengths lie between and beyond its two modes."""
        known = self.composer.labels.labels[label]
        strengths = self.settings.strengths if known.kind == "binary" else (1.0,)
        for value, name in enumerate(known.classes):
            for strength in strengths:
                yield (
                    Change(label, value, strength),
                    self.composer.request(
                        {known.name: name},
                        samples=self.settings.samples,
                        seed=self.settings.seed,
                        strength=strength,
                        compose=self.compose,
                    ),
                )

    def _units(self, batch: Sequence[Seen], encoded: Encoded, label: int) -> Iterator[Unit]:
        names = [original.source.relative for original in batch]
        own = state(self.composer.labels, label, encoded.before).astype(int).tolist()
        for change, request in self.requests[label].items():
            latents = self.composer.edited_latents(request, encoded.z, encoded.before, names)
            for at in range(len(batch)):
                if own[at] != change.value:
                    kind = change
                elif change.strength == 1:
                    # a draw at strength 1 of the state it has is the redraw
                    kind = Change(label, change.value, REDRAW)
                else:
                    continue
                for sample, z in enumerate(latents[at]):
                    yield Unit(at, kind, sample, z)

    def _answers(
        self, batch: Sequence[Seen], encoded: Encoded, units: Iterator[Unit] | None, shown: int = 0
    ) -> Iterator[tuple[Unit, Answer]]:
        """Answers to the pictures of units, which do not outlive a worker's turn; None makes each source's control."""

        def look(unit: Unit, image: Array) -> Looked:
            return self._look(batch[unit.at].picture, image, encoded.decoded[unit.at], shown)

        unchanged = (Unit(at, Change(-1, 0, REDRAW), 0, encoded.z[at]) for at in range(len(batch)))
        todo = unchanged if units is None else units
        while part := list(islice(todo, self.composer.batch_size)):
            if units is None:
                decoded = encoded.decoded[[unit.at for unit in part]]
            else:
                decoded = self.composer.decode(np.stack([unit.z for unit in part]))
            looked = list(self.pool.map(look, part, decoded))
            probabilities = self.composer.classify(np.stack([one.seen for one in looked]))
            values, decisions = self.model.run(np.stack([one.pixels for one in looked]))
            for i, one in enumerate(looked):
                yield part[i], Answer(one.thumbnail, values[i], decisions[i], probabilities[i])

    def _look(self, original: Picture, edited: Array, unedited: Array, shown: int) -> Looked:
        result = render(original, edited, unedited, self.compose)
        feeding = self.model.feeding
        return Looked(
            images.network_input(result, self.composer.bundle.manifest.image),
            images.resized(result, feeding.mode, (feeding.width, feeding.height)),
            shrunk(result, shown) if shown else None,
        )

    def _record(self, original: Seen, before: Array, control: Answer, tallies: Mapping[Change, Tally]) -> AuditRecord:
        labels = self.composer.labels
        redrawn: dict[str, Response] = {}
        edited: dict[str, dict[str, Response]] = {}
        for change, tally in tallies.items():
            if change.strength == REDRAW:
                redrawn[labels.names[change.label]] = tally.response()
            else:
                target = edited.setdefault(spelled(labels, change.label, change.value), {})
                target[f"{change.strength:g}"] = tally.response()
        return AuditRecord(
            source=original.source.relative,
            source_sha256=original.digest,
            settings=self.settings.id,
            state={labels.names[label]: int(state(labels, label, before)) for label in self.labels},
            control=tuple(control.values.tolist()),
            redrawn=redrawn,
            edited=edited,
        )
