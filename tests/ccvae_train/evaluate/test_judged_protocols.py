"""Swap, generation, interventions and the Frechet distance on a model and a judge whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest

from ccvae_train.evaluate import frechet, generation, interventions, panels, swap
from ccvae_train.evaluate.frechet import frechet_distance
from ccvae_train.evaluate.interventions import measure_effects

from .painted import SURE, Painter, bench, read


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


def test_generation() -> None:
    found = generation.run(bench(Painter()))
    asked = ("uniform labels", "real labels", "reconstructions")
    assert [found.figures[f"generation, {name}"] for name in asked] == [1, 1, 1]
    # half, half and a third of the labels have their more frequent value, or a little more
    assert 4 / 9 <= found.figures["generation, real labels, floor"] < 0.55
    assert found.figures["generation, uniform labels, chance"] == pytest.approx(4 / 9)
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
    figures = frechet.run(bench(Painter())).figures
    assert figures["Frechet, reconstructions"] == pytest.approx(0, abs=1e-6)
    assert 0 < figures["Frechet, real against real"] < 0.1


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
    # and of the one that is left nothing can be told
    assert np.isnan([*found.dominance, found.condition]).all()
