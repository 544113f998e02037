"""The quality gate: does a bundle give people what the model gives them? Pure computation on arrays.

Both sides edit the same images with the product's own Composer: image n has label n mod L changed to another value by a
draw of p(z_i|y_i), where another can be asked for. Compared are the pixels that would be written, the labels that are
seen, the receipts, and the scales of the posteriors, which such an edit does not ask for.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ccvae_deploy.arrays import Array
from ccvae_deploy.bundle import Bundle
from ccvae_deploy.composer import Composer
from ccvae_deploy.edits.outcome import decided, outcomes, state
from ccvae_deploy.edits.request import EditRequest
from ccvae_deploy.errors import UsageError
from ccvae_deploy.schema import Label, LabelSet

from .parity import Graphs

MEAN_LEVELS, P999_LEVELS, DISAGREEMENT, FLIPS, SPREAD = 0.5, 4.0, 0.01, 0.01, 0.1
"""What a figure of `Quality` may be at most."""


@dataclass(frozen=True)
class Quality:
    """How a bundle's edits compare with the model's.

    Attributes:
        images: how many were edited.
        mean, p999, worst: absolute difference of composed edits over all pixels, in levels of 255: its mean, its 99.9th
            percentile and its largest.
        equal: share of pixels that are the same.
        disagreement: share of label decisions on the sources that differ.
        flips: share of receipts whose `reached` differs.
        spread: |log of the ratio| of the scales of q(z|x), its 99th percentile over images and latents.
    """

    images: int
    mean: float
    p999: float
    worst: float
    equal: float
    disagreement: float
    flips: float
    spread: float

    @property
    def strain(self) -> dict[str, float]:
        """Each judged figure as a share of what it may be."""
        return {
            "mean difference in levels": self.mean / MEAN_LEVELS,
            "99.9th percentile of the difference in levels": self.p999 / P999_LEVELS,
            "share of labels that differ": self.disagreement / DISAGREEMENT,
            "share of receipts whose reached differs": self.flips / FLIPS,
            "99th percentile of the difference of log z_scale": self.spread / SPREAD,
        }

    @property
    def ok(self) -> bool:
        """Whether every figure is within its limit."""
        return self.worst_strain <= 1

    @property
    def worst_strain(self) -> float:
        """The largest share of a limit that is used up."""
        return max(self.strain.values())

    def to_json(self) -> dict[str, float | bool]:
        """The figures as `parity.json` holds them."""
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class _Edits:
    """What one side gives: levels (N, C, S, S), label probabilities before (N, Y), reached (N,), z_scale (N, Z)."""

    levels: Array
    before: Array
    reached: NDArray[np.bool_]
    scale: Array


class QualityGate:
    """Compares bundles with a reference on fixed images."""

    def __init__(self, reference: Graphs, images: Array) -> None:
        """Keep the graphs to compare with.

        Args:
            images: network inputs, (N, C, S, S) in [0, 1].
        """
        self._graphs, self._images = reference, images
        self._requests: list[tuple[EditRequest, list[int]]] = []
        self._reference: _Edits | None = None

    def measure(self, candidate: Bundle) -> Quality:
        """Edit the images with a bundle and compare; the first call edits them with the reference too.

        Raises:
            BundleError: a graph gives what is no number, no image or no scale.
        """
        if self._reference is None:
            reference = Composer(replace(candidate, graphs=dict(self._graphs)))
            self._requests = _requests(reference, reference.encode(self._images).before)
            self._reference = self._edits(reference)
        composer, expected = Composer(candidate), self._reference
        if "conditional_prior" in candidate.graphs:
            # an edit asks for a few of its values, people for any
            candidate.conditional_prior(every_value(composer.labels))
        found = self._edits(composer)
        difference = np.abs(found.levels - expected.levels)
        return Quality(
            images=len(self._images),
            mean=float(difference.mean(dtype=np.float64)),
            p999=float(np.percentile(difference, 99.9)),
            worst=float(difference.max()),
            equal=float((difference == 0).mean()),
            disagreement=disagreement(composer.labels, found.before, expected.before),
            flips=float((found.reached != expected.reached).mean()),
            spread=float(np.percentile(np.abs(np.log(found.scale / expected.scale)), 99)),
        )

    def _edits(self, composer: Composer) -> _Edits:
        z, scale = composer.posterior(self._images)
        encoded = composer.encoded(self._images, z)
        levels = np.rint(np.float32(255) * encoded.decoded)
        reached = np.empty(len(levels), bool)
        for request, rows in self._requests:
            part = encoded.of(rows)
            changed = composer.changed(request, part, [str(row) for row in rows])[:, 0]
            levels[rows] = np.clip(np.rint(255 * (self._images[rows] + changed - part.decoded)), 0, 255)
            after = composer.classify(levels[rows] / np.float32(255))
            reached[rows] = _reached(composer, request, part.before, after)
        return _Edits(levels, encoded.before, reached, scale)


def disagreement(labels: LabelSet, found: Array, expected: Array) -> float:
    """The share of label decisions (N images, L labels) in which two tables of label probabilities (N, Y) differ."""
    differs = decided(labels, found) != decided(labels, expected)
    return float(np.mean([differs[:, columns].any(axis=1) for columns in labels.columns]))


def every_value(labels: LabelSet) -> Array:
    """Rows of y (N, Y) in which every label has every value at least once."""
    rows = np.arange(max(len(label.classes) for label in labels.labels))[:, None]
    y = np.empty((len(rows), labels.width), np.float32)
    for label, columns in zip(labels.labels, labels.columns, strict=True):
        value = rows % len(label.classes)
        y[:, columns] = value if label.kind == "binary" else value == np.arange(label.columns)
    return y


def _requests(composer: Composer, before: Array) -> list[tuple[EditRequest, list[int]]]:
    """Per label and value, the request and the images that it is made of: of each the next value that can be asked for.

    An image whose label has no other such value stays as it is.
    """
    possible = [_possible(composer, label) for label in composer.labels.labels]
    groups: dict[tuple[int, int], list[int]] = {}
    for row, probabilities in enumerate(before):
        label = row % len(composer.labels)
        now, count = int(state(composer.labels, label, probabilities)), len(composer.labels.labels[label].classes)
        following = ((now + step) % count for step in range(1, count))
        value = next((value for value in following if value in possible[label]), None)
        if value is not None:
            groups.setdefault((label, value), []).append(row)
    return [(possible[label][value], rows) for (label, value), rows in sorted(groups.items())]


def _possible(composer: Composer, label: Label) -> dict[int, EditRequest]:
    """The values that a bundle can give a label: a class between others may be nowhere likely enough."""
    found: dict[int, EditRequest] = {}
    for value, name in enumerate(label.classes):
        with suppress(UsageError):
            found[value] = composer.request({label.name: name})
    return found


def _reached(composer: Composer, request: EditRequest, before: Array, after: Array) -> list[bool]:
    return [
        all(one.reached for one in outcomes(composer.labels, request.asked, was, now).values())
        for was, now in zip(before, after, strict=True)
    ]
