"""What is said beside the figures of an evaluation."""

from pathlib import Path

import pytest

from ccvae_deploy.errors import UsageError
from ccvae_train.datasets.source import test_partition as open_test_images
from ccvae_train.evaluate.results import Evaluation, RunResult


def notes(*sources: str) -> list[str]:
    runs = (
        RunResult(source, Path(), "ccvae", source, 1.0, 0, source, "valid", "f" * 64, True, "", {}, (), ())
        for source in sources
    )
    return Evaluation(Path(), tuple(runs)).notes()


def test_the_test_images_are_pointed_to_only_where_there_are_some() -> None:
    said = "Ours are figures of validation images, the paper's figures are of test images; "
    assert notes("celeba:x") == notes("celeba:x", "celeba:y") == [f"{said}see --partition test."]
    assert notes("chexpert:x") == [f"{said}chexpert:DIR has none of these."]
    assert len(notes("celeba:x", "chexpert:x")) == 2
    assert notes("mnist:x") == []
    with pytest.raises(UsageError, match="chexpert has no test partition"):
        open_test_images("chexpert:x", labels=["Edema"], size=64, channels=1)
