"""Where files lie that the user did not name. Touches nothing."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Where caches lie: $CCVAE_CACHE, else $XDG_CACHE_HOME/ccvae-deploy, else ~/.cache/ccvae-deploy."""
    if named := os.environ.get("CCVAE_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ccvae-deploy"
