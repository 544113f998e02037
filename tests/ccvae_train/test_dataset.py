"""What makes two data sets the same."""

import numpy as np

from ccvae_train.datasets.dataset import fingerprint_of


def test_a_boundary_that_moves_makes_other_data() -> None:
    labels = np.zeros((40, 2), np.int8)
    prints = {fingerprint_of("images", ("a", "b"), labels[:cut], labels[cut:]) for cut in (0, 20, 36, 40)}
    assert len(prints) == 4
