from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import cases

from nnlite.layers import Dense, ReLU, add_gradients


def test_a_dense_layer_by_hand():
    layer = Dense(W=np.array([[1.0, 2.0], [3.0, 4.0]]), b=np.array([10.0, 20.0]))
    x, dy = np.array([[1.0, -1.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    # first row: (1 - 3 + 10, 2 - 4 + 20); second row: (6 + 10, 8 + 20)
    assert layer.forward(x).tolist() == [[8.0, 18.0], [16.0, 28.0]]
    # the error (1, 0) reaches the inputs through column 0 of W, (0, 1) through column 1
    assert layer.backward(x, dy).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    grads = layer.gradients(x, dy)
    assert grads["W"].tolist() == [[1.0, 0.0], [-1.0, 2.0]]
    assert grads["b"].tolist() == [1.0, 1.0]


def test_a_change_is_carried_forward_without_the_bias():
    layer = Dense(W=np.array([[1.0, 2.0], [3.0, 4.0]]), b=np.array([10.0, 20.0]))
    x, change = np.array([[1.0, -1.0]]), np.array([[0.5, 2.0]])
    assert layer.tangent(x, change).tolist() == [[6.5, 9.0]]


def test_a_gradient_moves_with_x_and_that_of_the_bias_does_not():
    layer = Dense(W=np.zeros((2, 2)), b=np.zeros(2))
    x, dy, change = np.array([[7.0, 7.0]]), np.array([[10.0, 20.0]]), np.array([[5.0, -1.0]])
    # dW = x^T dy, so it moves by change^T dy; the bias sees a constant 1
    moved = layer.gradients(x, dy, change)
    assert moved["W"].tolist() == [[50.0, 100.0], [-10.0, -20.0]]
    assert moved["b"].tolist() == [0.0, 0.0]


def test_relu_has_derivative_0_at_0():
    x = np.array([[-1.0, 0.0, 2.0]])
    assert ReLU().forward(x).tolist() == [[0.0, 0.0, 2.0]]
    assert ReLU().backward(x, np.full((1, 3), 5.0)).tolist() == [[0.0, 0.0, 5.0]]
    assert ReLU().tangent(x, np.array([[7.0, -7.0, -7.0]])).tolist() == [[0.0, 0.0, -7.0]]


def test_the_layer_itself_never_changes_only_the_numbers_in_its_arrays():
    layer = Dense(W=np.zeros((2, 2)), b=np.zeros(2))
    with pytest.raises(FrozenInstanceError):
        layer.W = np.ones((2, 2))
    assert ReLU() == ReLU()
    assert len({ReLU(), ReLU()}) == 1


@settings(deadline=None)
@given(cases())
def test_no_layer_changes_what_it_is_given(case):
    x = case.x
    for layer in case.net.layers:
        seen = x.copy()
        y = layer.forward(x)
        dy = np.ones_like(y)
        layer.backward(x, dy)
        layer.tangent(x, x)
        assert (x == seen).all()
        assert (dy == 1).all()
        x = y


@settings(deadline=None)
@given(cases(), st.booleans())
def test_what_is_added_is_what_is_formed(case, moves):
    net, x, _ = case
    layer, rng = net.layers[0], np.random.default_rng(0)
    dy = rng.standard_normal(layer.forward(x).shape)
    change = (rng.standard_normal(x.shape),) if moves else ()
    into = {name: rng.standard_normal(array.shape) for name, array in layer.parameters.items()}
    formed, expected = layer.gradients(x, dy, *change), {name: array.copy() for name, array in into.items()}
    layer.add_gradients(into, 0.3, x, dy, *change)
    for name, array in into.items():
        assert array == pytest.approx(expected[name] + 0.3 * formed[name], rel=1e-9, abs=1e-9)


def test_the_gradients_of_a_subclass_are_what_is_added():
    class Half(Dense):
        def gradients(self, x, dy, change=None):
            return {name: array / 2 for name, array in super().gradients(x, dy, change).items()}

    class Same(Dense):
        pass

    x, dy = np.array([[4.0, 6.0]]), np.array([[10.0]])
    found = []
    for kind in (Dense, Same, Half, type("Quarter", (Half,), {"gradients": Half.gradients})):
        layer = kind(np.zeros((2, 1)), np.zeros(1))
        add_gradients(layer, layer.parameters, 1.0, x, dy)
        found.append(layer.W[0, 0])
    assert found == [40.0, 40.0, 20.0, 20.0]


def test_gradients_are_added_to_what_is_there_and_scaled():
    layer = Dense(np.zeros((2, 1)), np.zeros(1))
    into = {"W": np.array([[1.0], [2.0]]), "b": np.array([3.0])}
    layer.add_gradients(into, -0.5, np.array([[4.0, 6.0]]), np.array([[10.0]]))
    assert into["W"].tolist() == [[1.0 - 20], [2.0 - 30]]
    assert into["b"].tolist() == [3.0 - 5]


def test_a_relu_has_no_parameters():
    assert ReLU().parameters == {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_keep_the_dtype(dtype):
    layer = Dense(np.ones((3, 2), dtype), np.ones(2, dtype))
    x, dy = np.ones((4, 3), dtype), np.ones((4, 2), dtype)
    arrays = [layer.forward(x), layer.backward(x, dy), layer.tangent(x, x), *layer.gradients(x, dy).values()]
    arrays += [ReLU().forward(x), ReLU().backward(x, x), ReLU().tangent(x, x)]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
