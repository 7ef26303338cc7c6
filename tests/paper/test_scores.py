"""Scores: what is refused, and what they list."""

import math

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.paper.scores import NAIVE, Scores, read_scores
from nnlite.paper.tables import Model

RECT, MT, L1 = Model("Rect"), Model("MT"), Model("L1", 0.01)


def row(last):
    """Accuracies that fall to `last`, of one seed."""
    return np.array([[98.0, 97.0, 96.0, 50.0, last]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 0}, "image"),
        ({"values": {(RECT, "r3", RECT): row(1)}}, "r1, r1-naive or r2"),
        ({"values": {(RECT, "r1", RECT): row(1)[0]}}, "shape"),
        ({"values": {(RECT, "r1", RECT): row(1)[:0]}}, "shape"),
        ({"values": {(RECT, "r1", RECT): row(math.nan)}}, "percentages"),
        ({"values": {(RECT, "r1", RECT): row(100.1)}}, "percentages"),
        ({"correct": {(RECT, "r1", RECT): np.ones((1, 5, 100), bool)}}, "beside each accuracy"),
        ({"values": {(RECT, "r1", RECT): row(1)}, "correct": {(RECT, "r1", RECT): np.ones((1, 5, 99), bool)}}, "99"),
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
    assert list(scores.tables) == [(6, MT, (RECT, MT))]


def test_the_naive_scores_take_the_place_of_the_exact_ones():
    values = {(RECT, "r1", MT): row(1), (RECT, NAIVE, MT): row(9), (RECT, "r2", RECT): row(90), (MT, "r1", MT): row(2)}
    found = Scores(100, values).naive().values
    assert {key: accuracy[0, -1] for key, accuracy in found.items()} == {(RECT, "r1", MT): 9, (RECT, "r2", RECT): 90}


def test_rows_that_the_paper_lacks_can_be_left_out():
    missing = Model("DGL1", 0.1, 0.1)
    correct = {(RECT, "r1", missing): np.ones((1, 5, 100), bool), (RECT, "r1", MT): np.zeros((1, 5, 100), bool)}
    scores = Scores.of(100, correct, {(RECT, "r1", MT): row(50), (RECT, "r1", RECT): row(1)})
    assert scores.values[RECT, "r1", MT].tolist() == [[0] * 5]  # outcomes outweigh an older accuracy
    left = scores.in_paper()
    assert left.victims(RECT) == (RECT, MT)
    assert list(left.correct) == [(RECT, "r1", MT)]


def test_the_lines_of_the_file_are_read_back(tmp_path):
    values = {(RECT, "r1", MT): np.array([[98.0, 97, 96, 50, 1 / 3], [1, 2, 3, 4, 5]]), (RECT, NAIVE, MT): row(3)}
    lines = [
        "adversary,noise,victim,seed,phi,accuracy",
        *(",".join(map(str, one)) for one in Scores(9, values).lines()),
    ]
    (tmp_path / "scores.csv").write_text("\n".join(lines), "utf-8")
    found = read_scores(tmp_path)
    assert found.keys() == values.keys()
    assert all((found[key] == values[key]).all() for key in values)
