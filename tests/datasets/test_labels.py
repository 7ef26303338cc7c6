"""Labels of any kind become 0, 1, ... in sorted order."""

import numpy as np
import pytest
from sklearn.preprocessing import LabelEncoder

from nnlite.datasets.labels import match_labels, number_labels, number_texts
from nnlite.errors import NnliteError


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 9, -1], ("-1", "9", "10")),
        ([2.0, 0.0, 2.0], ("0", "2")),
        ([True, False], ("False", "True")),
        (["b", "a", "b", "A"], ("A", "a", "b")),
        (np.array([3, 200], np.uint8), ("3", "200")),
    ],
)
def test_classes_are_sorted_and_named(labels, names):
    found, numbers = number_labels(np.asarray(labels))
    assert found == names
    assert numbers.dtype == np.int64
    assert numbers.tolist() == LabelEncoder().fit_transform(labels).tolist()


@pytest.mark.parametrize(
    ("texts", "names"), [(["10", "9"], ("9", "10")), (["1.0", "1", "2"], ("1", "2")), (["x10", "x9"], ("x10", "x9"))]
)
def test_texts_that_are_all_numbers_are_sorted_as_numbers(texts, names):
    found, numbers = number_texts(texts, np.arange(len(texts)), "labels")
    assert found == names
    assert [names[k] for k in numbers] == [text.removesuffix(".0") for text in texts]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.eye(3), r"found \(3, 3\); try labels.argmax\(axis=1\) of one-hot rows"),
        (np.zeros((3, 1)), r"found \(3, 1\); try labels.ravel\(\) of a single column"),
        (np.array([0.5, 1]), "expected classes, found the number 0.5"),
        (np.array([np.nan, 1]), "found NaN or infinity"),
        (np.array([1, 1, 1]), "expected two classes or more, found 1"),
        (np.array([1j, 2]), "found dtype complex128"),
        (np.arange(1001), "at most 1,000 classes, found 1,001; is this the column of labels"),
        (np.array(["a", ""]), "a class: expected a text of 1 to 200"),
        (np.array(["a", "\x1b[2J"]), r"a class: expected .*, found '\\x1b"),
    ],
)
def test_what_are_no_labels_is_said(labels, words):
    with pytest.raises(NnliteError, match=words):
        number_labels(labels)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["3", "3.0", "4", "5", ""], ("3", "4"), [0, 0, 1, -1, -1]),
        ([3.0, 4.0, np.nan, 3.5], ("3", "4"), [0, 1, -1, -1]),
        ([True, False], ("False", "True"), [1, 0]),
        (["True", "true"], ("False", "True"), [1, -1]),
        ([" a", "nan", "inf", "b"], ("a", "b"), [0, -1, -1, 1]),
        (["1e2", "-1"], ("-1", "100"), [1, 0]),
    ],
)
def test_labels_of_new_rows_are_found_among_the_classes(labels, classes, numbers):
    assert match_labels(np.array(labels), classes).tolist() == numbers
