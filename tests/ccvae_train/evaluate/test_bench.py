"""What the protocols work with is worked out once."""

from types import SimpleNamespace

import numpy as np

from ccvae_deploy.schema import Label, LabelSet
from ccvae_train.evaluate.bench import Bench, Settings

LABELS = LabelSet(labels=(Label(name="a"), Label(name="b")))


def test_the_model_is_asked_once_for_labels_that_are_missing() -> None:
    asked = []

    def predict(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        return np.array([[3.0, -3.0], [3.0, 3.0]], np.float32)

    values = np.array([[0, -1], [-1, 0]], np.int8)
    subject, images = SimpleNamespace(predict=predict, labels=LABELS), np.zeros((2, 3, 32, 32), np.float32)
    bench = Bench(subject, None, None, images, values, np.array([0.5, 0.5]), Settings())
    first, second = bench.known_values, bench.known_values
    assert first.tolist() == second.tolist() == [[0, 0], [1, 0]]
    assert asked == [2]
