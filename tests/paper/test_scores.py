"""Scores: what is refused, and what they list."""

import math

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.paper.scores import Scores
from nnlite.paper.tables import Model

RECT, MT, L1 = Model("Rect"), Model("MT"), Model("L1", 0.01)


def row(last):
    """Accuracies that fall to `last`, of one seed."""
    return np.array([[98.0, 97.0, 96.0, 50.0, last]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 0}, "image"),
        ({"values": {(RECT, "r3", RECT): row(1)}}, "r1 or r2"),
        ({"values": {(RECT, "r1", RECT): row(1)[0]}}, "shape"),
        ({"values": {(RECT, "r1", RECT): row(1)[:0]}}, "shape"),
        ({"values": {(RECT, "r1", RECT): row(math.nan)}}, "percentages"),
        ({"values": {(RECT, "r1", RECT): row(100.1)}}, "percentages"),
    ],
)
def test_scores_that_make_no_sense_are_refused(change, words):
    with pytest.raises(NnliteError, match=words):
        Scores(**{"images": 100, "values": {}, **change})


def test_scores_list_victims_self_attacks_and_tables():
    scores = Scores(
        100,
        {(MT, "r1", RECT): row(1), (MT, "r1", MT): row(2), (RECT, "r2", RECT): row(90), (L1, "r1", L1): row(5)},
    )
    assert scores.victims(MT) == (RECT, MT)
    assert scores.self_attacked() == (L1, MT)
    assert scores.self_attacked("r2") == (RECT,)
    assert list(scores.tables()) == [(6, MT, (RECT, MT))]
