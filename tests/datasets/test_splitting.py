"""Splits: complete, disjoint, each class alike, by seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlite.datasets.splitting import draw_split
from nnlite.errors import NnliteError

FRACTIONS = (0.7, 0.15, 0.15)


@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=5),
    st.integers(0, 5),
    st.sampled_from([FRACTIONS, (0.2, 0.4, 0.4), (0.9, 0.1)]),
)
def test_each_row_is_in_one_part_and_each_class_in_all_of_them(counts, seed, fractions):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = draw_split(labels, fractions, tuple(map(str, range(len(counts)))), seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for rows, share in zip(parts, fractions, strict=True):
        assert (np.diff(rows) > 0).all()
        for label, count in enumerate(counts):
            own = (labels[rows] == label).sum()
            assert own >= 1
            assert abs(own - share * count) <= 1.5  # its own rounding, and those of the other parts


def test_the_seed_decides_which_rows_and_not_how_many():
    labels = np.arange(100) % 3
    one, again, other = (draw_split(labels, FRACTIONS, ("a", "b", "c"), seed) for seed in (1, 1, 2))
    assert [rows.tolist() for rows in one] == [rows.tolist() for rows in again]
    assert [rows.tolist() for rows in one] != [rows.tolist() for rows in other]
    assert [len(rows) for rows in one] == [len(rows) for rows in other]


def test_a_class_with_fewer_samples_than_parts_is_named():
    with pytest.raises(NnliteError, match=r"expected 3 samples of each class or more, .*found 1 of class 'b'"):
        draw_split(np.array([0, 0, 0, 1]), FRACTIONS, ("a", "b"), 0)
    with pytest.raises(NnliteError, match=r"expected 2 samples of each class or more, .*found 1 of class 'b'"):
        draw_split(np.array([0, 0, 0, 1]), (0.8, 0.2), ("a", "b"), 0)
