"""What people write: decimals and fractions, and names with slips in them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlite.storage.texts import did_you_mean, parse_number


@given(st.integers(0, 1 << 53), st.integers(1, 1 << 53))
def test_a_fraction_is_the_nearest_float64(above, below):
    assert parse_number(f"{above}/{below}") == float(Fraction(above, below))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_the_number_that_python_reads(number):
    assert parse_number(repr(number)) == number


def test_the_usual_sizes_are_those_of_numpy():
    assert parse_number("8/255") == np.float64(8) / np.float64(255)
    assert parse_number(" 0.5 / 255 ") == 0.5 / 255


@pytest.mark.parametrize(
    "text", ["", "a", "8/", "/255", "8/255/2", "nan", "inf", "-inf", "1/nan", "1e999", "1e300/1e-300"]
)
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(ValueError, match=r"expected a finite number such as 0\.03, or a fraction such as 8/255, found"):
        parse_number(text)


@pytest.mark.parametrize("text", ["1/0", "0/0", "8/0.0"])
def test_a_division_by_0_is_named(text):
    with pytest.raises(ValueError, match=f"expected a number, found '{text}', a division by 0"):
        parse_number(text)


def test_a_long_text_is_cut_short():
    with pytest.raises(ValueError, match=r"\.\.\.") as caught:
        parse_number("9" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ("pdg", " (did you mean 'pgd'?)"),
        ("dgl", " (did you mean 'dgl1' or 'dgl2'?)"),
        ("nothing like it", ""),
        ("", ""),
        ("p" * 1_000_000, ""),
        (3, ""),
        (None, ""),
    ],
)
def test_the_nearest_names_are_told(found, hint):
    assert did_you_mean(found, ["pgd", "dgl1", "dgl2", "trades", 7, None]) == hint


def test_of_ten_thousand_names_no_more_are_compared_than_takes_no_time(monkeypatch):
    compared = []
    monkeypatch.setattr("difflib.get_close_matches", lambda found, names: compared.extend(names) or names[-1:])
    assert did_you_mean("x", [f"x{k}" for k in range(10_000)]) == " (did you mean 'x999'?)"
    assert len(compared) == 1000
