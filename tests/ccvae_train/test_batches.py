"""The order in which training sees images: a function of seed and epoch, with a least share of labelled ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccvae_train.batches import epoch_order


@given(
    count=st.integers(1, 300),
    batch=st.integers(1, 80),
    labelled=st.integers(0, 300),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_batch_has_its_share_of_labelled_images(
    count: int, batch: int, labelled: int, share: float, seed: int
) -> None:
    labelled = min(labelled, count)
    rows = np.random.default_rng(seed).permutation(count)[:labelled]
    order = epoch_order(count, batch, seed, 3, rows, share)
    size = min(batch, count)
    assert order.shape == (count // size, size)
    assert 0 <= order.min() <= order.max() < count
    by_chance = labelled / count
    wanted = round(share * size)
    if labelled and wanted > size * by_chance:
        assert (np.isin(order, rows).sum(axis=1) == wanted).all()
        unlabelled = order[~np.isin(order, rows)]
        assert len(set(unlabelled.tolist())) == len(unlabelled)
    else:
        assert len(set(order.ravel().tolist())) == order.size
    assert np.array_equal(order, epoch_order(count, batch, seed, 3, rows, share))


def test_labelled_images_take_turns() -> None:
    order = epoch_order(1000, 50, 0, 0, np.arange(100), 0.5)
    times = np.bincount(order[order < 100], minlength=100)
    assert times.min() == times.max() == 5


def test_epochs_differ() -> None:
    first, second = (epoch_order(100, 10, 0, epoch) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert sorted(first.ravel()) == sorted(second.ravel())


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_chance_is_left_alone_where_it_gives_enough(share: float) -> None:
    plain = epoch_order(100, 10, 7, 0)
    assert np.array_equal(epoch_order(100, 10, 7, 0, np.arange(20), share), plain)
