"""Comparisons: which interval is taken, and what many of them allow to say."""

import numpy as np
import pytest
from scipy import stats

from nnlite.paper.comparisons import CLOSE, FAILS, HOLDS, Cell, Comparison, Contrast, compare, holm
from nnlite.paper.intervals import Interval, paired, unpaired
from nnlite.paper.scores import EXACT, Scores
from nnlite.paper.tables import PHI, Model

RECT, L1 = Model("Rect"), Model("L1", 0.01)
OURS, THEIRS = (RECT, EXACT, L1), (RECT, EXACT, RECT)


@pytest.fixture(scope="module")
def outcomes():
    """The outcomes of 1,000 images, two seeds, all phi, for two victims that fail on much the same images."""
    rng = np.random.default_rng(0)
    hard = rng.random((2, len(PHI), 1000)) < 0.3
    return {OURS: ~(hard & (rng.random(hard.shape) < 0.9)), THEIRS: ~hard}


def test_holms_numbers_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_holm_is_wrong_once_in_twenty_families_at_most():
    rng = np.random.default_rng(0)
    wrong = [min(holm(2 * stats.norm.sf(abs(rng.standard_normal(24))))) < 0.05 for _ in range(1000)]
    assert np.mean(wrong) < 0.07


@pytest.mark.parametrize(("difference", "p", "verdict"), [(1, 0.01, HOLDS), (-1, 0.01, FAILS), (1, 0.05, CLOSE)])
def test_a_verdict_needs_a_sign_and_a_small_p(difference, p, verdict):
    assert Comparison("", Interval(difference, 0, 0, p / 9), p).verdict == verdict


def test_known_outcomes_are_compared_image_by_image(outcomes):
    scores = Scores.of(1000, outcomes, {})
    contrast = Contrast("a lead", (Cell(OURS, 2),), (Cell(THEIRS, 2),))
    difference = outcomes[OURS][:, 2].astype(float) - outcomes[THEIRS][:, 2]
    assert contrast.interval(scores) == paired(difference)
    older = Scores(1000, scores.values)
    assert contrast.interval(older) == unpaired([scores.values[OURS][:, 2]], [scores.values[THEIRS][:, 2]], 1000)
    assert contrast.interval(older).high > contrast.interval(scores).high


def test_a_threshold_and_seeds_of_different_number_are_not_paired(outcomes):
    one = {**outcomes, THEIRS: outcomes[THEIRS][:1]}
    scores = Scores.of(1000, one, {})
    found = Contrast("", (Cell(OURS),), (Cell(THEIRS),)).interval(scores)
    assert found == unpaired([scores.values[OURS][:, -1]], [scores.values[THEIRS][:, -1]], 1000)
    found = Contrast("", (Cell(OURS),), offset=-50).interval(scores)
    assert found == unpaired([scores.values[OURS][:, -1]], [], 1000, -50)


def test_a_growing_lead_takes_four_accuracies(outcomes):
    scores = Scores.of(1000, outcomes, {})
    contrast = Contrast("", (Cell(OURS, 2), Cell(THEIRS, 1)), (Cell(THEIRS, 2), Cell(OURS, 1)))
    values = scores.values
    lead = values[OURS][:, 1:3] - values[THEIRS][:, 1:3]
    assert contrast.interval(scores).difference == pytest.approx((lead[:, 1] - lead[:, 0]).mean())


def test_all_parts_of_a_claim_share_the_5_percent(outcomes):
    scores = Scores.of(1000, outcomes, {})
    contrast = Contrast("a lead", (Cell(OURS, 1),), (Cell(THEIRS, 1),))
    (alone,) = compare(scores, [contrast])
    many = compare(scores, [contrast] * 3)
    assert alone.p == alone.margin.p
    assert [one.p for one in many] == pytest.approx([min(1, 3 * alone.p)] * 3)
    assert str(alone).startswith(f"a lead: {alone.margin.difference:+.2f} points [")
