"""One graph as bytes, and what stands inside it. Pure data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Serialised:
    """One exported graph.

    Attributes:
        data: the file.
        precision: of its weights and arithmetic; inputs and outputs are float32 in all.
        form: what was done to the network, for people, such as `int8 from 8x8 on`.
    """

    data: bytes
    precision: Precision
    form: str = ""


Maker = Callable[[], Serialised]
"""Makes a graph when it is wanted: an export takes seconds."""
