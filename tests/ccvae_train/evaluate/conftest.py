"""Small runs, trained once for all that evaluates them, and the judge beside them."""

from pathlib import Path

import pytest

from ccvae_train import training
from ccvae_train.evaluate import jobs
from ccvae_train.evaluate.evaluate import evaluate
from ccvae_train.training import train

from .small_runs import DATA, SMALL


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` of two seeds, and after the first evaluation that needs one the judge beside them."""
    root = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: DATA)
        for seed in (0, 1):
            train(SMALL | {"seed": seed, "supervision": 0.2}, out=root / "runs" / f"seed{seed}")
    return root / "runs"


@pytest.fixture
def judge(trained: Path, made_data: None) -> Path:
    """The judge that an evaluation leaves beside the runs."""
    folder = trained / "judge-made-32-rgb-a1b2c3d4"
    if not folder.is_dir():
        evaluate([trained / "seed0"], protocols=["swap"], images=80, device="cpu")
    return folder


@pytest.fixture
def made_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every source gives the made data, in an empty folder."""
    monkeypatch.setattr(jobs, "open_dataset", lambda *_, **__: DATA)
    monkeypatch.chdir(tmp_path)
