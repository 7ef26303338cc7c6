import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnlite.losses import softmax_cross_entropy

logits_of_one = hnp.arrays(np.float64, st.integers(1, 9).map(lambda n: (3, n)), elements=st.floats(-50, 50))


@given(logits_of_one)
def test_loss_and_error_agree_with_scipy(logits):
    y = np.arange(3) % logits.shape[-1]
    loss, dlogits = softmax_cross_entropy(logits, y)
    assert loss == pytest.approx(-scipy.special.log_softmax(logits, axis=-1)[np.arange(3), y], rel=1e-9, abs=1e-15)
    expected = scipy.special.softmax(logits, axis=-1) - np.eye(logits.shape[-1])[y]
    assert dlogits == pytest.approx(expected, abs=1e-14)


@given(logits_of_one, st.floats(-1e3, 1e3))
def test_a_constant_added_to_all_logits_changes_nothing(logits, constant):
    y = np.zeros(3, int)
    before, after = softmax_cross_entropy(logits, y), softmax_cross_entropy(logits + constant, y)
    assert after[0] == pytest.approx(before[0], rel=1e-9, abs=1e-9)
    assert after[1] == pytest.approx(before[1], abs=1e-9)


def test_each_error_sums_to_0():
    _, dlogits = softmax_cross_entropy(np.random.default_rng(0).normal(size=(50, 10)) * 30, np.arange(50) % 10)
    assert abs(dlogits.sum(axis=-1)).max() < 1e-15


def test_huge_logits_neither_overflow_nor_turn_into_nan():
    loss, dlogits = softmax_cross_entropy(np.array([[1e30, 0.0, -1e30]], np.float32), np.array([2]))
    assert loss[0] == pytest.approx(2e30)
    assert dlogits.tolist() == [[1.0, 0.0, -1.0]]


def test_equal_logits_cost_log_10():
    loss, _ = softmax_cross_entropy(np.zeros((1, 10)), np.array([3]))
    assert loss[0] == pytest.approx(np.log(10), rel=1e-15)


def test_a_confident_example_keeps_its_digits_in_float32():
    # p of the true class is 1 - 2e-11, which float32 rounds to 1: p - 1 would be 0 and so would the loss
    logits = np.array([[25.0, 0.0, -1.0]])
    y = np.array([0])
    loss, dlogits = softmax_cross_entropy(logits.astype(np.float32), y)
    exact_loss, exact_dlogits = softmax_cross_entropy(logits, y)
    assert loss == pytest.approx(exact_loss, rel=1e-6)
    assert dlogits == pytest.approx(exact_dlogits, rel=1e-6)
    assert dlogits[0, 0] < 0


def test_a_stack_shares_labels_or_has_its_own():
    logits = np.random.default_rng(0).normal(size=(2, 5, 4))
    shared, own = np.array([0, 1, 2, 3, 0]), np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 3]])
    for k in range(2):
        for y, y_k in ((shared, shared), (own, own[k])):
            loss, dlogits = softmax_cross_entropy(logits, y)
            loss_k, dlogits_k = softmax_cross_entropy(logits[k], y_k)
            assert (loss[k] == loss_k).all()
            assert (dlogits[k] == dlogits_k).all()
