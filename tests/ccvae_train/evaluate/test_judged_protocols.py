"""Swap, generation, interventions and the Frechet distance on a model and a judge whose answers are known."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ccvae_deploy.images import in_unit
from ccvae_train.evaluate import frechet, generation, inception, interventions, panels, swap
from ccvae_train.evaluate.bench import Bench
from ccvae_train.evaluate.frechet import frechet_distance, named
from ccvae_train.evaluate.interventions import measure_effects
from ccvae_train.evaluate.swap import Swap, measure_swap, relative
from ccvae_train.label_columns import prior_values

from .by_hand import CPU
from .painted import LABELS, SURE, Painter, bench, part, read


class Blind(Painter):
    """Labels are ignored: characteristics come from the residual image, generation draws its own."""

    def swap(self, images, values, residual):
        return residual

    def generate(self, values, rng):
        return super().generate(rng.permutation(values), rng)

    def intervene(self, images, label, value, rng):
        return images


class Leaky(Painter):
    """Changing `a` changes `b` too."""

    def intervene(self, images, label, value, rng):
        changed = super().intervene(images, label, value, rng)
        return super().intervene(changed, 1, 1 - read(images)[:, 1], rng) if label == 0 else changed


def test_swap_of_a_perfect_model_moves_nothing() -> None:
    figures = swap.run(bench(Painter())).figures
    assert figures["swap distance"] == figures["not swapped"] == figures["swap, relative"] == 0
    # a binary label differs in half of the pairs and then moves by 4, a class in two thirds and moves by 8
    assert figures["third image"] == pytest.approx((SURE / 2 + SURE / 2 + 2 * SURE * 2 / 3) / 3, rel=0.1)


def test_swap_that_ignores_labels_is_as_bad_as_a_third_image() -> None:
    figures = swap.run(bench(Blind())).figures
    assert figures["swap distance"] == pytest.approx(figures["third image"], rel=0.15)
    assert figures["not swapped"] == 0
    assert figures["swap, relative"] == pytest.approx(1, abs=0.15)


def test_relative_is_between_the_controls_where_these_differ() -> None:
    two, one, three = (np.array([value]) for value in (2.0, 1.0, 3.0))
    assert relative(Swap(two, one, three, error=0.1)) == 0.5
    # less than three standard errors apart, so that it might be any number; and the wrong way round
    assert np.isnan(relative(Swap(two, one, three, error=0.7)))
    assert np.isnan(relative(Swap(two, three, one, error=0.1)))
    assert np.isnan(relative(Swap(two, one, three, error=float("nan"))))


def test_the_error_is_that_of_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    original, reconstructed, unrelated = np.zeros((400, 2)), rng.normal(0, 1, (400, 2)), rng.normal(0, 3, (400, 2))
    gaps = np.abs(unrelated) - np.abs(reconstructed)
    found = measure_swap(original, reconstructed, reconstructed, unrelated)
    assert found.error == pytest.approx(gaps.mean(axis=1).std(ddof=1) / 20)
    # a label that is missing counts as little in its pair as in the mean
    unrelated[1::2, 1] = np.nan
    gaps = np.where(np.isnan(unrelated[:, 1]), gaps[:, 0], gaps.mean(axis=1))
    found = measure_swap(original, reconstructed, reconstructed, unrelated)
    assert found.error == pytest.approx(gaps.std(ddof=1) / 20)


def test_generation() -> None:
    found = generation.run(bench(Painter()))
    asked = ("uniform labels", "real labels", "reconstructions")
    assert [found.figures[f"generation, {name}"] for name in asked] == [1, 1, 1]
    # half, half and a third of the labels have their more frequent value, or a little more
    assert 4 / 9 <= found.figures["generation, real labels, floor"] < 0.55
    assert found.figures["generation, uniform labels, chance"] == pytest.approx(4 / 9)
    # of as many generated images as are asked for, and of as many real ones as there are
    whole = bench(Painter())
    found = generation.run(replace(whole, settings=replace(whole.settings, images=300)))
    assert found.images == 300
    assert "reconstructions of 200 real images" in found.note
    blind = generation.run(bench(Blind(), 600)).figures
    assert blind["generation, uniform labels"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3, abs=0.05)


def test_interventions_of_a_perfect_model_are_diagonal() -> None:
    found = interventions.run(bench(Painter()))
    matrix = np.array([row[1:] for row in found.tables[0].rows])
    assert matrix == pytest.approx(np.diag([SURE, SURE, 2 * SURE]), abs=1e-6)
    perfect = {"diagonal dominance": 1, "condition number": pytest.approx(2), "reached": 1, "reached, unedited": 0}
    assert found.figures == perfect


def test_what_unedited_images_score_stands_beside_what_edits_do() -> None:
    class Hazy(Blind):
        """It shows `a` in every image, whatever is asked."""

        def reconstruct(self, images):
            return super()._set(images, np.maximum(read(images), [1, 0, 0]))

        def intervene(self, images, label, value, rng):
            return self.reconstruct(images)

    whole = bench(Hazy())
    found = interventions.run(whole).figures
    absent = (whole.values[:, 0] == 0).mean()
    assert found["reached"] == found["reached, unedited"] == pytest.approx(absent / 3)


def test_one_label_has_no_dominance() -> None:
    found = measure_effects(np.zeros((4, 1)), np.full((1, 4, 1), 2.0))
    assert found.matrix == pytest.approx(np.array([[2.0]]))
    assert np.isnan([found.condition, found.dominance[0]]).all()


def test_real_labels_are_those_of_every_image_that_shows_one() -> None:
    whole = bench(Painter(), 400)
    labels = np.asarray(whole.data.train.labels).copy()
    labels[1:, 1:] = -1
    labels[:, 0] = np.arange(400) % 4 == 0
    part = replace(whole.data.train, labels=labels)
    found = generation.real_values(replace(whole, data=replace(whole.data, train=part)), 4000, np.random.default_rng(0))
    # what is shown has its own frequency, what is missing that of p(y)
    assert found.mean(axis=0) == pytest.approx([0.25, 0.5, 1], abs=0.05)


def test_images_without_the_label_do_not_count_as_reached() -> None:
    class Forgetful(Painter):
        def intervene(self, images, label, value, rng):
            changed = super().intervene(images, label, value, rng)
            return np.concatenate([images[:100], changed[100:]]) if label == 0 else changed

    whole = bench(Forgetful())
    assert interventions.run(whole).figures["reached"] == pytest.approx((0.5 + 1 + 1) / 3)
    values = whole.values.copy()
    values[:100, 0] = -1
    assert interventions.run(replace(whole, values=values)).figures["reached"] == 1


def test_interventions_show_what_else_moves() -> None:
    found = interventions.run(bench(Leaky()))
    matrix = np.array([row[1:] for row in found.tables[0].rows])
    assert matrix[0] == pytest.approx([SURE, SURE, 0], abs=1e-6)
    assert found.figures["diagonal dominance"] == pytest.approx((0.5 + 1 + 1) / 3)
    blind = interventions.run(bench(Blind())).figures
    assert blind["reached"] == 0
    assert blind["condition number"] == float("inf")


def test_missing_labels_do_not_count_as_effects() -> None:
    before = np.array([[0.0, np.nan], [0.0, -1.0]])
    after = np.stack([before - 2, before])
    found = measure_effects(before, after)
    assert found.matrix == pytest.approx(np.array([[2, 2], [0, 0]]))
    assert found.dominance[0] == pytest.approx(0.5)
    assert np.isnan(found.dominance[1])


def test_frechet_distance_of_normals() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 3))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + np.array([3, 0, 4])) == pytest.approx(25)
    # (s1 - s2)^2 per dimension
    assert frechet_distance(x, 3 * x) == pytest.approx(3 * 4, rel=0.03)
    mixed = x @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])
    expected = 2 * 3 - 2 * np.linalg.svd(np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]]), compute_uv=False).sum()
    assert frechet_distance(x, mixed) == pytest.approx(expected, rel=0.05)


def test_frechet_reports_its_floor() -> None:
    whole = bench(Painter())
    found = frechet.run(whole)
    assert found.figures["Frechet, reconstructions"] == pytest.approx(0, abs=1e-6)
    real, others = (whole.judge.features(one) for one in (whole.images, in_unit(whole.data.train.images)))
    assert found.figures["Frechet, real against real"] == pytest.approx(frechet_distance(real, others))
    assert "against 200 training images" in found.note


def test_the_floor_is_of_spare_images_of_the_partition_where_there_are_some() -> None:
    spare = part(500, 2)
    whole = bench(Painter())
    data = replace(whole.data, valid=spare)
    whole = Bench.of(whole.subject, whole.judge, data, whole.prior, whole.settings)
    assert len(whole.images) == 200
    others, whence = frechet.other_images(whole)
    assert (others == in_unit(spare.images[200:400])).all()
    assert whence == "others of the same partition"


def test_the_floor_has_the_bias_of_the_figure() -> None:
    """Real images, made anew: as far from the real ones as those are from each other."""

    class Another(Painter):
        def generate(self, values, rng):
            return in_unit(part(len(values), 7).images)

    judge = SimpleNamespace(features=lambda images: images[:, :, 4].reshape(len(images), -1))
    figures = frechet.run(replace(bench(Another(), 200), given_judge=judge)).figures
    assert figures["Frechet, judge features"] == pytest.approx(figures["Frechet, real against real"], rel=0.1)
    assert figures["Frechet, judge features"] > 1


def test_frechet_is_of_images_of_drawn_labels() -> None:
    """Of features that are the labels themselves it is the distance of what p(y) draws from the labels of real ones."""
    whole = bench(Painter(), 1000)
    judge = SimpleNamespace(features=lambda images: read(images).astype(np.float64))
    prior = np.array([0.9, 0.2, 0.7, 0.2, 0.1])
    found = frechet.run(replace(whole, given_judge=judge, prior=prior)).figures
    drawn = prior_values(100_000, LABELS, prior, np.random.default_rng(3))
    expected = frechet_distance(whole.values.astype(float), drawn.astype(float))
    assert found["Frechet, judge features"] == pytest.approx(expected, rel=0.15)
    assert expected > 0.5


def test_a_distance_of_few_images_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [named("FID", count, 128) for count in (129, 128)] == ["FID", "FID, few images"]
    whole = bench(Painter(), 20)
    assert "Frechet, judge features" in frechet.run(whole).figures
    wide = SimpleNamespace(features=lambda images: images[:, 0, 4, :20])
    found = frechet.run(replace(whole, given_judge=wide))
    assert "Frechet, judge features, few images" in found.figures
    assert "20 images are too few for 20 features" in found.note
    # as the FID is, of a network of as many features
    monkeypatch.setattr(inception, "inception", lambda weights: SimpleNamespace(to=lambda place: None))
    monkeypatch.setattr(inception, "features", lambda network, images: images[:, 0, 4, :8])
    whole.subject.device = CPU
    whole = replace(whole, settings=replace(whole.settings, inception=Path("weights")))
    for width, name in ((19, "FID"), (20, "FID, few images")):
        monkeypatch.setattr(inception, "FEATURES", width)
        assert list(inception.run(whole).figures) == [name]


def test_swap_grids_take_characteristics_from_the_left_and_all_else_from_above() -> None:
    class Noted(Painter):
        rows = ()

        def swap(self, images, values, residual):
            self.rows = (*self.rows, (images, values, residual))
            return super().swap(images, values, residual)

    whole = bench(Noted())
    panels.run_swaps(whole)
    assert len(whole.subject.rows) == panels.ROWS
    for row, (images, values, residual) in enumerate(whole.subject.rows, start=panels.COLUMNS):
        assert (images == whole.images[row]).all()
        assert (values == whole.values[row]).all()
        assert (residual == whole.images[: panels.COLUMNS]).all()


def test_panels_show_another_value_at_its_most_ordinary_look() -> None:
    class Noted(Painter):
        asked = ()

        def intervene(self, images, label, value, rng):
            self.asked = (*self.asked, (label, value, rng))
            return super().intervene(images, label, value, rng)

    whole = bench(Noted())
    panels.run_panel(whole)
    assert [label for label, _, _ in whole.subject.asked] == [0, 1, 2]
    for label, value, rng in whole.subject.asked:
        assert (value != whole.values[: panels.ROWS, label]).all()
        assert rng is None


@pytest.mark.parametrize("run", [panels.run_swaps, panels.run_panel, panels.run_diversity, panels.run_classes])
def test_panels_draw_for_any_model(run) -> None:
    pictures = run(bench(Painter())).pictures
    assert pictures
    assert all(picture.width > 300 and picture.height > 400 for picture in pictures.values())


def test_class_sheets_are_of_categorical_labels() -> None:
    assert list(panels.run_classes(bench(Painter())).pictures) == ["classes-2"]


def test_a_label_that_no_image_shows_has_no_say() -> None:
    before = np.array([[-1.0, np.nan], [-1.0, np.nan]])
    found = measure_effects(before, np.stack([before - 2, before - 1]))
    assert found.matrix[:, 0].tolist() == [2, 1]
    assert np.isnan(found.matrix[:, 1]).all()
    # and of the one that is left nothing can be told
    assert np.isnan([*found.dominance, found.condition]).all()
