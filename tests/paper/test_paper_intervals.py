"""Confidence intervals, against the textbook and other code."""

import math

import numpy as np
import pytest
from scipy import stats

from nnlite.paper.intervals import paired, unpaired


def limits(correct, images):
    """Return the limits of SciPy's Wilson interval, in percent."""
    return tuple(100 * limit for limit in stats.binomtest(correct, images).proportion_ci(0.95, method="wilson"))


def two(a, b, images):
    return unpaired([np.array(a, float)], [np.array(b, float)], images)


def of_pairs(only_a, only_b, images):
    """The differences (1, images) of two models that differ on so many images."""
    return np.array([[1.0] * only_a + [-1.0] * only_b + [0.0] * (images - only_a - only_b)])


# -- without the outcomes of images


@pytest.mark.parametrize(("correct_a", "correct_b"), [(900, 800), (3, 0), (1000, 990), (0, 0), (1000, 0)])
def test_an_interval_of_one_seed_is_newcombes(correct_a, correct_b):
    (low_a, high_a), (low_b, high_b) = limits(correct_a, 1000), limits(correct_b, 1000)
    a, b = correct_a / 10, correct_b / 10
    low, high = a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)
    assert two([a], [b], 1000)[:3] == pytest.approx((a - b, low, high), rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"), [(9, 3, 0.1705, 0.8090), (0, 0, -0.2775, 0.2775), (10, 0, 0.6075, 1.0)]
)
def test_newcombes_own_figures_come_out(a, b, low, high):
    """Newcombe 1998 (Statistics in Medicine 17: 873-890), Table II, method 10: a and b of 10."""
    found = two([10.0 * a], [10.0 * b], 10)
    assert (found.low / 100, found.high / 100) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_against_a_number_is_that_of_one_proportion():
    low, high = limits(9500, 10_000)
    found = unpaired([np.array([95.0])], [], 10_000, -92)
    assert found[:3] == pytest.approx((3, low - 92, high - 92))
    below = unpaired([], [np.array([95.0])], 10_000, 92)
    assert below[:3] == pytest.approx((-3, 92 - high, 92 - low))


def test_more_accuracies_add_their_variances():
    """Four Wilson intervals, by hand: Zou and Donner 2008."""
    values = [900, 700, 950, 400]
    (low_a, high_a), (low_b, high_b), (low_c, high_c), (low_d, high_d) = (limits(one, 1000) for one in values)
    below = math.sqrt((90 - low_a) ** 2 + (70 - low_b) ** 2 + (high_c - 95) ** 2 + (high_d - 40) ** 2)
    above = math.sqrt((high_a - 90) ** 2 + (high_b - 70) ** 2 + (95 - low_c) ** 2 + (40 - low_d) ** 2)
    a, b, c, d = (np.array([one / 10]) for one in values)
    assert unpaired([a, b], [c, d], 1000)[:3] == pytest.approx((25, 25 - below, 25 + above), rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(900, 880), (900, 850), (850, 900), (500, 455)])
def test_p_is_below_5_percent_where_the_interval_leaves_0_out(a, b):
    found = two([a / 10], [b / 10], 1000)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert found.p == pytest.approx(
        stats.chi2_contingency([[a, 1000 - a], [b, 1000 - b]], correction=False).pvalue, rel=0.1
    )


def test_with_endless_images_an_interval_is_welchs():
    a, b = np.array([80.0, 82.0, 87.0]), np.array([70.0, 71.0, 69.0, 75.0])
    expected = stats.ttest_ind(a, b, equal_var=False)
    found, between = two(a, b, 10**15), expected.confidence_interval(0.95)
    assert found[1:] == pytest.approx((between.low, between.high, expected.pvalue), rel=1e-6)


def test_the_spread_between_seeds_widens_an_interval_by_its_own_part():
    """Seeds 79 and 81 with mean 80: s^2/2 = 1; with 10,000 images the binomial part is 0.16 and 0.21."""
    found = two([79.0, 81.0], [70.0], 10_000)
    for length, above_a, above_b in [
        (found.difference - found.low, 80 - limits(8000, 10_000)[0], limits(7000, 10_000)[1] - 70),
        (found.high - found.difference, limits(8000, 10_000)[1] - 80, 70 - limits(7000, 10_000)[0]),
    ]:
        images = (above_a**2 + above_b**2) / 1.959964**2
        assert images == pytest.approx(0.37, rel=0.02)
        assert length == pytest.approx(stats.t.ppf(0.975, (images + 1) ** 2) * math.sqrt(images + 1), rel=1e-5)


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.7), (0.999, 0.995)])
def test_the_interval_covers_the_truth(p, q):
    """At 99.9 % of 500 images the normal interval has no width in 61 of 100 trials."""
    rng = np.random.default_rng(0)
    a, b = (100 * rng.binomial(500, one, 400) / 500 for one in (p, q))
    found = [two(a[k : k + 1], b[k : k + 1], 500) for k in range(400)]
    assert np.mean([low <= 100 * (p - q) <= high for _, low, high, _ in found]) >= 0.92


