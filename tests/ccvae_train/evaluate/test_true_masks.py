"""On portraits the truth is known: a model that redraws true portraits scores 1, whatever looks it draws."""

from types import SimpleNamespace

import numpy as np
import pytest

from ccvae_deploy.images import in_unit
from ccvae_deploy.schema import ImageSpec, LabelSet
from ccvae_train.datasets import portraits
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.datasets.embedded import TRAINING
from ccvae_train.evaluate import ground_truth, variance_maps
from ccvae_train.evaluate.bench import Bench, Settings
from ccvae_train.evaluate.finding import Skipped
from ccvae_train.evaluate.variance_maps import grown, share_inside

from ..counterfactuals import with_label, with_style
from .painted import Painter
from .painted import bench as painted_bench

CHOSEN = (portraits.SMILING, portraits.DARK_HAIR, portraits.NECKTIE)
COUNT = 12


class TruePortraits:
    """Interventions by the hand that drew the images; it remembers the labels of all it drew, for the judge."""

    labels = LabelSet(labels=tuple(portraits.LABELS[i] for i in CHOSEN))
    image = ImageSpec(size=64)

    def __init__(self) -> None:
        self.factors = [portraits.draw_factors(0, TRAINING + i) for i in range(COUNT)]
        self.drawn = {}
        self.images = self.draw(self.factors)

    def draw(self, factors):
        pixels = in_unit(np.stack([portraits.render(f) for f in factors]))
        self.drawn |= {image.tobytes(): [f.labels[i] for i in CHOSEN] for image, f in zip(pixels, factors, strict=True)}
        return pixels

    def of(self, image):
        return self.factors[[(image == one).all() for one in self.images].index(True)]

    def reconstruct(self, images):
        return images

    def intervene(self, images, label, value, rng):
        position = CHOSEN[label]
        return self.draw(
            [
                with_label(with_style(self.of(image), position, rng.random((2, 6))), position, int(v))
                for image, v in zip(images, np.asarray(value), strict=True)
            ]
        )

    def logits(self, images):
        return np.array([self.drawn[image.tobytes()] for image in images]) * 8.0 - 4


def bench(subject: TruePortraits) -> Bench:
    pixels = np.rint(subject.images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    values = np.array([[f.labels[i] for i in CHOSEN] for f in subject.factors], np.int8)
    part = Partition(pixels, values)
    data = Dataset("portraits", subject.labels, subject.image, part, part, "a" * 64)
    judge = SimpleNamespace(logits=subject.logits, state=SimpleNamespace(figures={"accuracy": 1.0}))
    return Bench.of(subject, judge, data, np.full(3, 0.5), Settings(images=COUNT))


def test_the_truth_scores_one() -> None:
    found = ground_truth.run(bench(TruePortraits()))
    assert found.figures == {
        "factor as asked": 1,
        "factor as asked, unedited": 0,
        "change inside the mask": 1,
        "others unchanged": 1,
    }


def test_true_variance_lies_inside_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variance_maps, "DRAWS", 4)
    found = variance_maps.run(bench(TruePortraits()))
    assert found.figures["variance inside the true mask"] == pytest.approx(1)
    assert found.pictures["variance"].height > 4 * 64


def test_variance_is_drawn_at_the_labels_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variance_maps, "DRAWS", 3)

    class Noted(Painter):
        asked = ()

        def intervene(self, images, label, value, rng):
            self.asked = (*self.asked, (label, value.tolist()))
            return images

    whole = painted_bench(Noted(), 20)
    variance_maps.measure_maps(whole, 5)
    assert list(whole.subject.asked) == [(i, [whole.values[row, i]] * 3) for row in range(5) for i in range(3)]


def test_change_everywhere_has_the_share_of_the_masks_area() -> None:
    subject = TruePortraits()
    whole = bench(subject)
    masks = whole.true_masks(COUNT)
    assert share_inside(np.ones(masks.shape), masks) == pytest.approx(masks.mean(axis=(2, 3)))
    assert np.isnan(share_inside(np.zeros(masks.shape), masks)).all()
    assert (grown(masks) >= masks).all()


def test_grown_by_two_pixels() -> None:
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 4, 4] = True
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    assert (grown(mask)[0] == expected).all()


def test_other_data_have_no_truth() -> None:
    with pytest.raises(Skipped, match="portraits only"):
        ground_truth.run(painted_bench(Painter()))
