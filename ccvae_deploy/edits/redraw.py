"""Draw again until the written output has what was asked. Touches nothing but the graphs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from ..arrays import Array
from ..composer import Composer, Encoded
from .outcome import outcomes
from .request import EditRequest

Slot = tuple[int, int]
"""Row in the batch and sample."""


class Result(Protocol):
    """An output that can be looked at again."""

    @property
    def seen(self) -> Array:
        """What the encoder sees of it, (C, S, S)."""


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Kept(Generic[R]):
    """The draw that stays.

    Attributes:
        after: label probabilities of the written output, (Y,).
        attempt: which draw it is, counted from 0.
        reached: whether it has all that was asked.
        probability: the product of what the classifier gives to the asked sides and classes.
    """

    result: R
    after: Array
    attempt: int
    reached: bool
    probability: float


def keep_drawing(
    composer: Composer,
    request: EditRequest,
    encoded: Encoded,
    names: Sequence[str],
    first: Mapping[Slot, R],
    render: Callable[[Sequence[Slot], Array], Sequence[R]],
) -> dict[Slot, Kept[R]]:
    """Classify outputs, and redraw those that are not as asked, up to `request.until_reached` draws each.

    Where none of an output's draws is as asked, the one that comes nearest to it stays: the highest probability, the
    earlier of equals. Attempt a of a sample has noise of its own, so nothing depends on what else is redrawn.

    Args:
        names: the relative paths of the batch's rows.
        first: the outputs of attempt 0.
        render: makes outputs of decoded images, (P, C, S, S) for P slots.
    """

    def looked_at(slots: Sequence[Slot], results: Sequence[R], attempt: int) -> list[Kept[R]]:
        before = encoded.before[[row for row, _ in slots]]
        after = composer.classify(np.stack([result.seen for result in results]))
        found = outcomes(composer.labels, request.asked, before, after).values()
        reached = np.all([one.reached for one in found], axis=0)
        probability = np.prod([one.probability for one in found], axis=0, dtype=np.float64)
        return [
            Kept(result, after[i], attempt, bool(reached[i]), float(probability[i])) for i, result in enumerate(results)
        ]

    kept = dict(zip(first, looked_at(list(first), list(first.values()), 0), strict=True))
    for attempt in range(1, request.until_reached):
        missed = [slot for slot, one in kept.items() if not one.reached]
        if not missed:
            break
        latents = composer.edited_latents(request, encoded.z, encoded.before, names, attempt)
        results = render(missed, composer.decode(np.stack([latents[slot] for slot in missed])))
        for slot, one in zip(missed, looked_at(missed, results, attempt), strict=True):
            if one.reached or one.probability > kept[slot].probability:
                kept[slot] = one
    return kept
