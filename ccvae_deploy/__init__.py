"""Edit images with an exported CCVAE: numpy and onnxruntime only, no torch."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .editor import Editor

# onnxruntime reports to its maker unless it is told not to before it is loaded; set it to 0 to let it
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.3.0"
__all__ = ["Editor", "__version__"]


def __getattr__(name: str) -> object:
    """`Editor` is imported on first use, so that `ccvae-deploy --help` stays quick."""
    if name == "Editor":
        from .editor import Editor

        return Editor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
