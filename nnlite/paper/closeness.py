"""Closeness: the rows of each table beside the paper's, in both kinds of arithmetic, and how near they come.

The exact logit error is the stronger attack, and the truth. The naive one is what the paper's figures look like, so its
column is the one to compare with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnlite.paper.scores import EXACT, NAIVE, Percent, Scores
from nnlite.paper.tables import ADVERSARIES, PHI, Model, paper_accuracy

FAR = 5.0  # points
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table: means over `seeds` under exact and naive R1 noise, and the paper's, each (phi,).

    NaN stands where there is none: naive noise was not crafted, or the row is not in the paper.
    """

    model: Model
    seeds: int
    exact: Percent
    naive: Percent
    paper: Percent

    @classmethod
    def of(cls, scores: Scores, adversary: Model, model: Model, paper: Sequence[float]) -> "Row":
        """Return the row of a model under an adversary's noise beside the paper's accuracies (phi,)."""
        exact = scores.values[adversary, EXACT, model]
        naive = scores.values.get((adversary, NAIVE, model), np.full((1, len(PHI)), np.nan))
        return cls(model, len(exact), exact.mean(axis=0), naive.mean(axis=0), np.array(paper))

    @property
    def difference(self) -> Percent:
        """Ours less the paper's, (phi,)."""
        return self.comparable - self.paper

    @property
    def comparable(self) -> Percent:
        """What to compare with the paper's figures: the naive accuracies, or the exact ones where there are none."""
        return np.where(np.isnan(self.naive), self.exact, self.naive)


def table_rows(scores: Scores, number: int) -> list[Row]:
    """Return the rows of table `number` for which there are scores, in the order of ROWS."""
    adversary = ADVERSARIES[number]
    return [Row.of(scores, adversary, model, paper_accuracy(number, model)) for model in scores.victims(adversary)]


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with the paper's column, and its 95 % interval; NaN for fewer than three rows."""

    found: float
    low: float
    high: float


def rank_correlation(ours: Sequence[float], paper: Sequence[float]) -> RankCorrelation:
    """Return the correlation of two columns of rows; rows without a number in either are left out.

    The interval is the percentile bootstrap's over rows: how much depends on which rows there are. NaN for fewer than
    three rows, or where all are equal.
    """
    both = np.array([ours, paper], np.float64)
    both = both[:, ~np.isnan(both).any(axis=0)]
    count = both.shape[1]
    if count < 3:
        return RankCorrelation(np.nan, np.nan, np.nan)
    found = float(_spearman(both[:, None])[0])
    if np.isnan(found):
        return RankCorrelation(np.nan, np.nan, np.nan)
    drawn = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    low, high = np.nanquantile(_spearman(both[:, drawn]), (0.025, 0.975))
    return RankCorrelation(found, float(low), float(high))


def _spearman(columns: Percent) -> Percent:
    """Return the correlations (n,) of the ranks of two columns (2, n, rows); NaN where one has equal values only."""
    from scipy.stats import rankdata

    ranks = rankdata(columns, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (ranks[0] * ranks[1]).sum(axis=-1) / np.sqrt((ranks[0] ** 2).sum(axis=-1) * (ranks[1] ** 2).sum(axis=-1))


def median_difference(scores: Scores, arithmetic: str) -> Percent:
    """Return the median absolute difference (phi,) to the paper's cells over all tables, by EXACT or NAIVE noise."""
    rows = [row for number, *_ in scores.tables for row in table_rows(scores, number)]
    off = [abs((row.exact if arithmetic == EXACT else row.naive) - row.paper) for row in rows]
    known = np.array([one for one in off if not np.isnan(one).any()]).reshape(-1, len(PHI))
    return np.median(known, axis=0) if len(known) else np.full(len(PHI), np.nan)


@dataclass(frozen=True)
class FarRow:
    """A model that is more than FAR points off the paper in some cells, by the arithmetic that the paper's look like.

    Arguments:
        model: the row.
        cells: how many of its cells are so.
        of: how many it has.
        worst: the table and the phi of the largest difference.
        off: that difference in points, ours less the paper's.
        exact_off: the same cell by the exact error.
    """

    model: Model
    cells: int
    of: int
    worst: tuple[int, float]
    off: float
    exact_off: float


def far_rows(scores: Scores) -> list[FarRow]:
    """Return the rows that stay more than FAR points off in any cell, the furthest first."""
    rows: dict[Model, list[tuple[int, Row]]] = {}
    for number, *_ in scores.tables:
        for row in table_rows(scores, number):
            if not np.isnan(row.paper).any():
                rows.setdefault(row.model, []).append((number, row))
    found = []
    for model, several in rows.items():
        off = np.array([row.difference for _, row in several])
        table, column = np.unravel_index(int(abs(off).argmax()), off.shape)
        cells = int((abs(off) > FAR).sum())
        if cells:
            number, row = several[table]
            exact = float(row.exact[column] - row.paper[column])
            found.append(FarRow(model, cells, off.size, (number, PHI[column]), float(off[table, column]), exact))
    return sorted(found, key=lambda one: -abs(one.off))
