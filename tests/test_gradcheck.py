from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from nets import biased_mlp, cases

from nnlite.errors import NnliteError
from nnlite.gradcheck import TOLERANCE, Check, away_from_kinks, check_network, numerical_gradient, relative_error
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp


def test_every_gradient_agrees_with_central_differences_and_both_relu_branches_are_hit():
    branches = Counter()

    @settings(deadline=None, max_examples=150)
    @given(cases())
    def check(case):
        for result in check_network(case.net, case.x, case.y):
            assert result.error < TOLERANCE, result
        for layer, seen in zip(case.net.layers, case.net.forward(case.x), strict=True):
            if isinstance(layer, ReLU):
                branches.update((seen > 0).ravel().tolist())

    check()
    assert min(branches[True], branches[False]) > 100


@settings(deadline=None)
@given(cases(min_depth=1))
def test_no_pre_activation_is_left_near_a_kink(case):
    for layer, seen in zip(case.net.layers, case.net.forward(case.x), strict=True):
        if isinstance(layer, ReLU):
            # the shifts only just clear the margin, so one rounding error may be missing
            assert abs(seen).min() > 0.99e-2


def test_moving_away_from_kinks_leaves_a_net_that_is_clear_as_it_was():
    net = Network((Dense(np.eye(2), np.zeros(2)), ReLU(), Dense(np.eye(2), np.zeros(2))))
    moved = away_from_kinks(net, np.array([[0.5, -0.5]]))
    assert (moved.layers[0].b == 0).all()


@dataclass(frozen=True, eq=False)
class WrongBackward(Dense):
    """The error it hands down is wrong by 0.1 %."""

    def backward(self, x, dy):
        return 1.001 * super().backward(x, dy)


@dataclass(frozen=True, eq=False)
class WrongWeights(Dense):
    """Its weight gradient is wrong by 0.1 %."""

    def gradients(self, x, dy):
        grads = super().gradients(x, dy)
        return {**grads, "W": 1.001 * grads["W"]}


@dataclass(frozen=True, eq=False)
class WrongBias(Dense):
    """Its bias gradient is wrong by 0.1 %."""

    def gradients(self, x, dy):
        grads = super().gradients(x, dy)
        return {**grads, "b": 1.001 * grads["b"]}


@pytest.mark.parametrize(
    ("wrong", "caught"),
    [
        (WrongBackward, {"input x", "layer 0 W", "layer 0 b"}),
        (WrongWeights, {"layer 2 W"}),
        (WrongBias, {"layer 2 b"}),
    ],
)
def test_a_rule_wrong_by_a_thousandth_fails_where_it_is_wrong(wrong, caught):
    net, x, y = _case()
    layers = list(net.layers)
    layers[2] = wrong(**layers[2].parameters)
    failed = {check.name for check in check_network(Network(tuple(layers)), x, y) if not check.passed}
    assert failed == caught


def test_a_coarse_step_fails():
    net, x, y = _case()
    assert not all(check.passed for check in check_network(net, x, y, step=0.1))


def test_float32_is_refused():
    net, x, y = _case()
    with pytest.raises(NnliteError, match="float64"):
        check_network(net.astype(np.float32), x, y)


def test_nan_fails():
    assert not Check("W", (1,), 1, float("nan")).passed


def test_large_arrays_are_sampled():
    rng = np.random.default_rng(0)
    x = rng.random((3, 40))
    checks = check_network(away_from_kinks(mlp((40, 30, 5), rng, np.float64), x), x, np.array([0, 1, 2]), entries=20)
    assert {check.name: check.entries for check in checks} == {
        "input x": 20,
        "layer 0 W": 20,
        "layer 0 b": 20,
        "layer 2 W": 20,
        "layer 2 b": 5,
    }
    assert all(check.passed for check in checks)


def test_numerical_gradient_of_a_cubic():
    array = np.array([[1.0, 2.0], [-1.0, 0.5]])
    assert numerical_gradient(lambda a: float((a**3).sum()), array) == pytest.approx((3 * array**2).ravel(), rel=1e-7)
    assert array.tolist() == [[1.0, 2.0], [-1.0, 0.5]]


def test_relative_error():
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.0])) == 0
    assert relative_error(np.array([0.0, 4.0]), np.array([0.0, 5.0])) == pytest.approx(0.2)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0


def _case():
    rng = np.random.default_rng(1)
    x = rng.random((4, 6))
    return away_from_kinks(biased_mlp([6, 5, 4, 3], rng), x), x, np.array([0, 1, 2, 0])
