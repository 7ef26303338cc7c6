"""Confidence intervals, against the textbook and other code."""

import math

import numpy as np
import pytest
from scipy import stats

from nnlite.paper.claims import CLOSE, Comparison
from nnlite.paper.intervals import interval


def limits(correct, images):
    """Return the limits of SciPy's Wilson interval, in percent."""
    return tuple(100 * limit for limit in stats.binomtest(correct, images).proportion_ci(0.95, method="wilson"))


@pytest.mark.parametrize(("correct_a", "correct_b"), [(900, 800), (3, 0), (1000, 990), (0, 0), (1000, 0)])
def test_an_interval_of_one_seed_is_newcombes(correct_a, correct_b):
    (low_a, high_a), (low_b, high_b) = limits(correct_a, 1000), limits(correct_b, 1000)
    a, b = correct_a / 10, correct_b / 10
    low, high = a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)
    assert interval(np.array([a]), np.array([b]), 1000) == pytest.approx((a - b, low, high), rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"), [(9, 3, 0.1705, 0.8090), (0, 0, -0.2775, 0.2775), (10, 0, 0.6075, 1.0)]
)
def test_newcombes_own_figures_come_out(a, b, low, high):
    """Newcombe 1998 (Statistics in Medicine 17: 873-890), Table II, method 10: a and b of 10."""
    found = interval(np.array([10.0 * a]), np.array([10.0 * b]), 10)
    assert (found.low / 100, found.high / 100) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_against_a_number_is_that_of_one_proportion():
    low, high = limits(9500, 10_000)
    assert interval(np.array([95.0]), 92.0, 10_000) == pytest.approx((3, low - 92, high - 92))


def test_with_endless_images_an_interval_is_welchs():
    a, b = np.array([80.0, 82.0, 87.0]), np.array([70.0, 71.0, 69.0, 75.0])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval(a, b, 10**15)[1:] == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_the_spread_between_seeds_widens_an_interval_by_its_own_part():
    """Seeds 79 and 81 with mean 80: s^2/2 = 1; with 10,000 images the binomial part is 0.16 and 0.21."""
    found = interval(np.array([79.0, 81.0]), np.array([70.0]), 10_000)
    for length, above_a, above_b in [
        (found.difference - found.low, 80 - limits(8000, 10_000)[0], limits(7000, 10_000)[1] - 70),
        (found.high - found.difference, limits(8000, 10_000)[1] - 80, 70 - limits(7000, 10_000)[0]),
    ]:
        images = (above_a**2 + above_b**2) / 1.959964**2
        assert images == pytest.approx(0.37, rel=0.02)
        assert length == pytest.approx(stats.t.ppf(0.975, (images + 1) ** 2) * math.sqrt(images + 1), rel=1e-5)


def test_the_interval_covers_the_truth_in_95_of_100_trials():
    rng = np.random.default_rng(0)
    a, b = (100 * rng.binomial(500, p, 4000) / 500 for p in (0.9, 0.7))
    inside = [low <= 20 <= high for _, low, high in (interval(a[k : k + 1], b[k : k + 1], 500) for k in range(400))]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_the_interval_covers_the_truth_near_the_ends_as_well():
    """At 99.9 % of 500 images the normal interval has no width in 61 of 100 trials."""
    rng = np.random.default_rng(0)
    a, b = (100 * rng.binomial(500, p, 4000) / 500 for p in (0.999, 0.995))
    inside = [low <= 0.4 <= high for _, low, high in (interval(a[k : k + 1], b[k : k + 1], 500) for k in range(400))]
    assert np.mean(inside) >= 0.92


def test_two_perfect_accuracies_are_too_close_to_call_and_no_warning():
    found = interval(np.array([100.0]), np.array([100.0]), 500)
    assert found == pytest.approx((0, -100 * 3.841459 / 503.841459, 100 * 3.841459 / 503.841459))
    assert Comparison("", found).verdict == CLOSE


def test_seeds_that_are_all_perfect_are_no_more_sure_than_their_images():
    assert interval(np.full(3, 100.0), 92.0, 500) == interval(np.array([100.0]), 92.0, 500)
