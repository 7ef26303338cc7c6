"""The interval of one accuracy, against SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nnlite.errors import NnliteError
from nnlite.evaluation.intervals import wilson


@given(st.integers(1, 20_000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_the_interval_is_scipys(counted):
    correct, images = counted
    expected = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    found = wilson(100 * correct / images, images)
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), rel=1e-9, abs=1e-9)
    assert 0 <= found.low <= 100 * correct / images <= found.high <= 100
    assert found.low < found.high


def test_many_accuracies_have_an_interval_each():
    accuracy = np.array([[0.0, 12.5], [99.6, 100.0]])
    low, high = wilson(accuracy, 500)
    for at in np.ndindex(2, 2):
        assert (low[at], high[at]) == wilson(accuracy[at], 500)


def test_at_the_ends_the_interval_has_a_width():
    """All of n images: the lower limit is n / (n + 1.96^2), Wilson's own closed form there."""
    assert wilson(100.0, 500) == pytest.approx((100 * 500 / (500 + 1.959964**2), 100))
    assert wilson(0.0, 500) == pytest.approx((0, 100 * 1.959964**2 / (500 + 1.959964**2)))
    for images in range(1, 500):  # where rounding would pass the end in every fourth case
        assert (wilson(0.0, images).low, wilson(100.0, images).high) == (0, 100)


@pytest.mark.parametrize(
    ("accuracy", "images"), [(-0.1, 10), (100.1, 10), (np.nan, 10), (50.0, 0), (np.array([1, 101]), 9)]
)
def test_what_is_no_percentage_of_images_is_refused(accuracy, images):
    with pytest.raises(NnliteError, match=r"accuracy: expected 0 to 100 % of one or more images, found .* of \d+"):
        wilson(accuracy, images)
