"""Confidence intervals, against the textbook and other code."""

import math

import numpy as np
import pytest
from scipy import stats

from nnlite.paper.intervals import interval


def test_an_interval_of_one_seed_is_the_textbooks():
    """90 % and 80 % of 1,000 images: the standard error is sqrt(0.09/1000 + 0.16/1000) = 1.5811 points."""
    found = interval(np.array([90.0]), np.array([80.0]), 1000)
    assert found == pytest.approx((10, 10 - 1.95996 * 1.58114, 10 + 1.95996 * 1.58114), abs=1e-4)


def test_an_interval_against_a_number_has_one_variance():
    found = interval(np.array([95.0]), 92.0, 10_000)
    assert found.high - found.difference == pytest.approx(1.95996 * math.sqrt(95 * 5 / 10_000), abs=1e-4)


def test_with_endless_images_an_interval_is_welchs():
    a, b = np.array([80.0, 82.0, 87.0]), np.array([70.0, 71.0, 69.0, 75.0])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval(a, b, 10**15)[1:] == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_the_spread_between_seeds_widens_an_interval_by_its_own_part():
    """Seeds 79 and 81 with mean 80: s^2/2 = 1; with 10,000 images the binomial part is 0.16."""
    one, other = np.array([79.0, 81.0]), np.array([70.0])
    found = interval(one, other, 10_000)
    variance = 0.16 + 1 + 0.21
    quantile = stats.t.ppf(0.975, variance**2 / 1**2)
    assert found.high - found.difference == pytest.approx(quantile * math.sqrt(variance))


def test_the_interval_covers_the_truth_in_95_of_100_trials():
    rng = np.random.default_rng(0)
    a, b = (100 * rng.binomial(500, p, 4000) / 500 for p in (0.9, 0.7))
    inside = [low <= 20 <= high for _, low, high in (interval(a[k : k + 1], b[k : k + 1], 500) for k in range(400))]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_two_perfect_accuracies_are_too_close_to_call_and_no_warning():
    assert interval(np.array([100.0]), np.array([100.0]), 500) == (0, 0, 0)
