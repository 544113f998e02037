"""Edits of latents: the conditional prior and the classifier, run as graphs, composed with the interventions.

Touches nothing outside memory. A bundle without a conditional prior (family vae-classifier) draws from N(0, I) given
that its classifier is as sure as asked (appendix A of the paper).
"""

from collections.abc import Sequence

import numpy as np

from .. import interventions
from ..arrays import Array
from ..bundle import Bundle
from ..errors import LabelError, UsageError
from ..graphs.head import Head, Run, read_heads
from ..interventions import Block
from . import conditioned
from .closest_class import closest_class
from .noise import Noise
from .outcome import decided
from .rejection import accepted, accepted_mean, first_inside
from .request import Asked, EditRequest

BOUNDARY = 0.5


class Latents:
    """The latents of a bundle.

    Args:
        run: runs a graph on rows in batches of one size.

    Attributes:
        has_modes: whether there is a conditional prior, with a mode for each state of a label.
    """

    def __init__(self, bundle: Bundle, run: Run) -> None:
        self.bundle, self._run = bundle, run
        self.labels, self.layout = bundle.manifest.labels, bundle.manifest.layout
        self.has_modes = "conditional_prior" in bundle.manifest.files
        self._heads: tuple[Head, ...] | None = None

    def edited(self, request: EditRequest, z: Array, before: Array, names: Sequence[str], attempt: int = 0) -> Array:
        """z with the asked blocks replaced, (N, K, Z).

        Args:
            z: posterior means, (N, Z).
            before: label probabilities, (N, Y).
            names: the relative paths that key the noise, with the sample and the attempt.
        """
        y = decided(self.labels, before)
        noise = Noise(request.seed, names, request.samples, self.layout.z_c, attempt)
        replaced = {asked.label: self._replacement(request, asked, z, y, noise) for asked in request.asked}
        copies = np.repeat(z[:, None], request.samples, axis=1)
        return interventions.intervene(copies, replaced, self.layout.slices)

    def check(self, request: EditRequest) -> None:
        """Refuse what this bundle cannot do, before any work.

        Raises:
            UsageError: soft values or a strength without two modes, or a confidence that no latent reaches.
            BundleError: the classifier is not of the form that `closest`, `vary` and rejection need.
        """
        for asked in request.asked:
            soft = asked.value not in (None, 0, 1) and self.labels.labels[asked.label].kind == "binary"
            if not self.has_modes and request.mode != "closest" and (soft or request.strength != 1):
                raise UsageError(
                    f"{asked.spelled} at strength {request.strength:g}: a {self.bundle.manifest.model.family} bundle "
                    "has no two modes to lie between; give 0 or 1 at strength 1, or take `edit --mode closest`"
                )
            if self.has_modes and asked.value is not None and request.mode != "closest":
                continue
            head = self.head(asked.label)
            if not np.abs(head.weight).max() > 0:
                raise UsageError(
                    f"{asked.spelled}: the classifier of this bundle does not look at that label's latents"
                )
            if asked.value is not None and not head.binary:
                self._check_reachable(asked, int(asked.value), head, request.confidence)

    def reads_confidence(self, request: EditRequest) -> bool:
        """Whether `request.confidence` changes what this bundle makes of it."""
        if request.mode != "closest" and self.has_modes:
            return False
        # a soft value of a binary label is met exactly instead
        binary = [self.labels.labels[one.label].kind == "binary" for one in request.asked]
        return any(
            one.value is not None and (one.value in (0, 1) or not two)
            for one, two in zip(request.asked, binary, strict=True)
        )

    def block(self, y: Array, label: int) -> Block:
        """p(z_i|y_i) at the states y (N, Y), loc and scale (N, d)."""
        whole, columns = self.prior(y), self.layout.slices[label]
        return Block(whole.loc[:, columns], whole.scale[:, columns])

    def prior(self, y: Array) -> Block:
        """p(z_c|y) at the states y (N, Y), from its graph; N(0, I) where there is none. Loc and scale (N, Zc)."""
        if not self.has_modes:
            shape = len(y), self.layout.z_c
            return Block(np.zeros(shape, np.float32), np.ones(shape, np.float32))
        both = self._run(lambda part: np.stack(self.bundle.conditional_prior(part), axis=1), y)
        return Block(both[:, 0], both[:, 1])

    def head(self, label: int) -> Head:
        """The linear classifier of one label, read from its graph at 0 and at unit vectors.

        Raises:
            BundleError: it is not linear, or reads a label from another label's block.
        """
        if self._heads is None:
            self._heads = read_heads(self.bundle, self._run)
        return self._heads[label]

    def _replacement(self, request: EditRequest, asked: Asked, z: Array, y: Array, noise: Noise) -> Array:
        """The new block of one label, (N, K, d), or (N, 1, d) where all samples share it."""
        columns = self.layout.slices[asked.label]
        if asked.value is None:
            return self._varied(asked.label, z[:, columns], y, noise)
        block = self._aimed(asked.label, asked.value, y, request.strength)
        if request.mode == "closest":
            return self._closest(asked.label, asked.value, z[:, columns], block.scale, request.confidence)[:, None]
        if not self.has_modes:
            head, value = self.head(asked.label), int(asked.value)
            if request.mode == "mean":
                return accepted_mean(head, value, request.confidence, asked.label)[None, None]
            first = noise.first[:, :, columns]
            return accepted(head, value, request.confidence, first, lambda row, k: noise.further(row, k, asked.label))
        if request.mode == "mean":
            return block.loc[:, None]
        return interventions.draw(_over_samples(block), noise.first[:, :, columns])

    def _aimed(self, label: int, value: float, y: Array, strength: float) -> Block:
        """p(z_i|y_i) at the asked value, between or beyond the two modes of a binary label."""
        columns = self.labels.columns[label]

        def at(state: Array | float) -> Block:
            told = y.copy()
            told[:, columns] = state
            return self.block(told, label)

        if self.labels.labels[label].kind == "categorical":
            return at(np.eye(columns.stop - columns.start, dtype=np.float32)[int(value)])
        return interventions.between(at(0), at(1), interventions.position(value, strength))

    def _closest(self, label: int, value: float, z_i: Array, scale: Array, confidence: float) -> Array:
        head = self.head(label)
        if head.binary:
            return interventions.closest(z_i, head.weight[:, 0], float(head.bias[0]), scale, value, confidence)
        return closest_class(z_i, head.weight, head.bias, scale, int(value), confidence)

    def _varied(self, label: int, z_i: Array, y: Array, noise: Noise) -> Array:
        """A draw of p(z_i|y_i) at the present state, given that the classifier still decides for it.

        Exact for a binary label. A categorical one tries `TRIES` draws, then keeps the source's own block.
        """
        head, block, state = self.head(label), self.block(y, label), y[:, self.labels.columns[label]]
        first = noise.first[:, :, self.layout.slices[label]]
        if head.binary:
            weight, bias, side = head.weight[:, 0], float(head.bias[0]), state.astype(np.int64)
            return conditioned.draw_beyond(_over_samples(block), weight, bias, side, BOUNDARY, first)
        drawn = np.repeat(z_i[:, None], first.shape[1], axis=1)
        for row, k in np.ndindex(first.shape[:2]):
            own, chosen = Block(block.loc[row], block.scale[row]), int(state[row].argmax())
            found = first_inside(own, head, chosen, None, first[row, k], noise.further(row, k, label))
            if found is not None:
                drawn[row, k] = found
        return drawn

    def _check_reachable(self, asked: Asked, value: int, head: Head, confidence: float) -> None:
        origin = np.zeros((1, len(head.weight)), np.float32)
        try:
            closest_class(origin, head.weight, head.bias, np.ones_like(origin), value, confidence)
        except LabelError:
            raise UsageError(
                f"{asked.spelled}: no latent makes this bundle's classifier {confidence:g} sure of it; "
                "`edit --confidence` can ask for less"
            ) from None


def _over_samples(block: Block) -> Block:
    return Block(block.loc[:, None], block.scale[:, None])
