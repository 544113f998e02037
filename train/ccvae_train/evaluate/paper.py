"""The figures of the paper, tables 1, 2, 4, 5, 6 and 7, to stand beside ours. Reads one data file of this package."""

import json
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from ..datasets import celeba, chexpert

DATA = {"celeba": "CelebA", "chexpert": "CheXpert", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
MODELS = {"ccvae": "CCVAE", "m2": "M2", "diva": "DIVA", "mvae": "MVAE"}
SIZE = 64
"""Of its faces and chest X-rays; digits and garments have one size."""
LABELS = {"celeba": celeba.PAPER_LABELS, "chexpert": chexpert.PAPER_LABELS}


def has_papers_labels(source: str, labels: Collection[str], size: int) -> bool:
    """Whether labels of these data are those of which the paper reports, and its images as large."""
    wanted = LABELS.get(source.partition(":")[0])
    return wanted is None or (set(labels) == set(wanted) and size == SIZE)


def published(figure: str, source: str, family: str, supervision: float) -> float | None:
    """What the paper reports, or None where it has no such figure.

    Args:
        figure: as a protocol names it, such as `accuracy`.
        source: the data, such as `celeba:DIR`.
        family: such as `ccvae`.
        supervision: f; the paper has 0.004, 0.06, 0.2 and 1.
    """
    data, model = DATA.get(source.partition(":")[0], ""), MODELS.get(family, "")
    rates = _tables().get(data, {}).get(figure, {}).get(model, {})
    return next((value for rate, value in rates.items() if abs(float(rate) - supervision) < 1e-9), None)


@cache
def _tables() -> dict[str, Any]:
    text = files(__package__).joinpath("paper_tables.json").read_text("utf-8")
    tables: dict[str, Any] = json.loads(text)["figures"]
    return tables
