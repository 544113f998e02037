"""What training is given at a step: which labels, how often, at what rate, with what noise."""

import numpy as np
import pytest
import torch

from ccvae_deploy.errors import CCVAEError
from ccvae_train.device import choose_device
from ccvae_train.loop import labelled_share, learning_rate
from ccvae_train.supervision import label_prior, supervised

from .made_bars import LABELS


def test_supervised_subsets_are_nested_random_and_of_the_asked_size() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (1000, 4)).astype(np.int8)
    labels[:100] = -1
    few, many = supervised(labels, 0.1, seed=3), supervised(labels, 0.5, seed=3)
    shown = [(part >= 0).any(axis=1) for part in (few, many)]
    assert [part.sum() for part in shown] == [90, 450]
    assert not (shown[0] & ~shown[1]).any()
    assert (few[shown[0]] == labels[shown[0]]).all()
    assert (supervised(labels, 0.1, seed=4) != few).any()
    assert (supervised(labels, 1.0, seed=0) == labels).all()


def test_label_prior_is_the_mean_of_shown_labels_and_never_0_or_1() -> None:
    labels = np.array([[1, 1, 0], [0, 1, -1], [1, 1, 0], [1, 1, 0]], np.int8)
    assert label_prior(labels, LABELS) == pytest.approx([0.75, 0.875, 1 / 6])
    with pytest.raises(CCVAEError, match="label red is shown for no training image"):
        label_prior(np.array([[1, 1, -1]], np.int8), LABELS)


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.03)
    assert rates[-1] == pytest.approx(2e-5, rel=0.01)


def test_noise_is_a_function_of_its_key() -> None:
    device = choose_device("cpu", "fp32")
    first, again, other = (torch.randn(5, generator=device.generator(*key)) for key in ((0, 7), (0, 7), (7, 0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert device.precision == "fp32"
    assert device.note.startswith("cpu: ")


def test_labelled_images_come_often_at_first_and_by_chance_at_last() -> None:
    first = labelled_share(0.06, 15, 0, 10)
    assert first > 2 * 0.06
    assert labelled_share(0.06, 15, 5, 10) == pytest.approx(0.06 + (first - 0.06) / 4)
    assert labelled_share(0.06, 15, 0, 2) == 0.5
    assert labelled_share(0.7, 15, 0, 2) == labelled_share(0.7, 15, 1, 2) == 0.7
    assert labelled_share(0.06, 15, 0, 20) == labelled_share(0.06, 0, 0, 3) == 0.06
    passes = sum(labelled_share(0.06, 15, epoch, 100) / 0.06 for epoch in range(100))
    assert passes == pytest.approx(100)


@pytest.mark.parametrize(
    ("chance", "passes", "epochs"), [(0.004, 15, 1), (0.06, 8, 3), (0.06, 11, 4), (0.02, 150, 100)]
)
def test_labelled_images_are_shown_as_often_as_asked(chance: float, passes: int, epochs: int) -> None:
    shares = [labelled_share(chance, passes, epoch, epochs) for epoch in range(epochs)]
    assert sum(shares) / chance == pytest.approx(passes)
