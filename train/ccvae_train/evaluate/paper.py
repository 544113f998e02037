"""The figures of the paper, tables 1, 2, 4, 5, 6 and 7, to stand beside ours. Reads one data file of this package."""

import json
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from ccvae_deploy.schema import ImageSpec

from ..datasets import celeba, chexpert

DATA = {"celeba": "CelebA", "chexpert": "CheXpert", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
MODELS = {"ccvae": "CCVAE", "m2": "M2", "diva": "DIVA", "mvae": "MVAE"}
SIZE = 64
"""Of its faces and chest X-rays; digits and garments have one size."""
LABELS = {"celeba": celeba.PAPER_LABELS, "chexpert": chexpert.PAPER_LABELS}
RECIPE = {"channels": 3, "uncertain": "zeros"}
"""What chexpert-paper settles that the paper does not tell."""


def has_papers_labels(source: str, labels: Collection[str], image: ImageSpec) -> bool:
    """Whether these are the labels of which the paper reports, the images as large as its own, and faces in colour."""
    kind = source.partition(":")[0]
    if kind not in LABELS:
        return True
    coloured = kind != "celeba" or image.channels == 3
    return set(labels) == set(LABELS[kind]) and image.size == SIZE and coloured


def unlike_recipe(source: str, channels: int, uncertain: str | None) -> str:
    """In what a run on CheXpert differs from the recipe of the paper's setting; nothing for other data."""
    if source.partition(":")[0] != "chexpert":
        return ""
    ours = {"channels": channels, "uncertain": uncertain}
    return "; ".join(f"{name} {ours[name]}, not {theirs}" for name, theirs in RECIPE.items() if ours[name] != theirs)


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
