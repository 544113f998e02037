"""Scalars for TensorBoard where it is installed; nothing where it is not. Writes <run>/tensorboard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Scalars:
    """A writer of figures that may be absent."""

    def __init__(self, writer: "SummaryWriter | None") -> None:
        self._writer = writer

    @classmethod
    def open(cls, run: Path, step: int) -> Self:
        """Go on after `step`: later figures of a run that was killed are purged."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return cls(None)
        return cls(SummaryWriter(str(run / "tensorboard"), purge_step=step + 1))

    def add(self, figures: Mapping[str, float | int], step: int) -> None:
        """Write the figures of a step and flush them."""
        if self._writer is None:
            return
        for name, value in figures.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()
