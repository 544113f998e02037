"""Class balance: what is said of a rare value counts more, in the label term of every family."""

from dataclasses import replace

import pytest
import torch

from ccvae_train.baselines.diva import DIVA
from ccvae_train.baselines.m2 import M2
from ccvae_train.baselines.mvae import MVAE
from ccvae_train.baselines.vae_classifier import VAEClassifier

from .toy import MIXED, batch, make

TERMS = [(VAEClassifier, "label"), (DIVA, "label"), (M2, "label"), (MVAE, "joint_label"), (MVAE, "own_label")]


@pytest.mark.parametrize(("family", "term"), TERMS)
def test_a_shown_label_counts_by_the_weight_of_its_value(family, term: str) -> None:
    """One label is shown per image, so that the weight of its value is that of the whole term."""
    model, values = make(family, MIXED), [[0, -1], [1, -1], [-1, 0], [-1, 2], [-1, -1]]
    plain, weighted = batch(model, values), batch(model, values)
    weight = torch.tensor([0.5, 3.0, 2.0, 1.0, 0.25])
    weighted = replace(weighted, labels=replace(weighted.labels, value_weight=weight))
    before, after = (getattr(model.terms(given), term) for given in (plain, weighted))
    assert (before[:4] < -1e-3).all()
    assert (after[:4] / before[:4]).tolist() == pytest.approx([0.5, 3.0, 2.0, 0.25], rel=1e-4)
    assert before[4] == after[4] == 0
