"""Every test has a cache of its own; those that ask for it train on made data."""

from pathlib import Path

import pytest

from ccvae_deploy.schema import ImageSpec
from ccvae_train import training
from ccvae_train.datasets.dataset import Dataset

from .made_bars import LABELS, made_partition


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder."""
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CCVAE_CACHE", str(root))
    return root


@pytest.fixture
def made_bars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`train` reads the made data, in a folder of its own."""
    data = Dataset(
        "made", LABELS, ImageSpec(size=32), made_partition(512, 0), made_partition(128, 1), fingerprint="a" * 64
    )
    monkeypatch.setattr(training, "open_dataset", lambda *_, **__: data)
    monkeypatch.chdir(tmp_path)
