"""Rows of CSV from strangers: as the csv module reads them, unless one is too long."""

import csv
import io

import pytest

from nnlite.storage import rows
from nnlite.storage.rows import Rows


def test_rows_are_those_of_the_csv_module():
    text = 'a,b\n\n"1\n2",3\n4, "5"'
    found = Rows(io.StringIO(text), skipinitialspace=True)
    assert [(row, found.line) for row in found] == [(["a", "b"], 1), ([], 2), (["1\n2", "3"], 4), (["4", "5"], 5)]


@pytest.mark.parametrize("text", ["a" * 20, "a," * 10, '"\n",' * 5, 'a,b\n"\n",' + '"\n",' * 4], ids=repr)
def test_a_row_is_limited_in_however_many_lines(monkeypatch, text):
    monkeypatch.setattr(rows, "ROW_LIMIT", 20)
    with pytest.raises(csv.Error, match="a row has 20 characters or more"):
        list(Rows(io.StringIO(text)))


def test_each_row_has_the_whole_limit(monkeypatch):
    monkeypatch.setattr(rows, "ROW_LIMIT", 20)
    assert len(list(Rows(io.StringIO(f"{'a' * 18}\n" * 9)))) == 9