def test_two_perfect_accuracies_do_not_differ_and_no_warning():
    found = two([100.0], [100.0], 500)
    assert found == pytest.approx((0, -100 * 3.841459 / 503.841459, 100 * 3.841459 / 503.841459, 1))


def test_seeds_that_are_all_perfect_are_no_more_sure_than_their_images():
    assert unpaired([np.full(3, 100.0)], [], 500, -92) == unpaired([np.array([100.0])], [], 500, -92)


# -- on the same images


@pytest.mark.parametrize(("only_a", "only_b"), [(300, 200), (60, 35), (200, 210), (35, 60)])
def test_p_of_a_pair_is_mcnemars(only_a, only_b):
    """The exact form is the sign test; McNemar's chi-squared (b - c)^2 / (b + c) is less cautious."""
    found = paired(of_pairs(only_a, only_b, 10_000))
    assert found.difference == pytest.approx((only_a - only_b) / 100)
    assert found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert found.p > stats.chi2.sf((only_a - only_b) ** 2 / (only_a + only_b), 1)


@pytest.mark.parametrize(("only_a", "exact"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_a_few_images_prove_little(only_a, exact):
    found = paired(of_pairs(only_a, 0, 500))
    assert (found.p < 0.05) == (exact < 0.05)


def test_the_interval_of_a_pair_is_agresti_and_mins():
    """By hand: half an image more on either side, of two images more."""
    b, c, n = 40.5, 20.5, 1002
    centre, error = (b - c) / n, math.sqrt((b + c) / n - ((b - c) / n) ** 2) / math.sqrt(n)
    found = paired(of_pairs(40, 20, 1000))
    assert found[:3] == pytest.approx(
        (2, 100 * (centre - 1.959964 * error), 100 * (centre + 1.959964 * error)), rel=1e-6
    )


def test_models_that_agree_on_all_images_still_have_an_interval():
    found = paired(of_pairs(0, 0, 500))
    assert (found.difference, found.p) == (0, 1)
    assert found.low < 0 < found.high


def test_the_interval_of_pairs_covers_the_truth_and_is_shorter_than_of_strangers():
    rng = np.random.default_rng(0)
    shares, inside = (0.05, 0.03, 0.92), []
    for _ in range(400):
        only_a, only_b, both = rng.multinomial(500, shares)
        found = paired(of_pairs(only_a, only_b, 500))
        inside.append(found.low <= 2 <= found.high)
        right = 100 * (only_a + both / 2) / 500, 100 * (only_b + both / 2) / 500
        assert found.high - found.low < np.diff(two([right[0]], [right[1]], 500)[1:3])
    assert 0.92 <= np.mean(inside) <= 0.98


def test_seeds_of_a_pair_enter_as_in_a_paired_t_test():
    """With endless agreement within each seed only the spread between seeds is left, up to the added pair."""
    leads = np.array([0.02, 0.05, 0.03])
    difference = np.stack([of_pairs(round(one * 100_000), 0, 100_000)[0] for one in leads])
    found = paired(difference)
    images = ((np.square(difference.mean(0)).sum() + 1) / 100_002 - leads.mean() ** 2) / 100_002
    between = leads.var(ddof=1) / 3
    freedom = (images + between) ** 2 / (between**2 / 2)
    length = stats.t.ppf(0.975, freedom) * math.sqrt(images + between)
    assert (found.high - found.low) / 200 == pytest.approx(length, rel=1e-3)
    expected = stats.ttest_1samp(leads, 0)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)


def test_an_offset_shifts_all_but_the_width():
    plain, shifted = (paired(of_pairs(10, 40, 1000), offset) for offset in (0, 5))
    assert np.subtract(shifted[:3], plain[:3]) == pytest.approx(5)
    assert shifted.p == pytest.approx(
        2 * stats.norm.sf(sum(shifted[1:3]) / 2 / (np.diff(shifted[1:3])[0] / 2 / 1.959964))
    )
