"""Closeness: the rows beside the paper's, rank correlations, and the rows that stay far off."""

import numpy as np
import pytest
from scipy import stats

from nnlite.paper.closeness import far_rows, median_difference, rank_correlation, table_rows
from nnlite.paper.scores import EXACT, NAIVE, Scores, paper_scores
from nnlite.paper.tables import ADVERSARIES, MODELS, PHI, Model, paper_accuracy

RECT, MT, MISSING = Model("Rect"), Model("MT"), Model("DGL1", 0.1, 0.1)


def beside(number, model, exact=0.0, naive=None):
    """Scores of one row, so many points off the paper's by each error."""
    paper = np.array([paper_accuracy(number, model)])
    found = {(ADVERSARIES[number], EXACT, model): np.clip(paper + exact, 0, 100)}
    if naive is not None:
        found[ADVERSARIES[number], NAIVE, model] = np.clip(paper + naive, 0, 100)
    return found


@pytest.mark.parametrize("number", ADVERSARIES)
def test_the_papers_scores_against_themselves_differ_by_nothing(number):
    rows = table_rows(paper_scores(), number)
    assert [row.model for row in rows] == list(MODELS)
    assert all(not row.difference.any() for row in rows)


def test_a_row_is_the_mean_over_seeds():
    values = {(RECT, EXACT, MT): np.array([[90.0, 80, 70, 60, 50], [92, 84, 76, 68, 60]])}
    (row,) = table_rows(Scores(100, values), 1)
    assert (row.model, row.seeds) == (MT, 2)
    assert row.exact.tolist() == [91, 82, 73, 64, 55]
    assert np.isnan(row.naive).all()
    assert row.difference == pytest.approx(np.array([91, 82, 73, 64, 55]) - paper_accuracy(1, MT))


def test_the_naive_figures_stand_beside_the_papers_where_there_are_any():
    (row,) = table_rows(Scores(100, beside(1, RECT, -9, 0.5)), 1)
    assert row.difference == pytest.approx(0.5)
    assert row.exact[0] == pytest.approx(97.99 - 9)


def test_a_row_that_the_paper_lacks_has_no_difference():
    (row,) = table_rows(Scores(100, {(RECT, EXACT, MISSING): np.full((1, 5), 90.0)}), 1)
    assert np.isnan(row.paper).all()
    assert np.isnan(row.difference).all()


def test_the_rank_correlation_is_spearmans_and_leaves_out_what_is_missing():
    rng = np.random.default_rng(0)
    ours, paper = rng.normal(size=30), rng.normal(size=30)
    paper[:3] = ours[:3]
    found = rank_correlation([*ours, 1.0, np.nan], [*paper, np.nan, 2.0])
    assert found.found == pytest.approx(stats.spearmanr(ours, paper).statistic)
    assert -1 <= found.low < found.found < found.high <= 1


def test_the_bootstrap_interval_is_that_of_scipy():
    rng = np.random.default_rng(1)
    ours = np.arange(40.0)
    paper = ours + rng.normal(scale=15, size=40)
    found = rank_correlation(ours, paper)
    expected = stats.bootstrap(
        (ours, paper),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        random_state=np.random.default_rng(2),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_two_rows_or_equal_rows_have_no_rank_correlation():
    assert np.isnan(rank_correlation([1, 2], [1, 2])).all()
    assert np.isnan(rank_correlation([], [])).all()
    assert np.isnan(rank_correlation([5, 5, 5, 5], [1, 2, 3, 4])).all()
    assert rank_correlation([1, 2, 3], [1, 2, 3]).found == pytest.approx(1)


def test_the_median_is_over_all_cells_of_all_tables():
    values = beside(1, RECT, -1, 0) | beside(1, MT, -2, 0.5) | beside(6, RECT, -4, -1)
    values |= {(RECT, EXACT, MISSING): np.full((1, 5), 50.0)}
    scores = Scores(100, values)
    assert median_difference(scores, EXACT)[:4] == pytest.approx([2] * 4)
    assert median_difference(scores, NAIVE) == pytest.approx([0.5] * 5)
    assert np.isnan(median_difference(Scores(100, {}), NAIVE)).all()


def test_far_rows_are_named_with_their_furthest_cell():
    values = beside(1, RECT, -9, 1) | beside(1, MT, -9, -6) | beside(6, RECT, -7) | beside(2, MT, 0, 4.9)
    values[ADVERSARIES[6], EXACT, RECT][0, 3] -= 10
    mt, rect = sorted(far_rows(Scores(100, values)), key=lambda one: one.model.family)
    assert (rect.model, rect.cells, rect.of, rect.worst) == (RECT, 5, 10, (6, PHI[3]))
    assert (rect.off, rect.exact_off) == pytest.approx((-17, -17))
    assert (mt.model, mt.cells, mt.of) == (MT, 5, 10)
    assert (mt.off, mt.exact_off) == pytest.approx((-6, -9))
    assert far_rows(paper_scores()) == []
