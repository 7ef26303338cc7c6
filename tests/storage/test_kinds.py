"""Kinds: what a value must be, whatever it is, and the one error where it is not."""

import math

import pytest

from nnlite.errors import NnliteError
from nnlite.storage import kinds

HUGE = 10**5000  # more digits than Python prints
VALUES = [
    None,
    True,
    0,
    1,
    -1,
    2.5,
    math.nan,
    math.inf,
    HUGE,
    -HUGE,
    "",
    "1",
    "a\nb",
    "\ud800",
    [],
    [1],
    (1,),
    {},
    {"a": 1},
]


@pytest.mark.parametrize(
    ("kind", "words", "fitting"),
    [
        (kinds.BOOLEAN, "true or false", [True]),
        (kinds.NOT_NEGATIVE, "a finite number of at least 0", [0, 1, 2.5]),
        (kinds.POSITIVE, "a finite number above 0", [1, 2.5]),
        (kinds.integer(1), "an integer of at least 1, below 2**63", [1]),
        (kinds.integer(-1, 0), "an integer from -1 to 0", [0, -1]),
        (kinds.number(0, 2.5), "a number from 0 to 2.5", [0, 1, 2.5]),
        (kinds.text(0, 200), "a text of at most 200 printable characters", ["", "1"]),
        (kinds.text(1, 200), "a text of 1 to 200 printable characters", ["1"]),
        (kinds.text(0, 0), "a text of 0 printable characters", [""]),
        (kinds.one_of([1, "1", None]), "one of 1, 1, null", [None, 1, "1"]),
        (kinds.one_of([1]), "1", [1]),
        (
            kinds.sequence(kinds.integer(1), 0, 5),
            "a list of at most 5, each an integer of at least 1, below 2**63",
            [[], [1]],
        ),
        (kinds.sequence(kinds.BOOLEAN, 1, 1), "a list of 1, each true or false", []),
        (kinds.sequence(kinds.integer(1, 9), 1, 9, tuple), "a tuple of 1 to 9, each an integer from 1 to 9", [(1,)]),
        (kinds.object_of({"a": kinds.integer(1, 9)}), "an object of a (an integer from 1 to 9)", [{"a": 1}]),
        (kinds.object_of({}), "an object of ", [{}]),
    ],
)
def test_a_kind_takes_its_values_and_no_others_and_never_fails(kind, words, fitting):
    assert kind.words == words
    assert [value for value in VALUES if kind.fits(value)] == fitting
    for value in VALUES:
        if kind.fits(value):
            kinds.expect("it", kind, value)
        else:
            with pytest.raises(NnliteError) as error:
                kinds.expect("it", kind, value)
            assert str(error.value).startswith(f"it: expected {words}, found ")
            assert str(error.value).isprintable()


def test_what_was_found_is_cut_short():
    with pytest.raises(
        NnliteError, match=r"^lr: expected a finite number above 0, found 'aaaaaaaaaaaa\.\.\.aaaaaaaaaaaaa'$"
    ):
        kinds.expect("lr", kinds.POSITIVE, "a" * 10**6)
    with pytest.raises(NnliteError, match=r"^lr: .*, found a number of too many digits$"):
        kinds.expect("lr", kinds.POSITIVE, HUGE)


def test_choices_are_listed():
    assert kinds.one_of({"a": 1, "b": 2}).choices == ("a", "b")
    assert kinds.POSITIVE.choices == ()


PERSON = {"name": kinds.text(1, 20), "age": kinds.integer(0, 200)}


def test_an_object_is_returned_as_it_is():
    assert kinds.expect_object("person", PERSON, {"age": 3, "name": "Ida"}) == {"age": 3, "name": "Ida"}
    assert kinds.expect_fields("person", PERSON, {"name": 5}, optional=["age"]) == {"name": 5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (3, r"person: expected an object of name, age, found 3"),
        ([], r"person: expected an object of name, age, found \[\]"),
        ({"name": "Ida"}, r"person: .*missing or unknown: \['age'\]"),
        ({"name": "Ida", "age": 3, "dog": 1}, r"person: .*missing or unknown: \['dog'\]"),
        ({"name": "", "age": 3}, r"person: name: expected a text of 1 to 20 printable characters, found ''"),
        ({"name": "Ida", "age": None}, r"person: age: expected an integer from 0 to 200, found None"),
    ],
)
def test_an_object_of_other_fields_is_refused(content, said):
    with pytest.raises(NnliteError, match=f"^{said}$"):
        kinds.expect_object("person", PERSON, content)


def test_an_optional_field_may_be_absent_and_no_other():
    with pytest.raises(NnliteError, match=r"missing or unknown: \['name'\]"):
        kinds.expect_fields("person", PERSON, {}, optional=["age"])
