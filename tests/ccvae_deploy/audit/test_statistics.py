"""Intervals over images: their width, their error over many made audits, and that the same images are drawn."""

import numpy as np
import pytest

from ccvae_deploy.audit.statistics import RESAMPLES, adjusted, critical, halves, resample, student


def test_the_interval_of_one_mean_is_that_of_the_normal() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (400, 1))
    found = resample(values, 400, np.arange(400), 0)
    low, high = found.interval()
    error = values.std(ddof=1) / 20
    assert found.error[0] == pytest.approx(error)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_columns_of_the_same_values_are_resampled_alike_in_different_calls() -> None:
    values = np.random.default_rng(0).normal(0, 1, (30, 2)).astype(np.float32)
    whole = resample(values, 50, np.arange(10, 40), 3)
    again = resample(values[:, 1:], 50, np.arange(10, 40), 3)
    assert whole.offsets.shape == (RESAMPLES, 2)
    np.testing.assert_allclose(whole.offsets[:, 1], again.offsets[:, 0], atol=1e-6)
    assert (whole.offsets != resample(values, 50, np.arange(10, 40), 4).offsets).any()


def test_the_chance_of_any_false_effect_is_near_five_percent() -> None:
    rng = np.random.default_rng(1)
    false, audits = 0, 100
    for seed in range(audits):
        found = resample(rng.normal(0, 1, (40, 12)), 40, np.arange(40), seed)
        q = critical(found.deviations(slice(0, 12)))
        false += bool((np.abs(found.mean) > student(q, 39) * found.error).any())
    # twelve tests alone would be wrong in 46 of 100 audits
    assert false <= 11


def test_joint_intervals_are_wider_and_adjusted_p_agrees_with_them() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (100, 20)) + np.linspace(0, -0.8, 20)
    found = resample(values, 100, np.arange(100), 0)
    largest = found.deviations(slice(0, 20))
    q = critical(largest)
    assert 2.6 < q < 3.4
    for mean, error in zip(found.mean, found.error, strict=True):
        assert (abs(mean) > student(q, 99) * error) == (adjusted(mean, error, 99, largest) < 0.051)
    assert adjusted(found.mean[-1], found.error[-1], 99, largest) == pytest.approx(1 / (RESAMPLES + 1))


def test_what_never_varies_has_no_width_and_no_part_in_the_rest() -> None:
    values = np.zeros((40, 3))
    # the sum of forty is rounded
    values[:, 1] = 0.3
    values[:, 2] = np.random.default_rng(0).normal(0, 1, 40)
    found = resample(values, 40, np.arange(40), 0)
    assert found.error[:2].tolist() == [0, 0]
    low, high = found.interval()
    assert (low[0], high[0], low[1], high[1]) == (0, 0, pytest.approx(0.3), pytest.approx(0.3))
    assert found.deviations(slice(0, 2)).max() == 0
    assert critical(found.deviations(slice(0, 3))) == critical(found.deviations(slice(2, 3)))
    largest = found.deviations(slice(0, 3))
    assert adjusted(0, 0, 39, largest) == 1
    assert adjusted(0.25, 0, 39, largest) < 0.001


def test_student_against_tables() -> None:
    """Two-sided 5 %, 1 % and 0.1 % of t against those of the normal distribution."""
    for freedom, tabled in ((10, (2.228, 3.169, 4.587)), (19, (2.093, 2.861, 3.883)), (100, (1.984, 2.626, 3.390))):
        found = [student(z, freedom) for z in (1.959964, 2.575829, 3.290527)]
        assert found == pytest.approx(tabled, rel=2e-3)


def test_two_groups_have_the_error_and_freedom_of_welch() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, (30, 1)), rng.normal(0, 3, (12, 1))
    where = np.arange(42)
    parts = resample(first, 42, where[:30], 0), resample(second, 42, where[30:], 0)
    found = halves(*parts)
    a, b = first.var(ddof=1) / 30, second.var(ddof=1) / 12
    assert found.mean[0] == pytest.approx((first.mean() + second.mean()) / 2)
    assert found.error[0] == pytest.approx(np.sqrt(a + b) / 2)
    assert found.freedom[0] == pytest.approx((a + b) ** 2 / (a**2 / 29 + b**2 / 11))
    assert found.offsets.std() == pytest.approx(found.error[0], rel=0.1)
    np.testing.assert_allclose(found.offsets, (parts[0].offsets + parts[1].offsets) / 2, atol=1e-6)


def test_no_image_and_one() -> None:
    none = resample(np.zeros((0, 2)), 5, np.array([], np.intp), 0)
    assert np.isnan(none.mean).all()
    assert none.deviations(slice(0, 2)).max() == 0
    one = resample(np.ones((1, 2)), 5, np.array([3]), 0)
    assert one.error.tolist() == [0, 0]
    assert not one.offsets.any()
    assert [interval.tolist() for interval in one.interval()] == [[1, 1], [1, 1]]


def test_the_error_of_a_small_output_is_kept() -> None:
    values = 1e-9 * np.random.default_rng(0).normal(1, 1, (40, 1))
    assert resample(values, 40, np.arange(40), 0).error[0] == pytest.approx(values.std(ddof=1) / 40**0.5)


def test_what_hardly_varies_beside_its_mean_is_resampled_as_exactly() -> None:
    """Shifts of a saturated output: at 1 a float32 has steps of 6e-8, more than the error of the mean."""
    values = 1 - 6e-8 * np.random.default_rng(0).integers(0, 4, (3000, 1))
    found = resample(values, 3000, np.arange(3000), 0)
    assert critical(found.deviations(slice(0, 1))) == pytest.approx(1.96, abs=0.15)
