"""Scaling, against scikit-learn's MinMaxScaler."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler

from nnlite.datasets import scaling
from nnlite.datasets.scaling import column_range, pixel_range, scale
from nnlite.errors import NnliteError


@given(st.integers(0, 50), st.sampled_from([np.float32, np.float64, np.int16]), st.sampled_from([1, 7, 4096]))
def test_tables_are_scaled_as_scikit_learn_does(seed, dtype, block):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(40, 5)) * [1, 10, 100, 1000, 0] + [0, 5, -5, 100, 7]).astype(dtype)
    train = np.sort(rng.permutation(40)[:20])
    scaler = MinMaxScaler().fit(values[train].astype(np.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "BLOCK", block)
        low, high = column_range(values, train)
        scaled, beyond = scale(values, low, high)
    assert low.tolist() == scaler.data_min_.tolist()
    assert high.tolist() == scaler.data_max_.tolist()
    np.testing.assert_allclose(scaled, scaler.transform(values.astype(np.float64)), atol=1e-7)
    assert scaled.dtype == np.float32
    assert beyond.tolist() == [bool(((row < low) | (row > high)).any()) for row in values]


def test_a_large_offset_costs_no_digits():
    seconds = 1.6e9 + np.arange(5.0)[:, None]  # in float32 all five would be one number
    assert scale(seconds, seconds[0], seconds[-1])[0].ravel().tolist() == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 3], np.uint8), (0, 255)),
        ([0.0, 1.0], (0, 1)),
        ([0.25, 0.5], (0, 1)),
        ([-1.0, 0.5], (-1, 1)),
        ([0.0, 254.0], (0, 255)),
    ],
)
def test_pixels_have_one_of_the_usual_ranges(values, expected):
    assert pixel_range([np.asarray(values)]) == expected


@pytest.mark.parametrize("values", [[-2.0, 3.0], [0, 65535]])
def test_another_range_is_refused(values):
    with pytest.raises(NnliteError, match=r"expected pixels in one of \[0, 1\], .*; rescale them"):
        pixel_range([np.array(values)])
