"""The losses of two processes, each with its share of a batch, have the loss of one process as their mean."""

import pytest

from ccvae_train.baselines.diva import DIVA
from ccvae_train.baselines.m2 import M2
from ccvae_train.baselines.mvae import MVAE
from ccvae_train.baselines.vae_classifier import VAEClassifier

from .toy import CONFIG, MIXED, SINGLE, batch, make

SHARES = slice(0, 2), slice(2, 4)
TWICE = CONFIG.model_copy(update={"draws": 2})


@pytest.mark.parametrize("family", [VAEClassifier, DIVA, M2, MVAE])
@pytest.mark.parametrize(
    ("labels", "values"),
    [(MIXED, [[0, 2], [1, 1], [1, -1], [-1, -1]]), (SINGLE, [[0], [2], [-1], [-1]])],
    ids=["mixed", "single"],
)
def test_shares_add_up(family, labels, values) -> None:
    model = make(family, labels)
    whole = model.terms(batch(model, values, config=TWICE)).loss(5.0)
    parts = [model.terms(batch(model, values, config=TWICE, share=share)).loss(5.0) for share in SHARES]
    assert (sum(parts) / 2).item() == pytest.approx(whole.item(), rel=1e-6)
