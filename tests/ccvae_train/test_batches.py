"""The order in which training sees images, a function of seed and epoch with a least share of labelled ones; and how
they are mirrored and shifted.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccvae_train.batches import epoch_order, half_mirrored, shifted
from ccvae_train.noise import Noise
from ccvae_train.supervision import supervised


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
    if labelled and share > by_chance:
        found = np.isin(order, rows).sum(axis=1)
        assert found.sum() == round(share * order.size)
        assert found.max() - found.min() <= 1
        unlabelled = order[~np.isin(order, rows)]
        assert len(set(unlabelled.tolist())) == len(unlabelled)
    else:
        assert len(set(order.ravel().tolist())) == order.size
    assert np.array_equal(order, epoch_order(count, batch, seed, 3, rows, share))


def test_labelled_images_take_turns() -> None:
    order = epoch_order(1000, 50, 0, 0, np.arange(100), 0.5)
    times = np.bincount(order[order < 100], minlength=100)
    assert times.min() == times.max() == 5


def test_less_than_one_labelled_image_per_batch_is_no_whole_one() -> None:
    order = epoch_order(10_000, 16, 0, 0, np.arange(40), 0.02)
    assert (order < 40).sum() == 200
    assert set((order < 40).sum(axis=1).tolist()) == {0, 1}


@pytest.mark.parametrize("epoch", [0, 1])
def test_images_whose_labels_are_shown_come_all_the_time(epoch: int) -> None:
    shown = supervised(np.zeros((10_000, 1), np.int8), 0.2, seed=5)
    order = epoch_order(10_000, 100, 5, epoch, np.flatnonzero(shown[:, 0] == 0), 0.0)
    fifths = (shown[order, 0] == 0).reshape(5, -1).mean(axis=1)
    assert fifths == pytest.approx(np.full(5, 0.2), abs=0.04)


def test_epochs_differ() -> None:
    first, second = (epoch_order(100, 10, 0, epoch) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert sorted(first.ravel()) == sorted(second.ravel())


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_chance_is_left_alone_where_it_gives_enough(share: float) -> None:
    plain = epoch_order(100, 10, 7, 0)
    assert np.array_equal(epoch_order(100, 10, 7, 0, np.arange(20), share), plain)


def test_half_of_the_images_are_mirrored() -> None:
    pixels = torch.randint(256, (400, 4, 6, 1), dtype=torch.uint8)
    found = half_mirrored(pixels, Noise(torch.Generator().manual_seed(0)))
    same = (found == pixels).flatten(1).all(dim=1)
    turned = (found == pixels.flip(2)).flatten(1).all(dim=1)
    assert (same ^ turned).all()
    assert 150 < same.sum() < 250


def test_images_are_shifted_by_every_offset_alike() -> None:
    """Of a picture that tells its own rows and columns, each pixel is the one `offset` away, or the edge's."""
    row, column = torch.meshgrid(torch.arange(6, dtype=torch.uint8), torch.arange(8, dtype=torch.uint8), indexing="ij")
    pixels = torch.stack([row, column], dim=2).expand(2000, 6, 8, 2).contiguous()
    found = shifted(pixels, 2, Noise(torch.Generator().manual_seed(0)))
    offset = found[:, 3, 3].int() - 3
    rows = (row.int() + offset[:, :1, None]).clamp(0, 5)
    columns = (column.int() + offset[:, 1:, None]).clamp(0, 7)
    assert torch.equal(found, torch.stack([rows, columns], dim=3).to(torch.uint8))
    counts = torch.unique(offset, dim=0, return_counts=True)[1]
    assert len(counts) == 25
    assert 40 < counts.min() <= counts.max() < 125
