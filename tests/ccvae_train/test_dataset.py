"""What makes two data sets the same."""

import numpy as np

from ccvae_deploy.schema import ImageSpec, Label, LabelSet
from ccvae_train.datasets.dataset import Dataset, fingerprint_of


def test_a_boundary_that_moves_makes_other_data() -> None:
    labels = np.zeros((40, 2), np.int8)
    prints = {fingerprint_of("images", ("a", "b"), labels[:cut], labels[cut:]) for cut in (0, 20, 36, 40)}
    assert len(prints) == 4


def test_one_array_is_cut_where_the_labels_of_training_end() -> None:
    images = np.arange(5 * 2 * 2, dtype=np.uint8).reshape(5, 2, 2, 1)
    values = [np.array([[0], [1], [1]], np.int8), np.array([[1], [-1]], np.int8)]
    names = LabelSet(labels=(Label(name="a"),))
    data = Dataset.of("table:x", names, ImageSpec(size=32, channels=1), images, values, "images")
    assert data.train.images.ravel().tolist() == list(range(12))
    assert data.valid.images.ravel().tolist() == list(range(12, 20))
    assert [part.labels.ravel().tolist() for part in (data.train, data.valid)] == [[0, 1, 1], [1, -1]]
    assert data.fingerprint == fingerprint_of("images", ("a",), *values)
