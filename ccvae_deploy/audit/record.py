"""What is kept of an audited image: small summaries, one line of JSON. Pure data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from ..receipts import OutputRecord, RunSettings
from ..records.reading import AUDIT
from ..schema import Frozen, LabelSet
from .input import Feeding
from .output import Reading


def _eight_digits(value: float) -> float:
    return float(f"{value:.8g}")


Score = Annotated[float, AfterValidator(_eight_digits)]


class AuditSettings(RunSettings):
    """Everything that decides what is recorded of an image.

    Attributes:
        model: sha256 of the audited file.
        feeding, reading: how it is fed and read.
        labels: those that are intervened on.
        strengths: ascending; 1 is always among them.
    """

    edit: str = AUDIT
    model: str
    feeding: Feeding
    reading: Reading
    labels: tuple[str, ...]
    samples: int
    seed: int
    strengths: tuple[float, ...]
    compose: str


class Response(Frozen):
    """How the audited model answers to the K samples of one intervention on one image.

    Attributes:
        outputs: mean of each output over the samples.
        flips: share of samples whose decision is another than on the control picture, by output.
        reached: share of samples that the bundle's classifier sees in the state aimed at.
    """

    outputs: tuple[Score, ...]
    flips: tuple[Score, ...]
    reached: Score


class AuditRecord(OutputRecord):
    """One audited image; it has no output file.

    Attributes:
        state: what the bundle's classifier sees, by label: 0 or 1, or the class's index.
        control: the outputs on the control picture: the image itself, or its reconstruction with `decode`.
        redrawn: by label, with its block drawn anew in the state it has.
        edited: by `label=class`, then by strength.
    """

    output: str = ""
    output_bytes: int = 0
    output_sha256: str = ""
    state: dict[str, int]
    control: tuple[Score, ...]
    redrawn: dict[str, Response]
    edited: dict[str, dict[str, Response]]


@dataclass(frozen=True)
class Change:
    """One label set to one value at one strength; strength 0 is the redraw of the state an image has.

    Attributes:
        label: its position in the bundle.
        value: 0 or 1, or a class's index.
    """

    label: int
    value: int
    strength: float


class Tally:
    """Sums over the samples of one intervention on one image."""

    def __init__(self, outputs: int) -> None:
        self.count, self.reached = 0, 0
        self.outputs, self.flips = np.zeros(outputs), np.zeros(outputs)

    def add(self, values: Sequence[float], flipped: Sequence[bool], reached: bool) -> None:
        """Count one sample."""
        self.count += 1
        self.reached += reached
        self.outputs += values
        self.flips += flipped

    def response(self) -> Response:
        """Means over what was counted, at least one."""
        outputs, flips = (tuple((part / self.count).tolist()) for part in (self.outputs, self.flips))
        return Response(outputs=outputs, flips=flips, reached=self.reached / self.count)


def spelled(labels: LabelSet, label: int, value: int) -> str:
    """`label=class`."""
    return f"{labels.names[label]}={labels.labels[label].classes[value]}"
