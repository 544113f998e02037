"""Edit images with an exported CCVAE: numpy and onnxruntime only, no torch.

At this level lies what others call: the bundle and its schema, the Editor, a module per command. Behind them

    commands, terminal    what is typed, and what is shown while it runs
    graphs                the files of a bundle, each vetted, described and opened
    edits                 what is asked of an image, and what becomes of its latents
    pictures              what becomes of its pixels
    work                  how a folder is worked through: settled, read ahead, in batches, in processes, on Ray
    records, storage      what is noted of it, and how files come to lie in a folder or behind a URL
    audit, machine        someone else's classifier, and this computer
"""

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
