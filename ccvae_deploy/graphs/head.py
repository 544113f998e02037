"""The classifier's weights, read by running its graph at 0 and at unit vectors. Touches nothing outside memory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..bundle import Bundle
from ..errors import BundleError

Run = Callable[[Callable[[Array], Array], Array], Array]

PROBES = 8
LINEAR = 0.05
"""How far, of its largest logit, a classifier may be from linear; rounding to 8 bits costs a percent or two."""


@dataclass(frozen=True)
class Head:
    """The classifier of one label: logits = z_i . weight + bias.

    Attributes:
        weight: (d, C), where C is 1 for a binary label.
        bias: (C,).
    """

    weight: Array
    bias: Array

    @property
    def binary(self) -> bool:
        """Whether one logit says 0 or 1."""
        return len(self.bias) == 1


def read_heads(bundle: Bundle, run: Run) -> tuple[Head, ...]:
    """The head of every label, checked at random points.

    Args:
        run: runs a graph on rows.

    Raises:
        BundleError: the classifier is not linear, or reads a label from another label's block.
    """
    layout, columns = bundle.manifest.layout, bundle.manifest.labels.columns
    far = 3 * np.random.Generator(np.random.Philox(key=0)).standard_normal((PROBES, layout.z_c))
    probes = np.concatenate([np.zeros((1, layout.z_c)), np.eye(layout.z_c), far]).astype(np.float32)
    logits = run(bundle.classify, probes)
    bias, weight = logits[0], logits[1:-PROBES] - logits[0]
    heads = tuple(Head(weight[b, c], bias[c]) for b, c in zip(layout.slices, columns, strict=True))
    expected = np.concatenate(
        [probes[-PROBES:, block] @ head.weight + head.bias for block, head in zip(layout.slices, heads, strict=True)],
        axis=1,
    )
    error, size = np.abs(logits[-PROBES:] - expected).max(), np.abs(expected).max()
    if not error <= LINEAR * size:
        raise BundleError(
            f"this bundle's classifier is not linear in each label's own latents (off by {error:.2g} of {size:.2g}), "
            "which is needed here; `edit --mode sample` and `mean` do without"
        )
    return heads
