"""The records of a run: one receipt per output, one failure per input that could not be done. Pure data."""

import hashlib
import json
from typing import Annotated, Any, NamedTuple, Self, TypedDict

from pydantic import AfterValidator

from .errors import ImageError
from .schema import Frozen


def _six_digits(value: float) -> float:
    return round(value, 6)


def _all_six_digits(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


Figure = Annotated[float, AfterValidator(_six_digits)]
Figures = Annotated[dict[str, float], AfterValidator(_all_six_digits)]


class RunSettings(Frozen):
    """Everything that decides the bytes of an output, besides the source and the sample's number.

    Attributes:
        bundle: sha256 of the bundle's manifest.
        edit: how output names call the edit.
    """

    bundle: str
    edit: str

    @property
    def id(self) -> str:
        """16 hex digits that name these settings in receipts."""
        text = json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def entry(self) -> dict[str, Any]:
        """What settings.json holds of them."""
        return self.model_dump()


class Settings(RunSettings):
    """The settings of `edit`.

    Attributes:
        asked: the value of each label, or `vary`.
        until_reached: draws an output may take.
        read: whether the sources were read. Both are left out of the id at their defaults, so that folders that were
            written before they existed stay valid.
    """

    asked: dict[str, float | str]
    seed: int
    mode: str
    strength: float
    confidence: float
    compose: str
    format: str
    until_reached: int = 1
    read: bool = True

    def entry(self) -> dict[str, Any]:
        """What settings.json holds; `read` only where it is False, so that one id has one entry in every version."""
        return super().entry() if not self.read else self.model_dump(exclude={"read"})


class Record(Frozen):
    """Something that is kept as one line of JSON."""

    def line(self) -> str:
        """ASCII only; a name that is not UTF-8 survives as surrogate escapes."""
        return json.dumps(self.model_dump()) + "\n"


class FileFacts(TypedDict):
    """What a record says of the bytes of its output."""

    output_bytes: int
    output_sha256: str


def file_facts(data: bytes) -> FileFacts:
    """Size and sha256 of an output; those of one that is in no file are 0 and empty."""
    return {"output_bytes": len(data), "output_sha256": hashlib.sha256(data).hexdigest() if data else ""}


class Noted(NamedTuple):
    """The record of an output as the line it becomes, and what of it the ledger keeps in memory."""

    line: bytes
    settings: str
    source_sha256: str
    output: str
    output_bytes: int


class OutputRecord(Record):
    """What the record of any output says of it.

    Attributes:
        source, output: paths relative to the input and output folder; `source_sha256` is that of the source's bytes.
        output_bytes, output_sha256: size and hash of the written file.
        settings: names an entry of settings.json.
    """

    source: str
    source_sha256: str
    output: str
    output_bytes: int
    output_sha256: str
    settings: str

    def noted(self) -> Noted:
        """For the ledger; small to send."""
        line = self.line().encode("ascii")
        return Noted(line, self.settings, self.source_sha256, self.output, self.output_bytes)


class Receipt(OutputRecord):
    """The record of one output.

    Attributes:
        before, after: label probabilities of the source, and of the written pixels.
        reached: every asked label is on the asked side of 0.5, or is the most probable class; a varied one kept its
            side or class.
        drift: how far the labels that were not asked have moved, see `edits.outcome.drift`.
        pixel_change: mean absolute difference to the source, in levels of 255; None where the source was not read.
        control: the same between the network's input and its plain reconstruction: the model's own blur.
        attempt: which draw of the sample was kept, counted from 0; above 0 only with `until_reached`.
    """

    sample: int
    seed: int
    mode: str
    asked: dict[str, float | str]
    before: Figures
    after: Figures
    reached: bool
    drift: Figure
    pixel_change: Figure | None
    control: Figure
    attempt: int = 0


class Failure(Record):
    """The record of one input that could not be done."""

    source: str
    error: str
    reason: str

    @classmethod
    def of(cls, source: str, error: ImageError) -> Self:
        """That of a source whose picture, or whose results, could not be read or written."""
        return cls(source=source, error="ImageError", reason=str(error))
