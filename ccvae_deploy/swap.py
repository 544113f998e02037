"""Characteristic swap: the blocks of named labels come from a reference, all else from the source. Writes nothing.

z' = z of the source with z_i of the reference for every named label i, then the decoder. The paper's protocol
(table 2) swaps all of z_c; here the labels are chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from .arrays import Array
from .composer import Composer, Encoded
from .edits.outcome import drift, outcome, state
from .edits.request import Compose, checked_compose
from .errors import UsageError
from .folder import output_name
from .images import ENDING, Format, Picture, network_input
from .interventions import intervene
from .pictures.rendering import Rendered, output_format, render, write_out
from .receipts import Figure, Figures, OutputRecord, RunSettings, file_facts
from .work.references import Reference, References
from .work.stream import Seen


class SwapSettings(RunSettings):
    """What decides the bytes of an output, besides the source; `references` stands for their paths and contents."""

    pairs: str
    references: str
    compose: str
    format: str


class SwapReceipt(OutputRecord):
    """The record of one output.

    Attributes:
        reference: whose blocks were taken; `sample` is its number in the order of paths.
        asked: the swapped labels as the reference classifies: 0, 1, or the class's index.
        before, reference_labels, after: label probabilities of the source, of the reference, and of the written pixels.
        reached: the output classifies as the reference does on every swapped label.
        drift: how far the labels that were not swapped have moved, see `edits.outcome.drift`.
        pixel_change, control: as in the receipts of `edit`.
    """

    reference: str
    reference_sha256: str
    sample: int
    asked: dict[str, float]
    before: Figures
    reference_labels: Figures
    after: Figures
    reached: bool
    drift: Figure
    pixel_change: Figure
    control: Figure


@dataclass(frozen=True)
class Whole(Seen):
    """A source with its place among the sources and the head of its output names."""

    row: int
    stem: str


@dataclass(frozen=True)
class Swap:
    """A swap that is settled: which labels, from which references, and how it becomes files."""

    composer: Composer
    labels: tuple[int, ...]
    references: References
    settings: SwapSettings
    compose: Compose

    def outputs(self, row: int, stem: str, kept: Format) -> list[str]:
        """The output names of a source, whose own format counts where `same` was asked for."""
        ending = ENDING[self.format(kept)]
        return [
            output_name(stem, f"{self.settings.edit}={one.stem}", number, ending)
            for number, one in self.references.of(row)
        ]

    def possible_outputs(self, row: int, stem: str) -> Iterator[list[str]]:
        """The output names of a source that is not decoded yet, for every format it may have."""
        for kept in get_args(Format) if self.settings.format == "same" else (self.settings.format,):
            yield self.outputs(row, stem, kept)

    def format(self, kept: Format) -> Format:
        """The format of the outputs of a source."""
        return output_format(self.settings.format, kept)

    def decoded(self, z: Array, z_c: Array) -> Array:
        """Decoder output of latents (N, Z) with the swapped blocks of the references' z_c (N, Zc)."""
        slices = self.composer.bundle.manifest.layout.slices
        swapped = intervene(z, {label: z_c[:, slices[label]] for label in self.labels}, slices)
        return self.composer.decode(swapped)

    def render(self, source: Whole, edited: Array, unedited: Array) -> Rendered:
        """Composite, encode, and look again at what was written.

        Raises:
            ImageError: the format does not take a picture of this size.
        """
        format, spec = self.format(source.picture.format), self.composer.bundle.manifest.image
        return write_out(source.picture, edited, unedited, self.compose, format, spec)

    def receipt(
        self,
        source: Whole,
        encoded: Encoded,
        at: int,
        reference: tuple[int, Reference],
        rendered: Rendered,
        after: Array,
        output: str,
    ) -> SwapReceipt:
        """The record of one output; `at` is the source's row of `encoded`."""
        labels, before, (number, taken) = self.composer.labels, encoded.before[at], reference
        asked = {i: float(state(labels, i, taken.probabilities)) for i in self.labels}
        return SwapReceipt(
            source=source.source.relative,
            source_sha256=source.digest,
            output=output,
            **file_facts(rendered.data),
            reference=taken.source.relative,
            reference_sha256=taken.digest,
            sample=number,
            asked={labels.names[i]: value for i, value in asked.items()},
            before=self.composer.named(before),
            reference_labels=self.composer.named(taken.probabilities),
            after=self.composer.named(after),
            reached=all(outcome(labels, i, value, after).reached for i, value in asked.items()),
            drift=float(drift(labels, self.labels, before, after)),
            pixel_change=rendered.pixel_change,
            control=float(encoded.control[at]),
            settings=self.settings.id,
        )


def swap_picture(
    composer: Composer, picture: Picture, reference: Picture, labels: Sequence[str], compose: str
) -> Picture:
    """A picture with the characteristics of a reference: the blocks of the named labels are the reference's.

    Raises:
        LabelError: an unknown label.
        UsageError: no label or one twice, or an unknown way of compositing.
    """
    how, chosen, spec = checked_compose(compose), chosen_labels(composer, labels), composer.bundle.manifest.image
    encoded = composer.encode(np.stack([network_input(one, spec) for one in (picture, reference)]))
    slices = composer.bundle.manifest.layout.slices
    z = intervene(encoded.z[:1], {label: encoded.z[1:, slices[label]] for label in chosen}, slices)
    return render(picture, composer.decode(z)[0], encoded.decoded[0], how)


def chosen_labels(composer: Composer, labels: Sequence[str]) -> tuple[int, ...]:
    """Positions of the named labels in the bundle's order.

    Raises:
        LabelError: an unknown label.
        UsageError: none, or one twice.
    """
    found = composer.labels.positions(labels)
    if not found or len(set(found)) != len(found):
        raise UsageError(f"--labels {','.join(labels)}: expected one or more different labels, such as smiling,young")
    return tuple(sorted(found))
