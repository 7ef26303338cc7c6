import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnlite.gradcheck import numerical_gradient
from nnlite.layers import Dense, ReLU
from nnlite.network import Network
from nnlite.penalties import L1, L2, add_weight_penalty

# away from 0, where the L1 penalty has its kink
entries = st.floats(0.01, 10).flatmap(lambda size: st.sampled_from([size, -size]))


@pytest.mark.parametrize("penalty", [L1, L2])
@given(a=hnp.arrays(np.float64, (3, 4), elements=entries))
def test_the_gradient_is_that_of_the_value(penalty, a):
    numeric = numerical_gradient(lambda array: float(penalty.value(array).sum()), a)
    assert penalty.gradient(a).ravel() == pytest.approx(numeric, rel=1e-6)


def test_the_paper_s_values_and_gradients():
    a = np.array([[3.0, -4.0, 0.0], [0.5, 0.0, -1.0]])
    assert L1.value(a).tolist() == [7.0, 1.5]
    assert L1.gradient(a).tolist() == [[1, -1, 0], [1, 0, -1]]
    assert L2.value(a).tolist() == [25.0, 1.25]
    assert L2.gradient(a).tolist() == [[6, -8, 0], [1, 0, -2]]


@pytest.mark.parametrize(("penalty", "expected"), [(L1, [[2.0], [-2.0]]), (L2, [[2.0 * 6], [-2.0 * 8]])])
def test_the_classical_penalty_stands_beside_the_batch_sum(penalty, expected):
    net = Network((Dense(np.array([[3.0], [-4.0]]), np.array([5.0])), ReLU()))
    grads = [{"W": np.zeros((2, 1)), "b": np.array([7.0])}, {}]
    # lambda 200 in a batch of 100 examples weighs 2 beside the mean; the bias is free
    added = add_weight_penalty(grads, net, penalty, 200.0, 100)
    assert added[0]["W"].tolist() == expected
    assert added[0]["b"].tolist() == [7.0]
    assert added[1] == {}
    assert grads[0]["W"].tolist() == [[0.0], [0.0]]
