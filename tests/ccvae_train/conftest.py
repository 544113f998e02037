"""Every test has a cache of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder."""
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CCVAE_CACHE", str(root))
    return root
