import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases

from nnlite.errors import NnliteError
from nnlite.evaluation.finite_step import convergence
from nnlite.gradcheck import (
    TOLERANCE,
    Check,
    away_from_kinks,
    check_network,
    check_penalty,
    numerical_gradient,
    relative_error,
)
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp
from nnlite.penalties import L1, L2, L2_NORM, LINF, masked
from nnlite.training.loop import train
from nnlite.training.settings import Settings

PENALTIES = (L1, L2, L2_NORM, LINF)
every_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: penalty.name)


@pytest.mark.once
def test_every_gradient_agrees_with_central_differences_and_both_relu_branches_are_hit():
    branches = Counter()

    @settings(deadline=None, max_examples=150)
    @given(cases())
    def check(case):
        # where a gradient all but cancels, a long step is off by its curvature, or a short one by rounding
        for results in zip(*(check_network(case.net, case.x, case.y, step=step) for step in (1e-4, 1e-5)), strict=True):
            assert min(result.error for result in results) < TOLERANCE, results
        for layer, seen in zip(case.net.layers, case.net.forward(case.x).inputs, strict=True):
            if isinstance(layer, ReLU):
                branches.update((seen > 0).ravel().tolist())

    check()
    assert min(branches[True], branches[False]) > 100


@settings(deadline=None)
@given(cases(min_depth=1))
def test_no_pre_activation_is_left_near_a_kink(case):
    for layer, seen in zip(case.net.layers, case.net.forward(case.x).inputs, strict=True):
        if isinstance(layer, ReLU):
            # the shifts only just clear the margin, so one rounding error may be missing
            assert abs(seen).min() > 0.99e-2


def test_moving_away_from_kinks_leaves_a_net_that_is_clear_as_it_was():
    net = Network((Dense(np.eye(2), np.zeros(2)), ReLU(), Dense(np.eye(2), np.zeros(2))))
    moved = away_from_kinks(net, np.array([[0.5, -0.5]]))
    assert (moved.layers[0].b == 0).all()


class Spoiled(Dense):
    """A Dense layer whose weight gradient is too large by 0.1 %."""

    def gradients(self, x, dy, change=None):
        sound = super().gradients(x, dy, change)
        return {**sound, "W": 1.001 * sound["W"]}


def test_a_fault_stays_in_a_net_that_is_moved_away_from_its_kinks():
    rng = np.random.default_rng(0)
    first, relu, last = biased_mlp([4, 5, 3], rng).layers
    net, x, y = Network((Spoiled(first.W, first.b), relu, last)), rng.random((6, 4)), rng.integers(0, 3, 6)
    failed = [check.name for check in check_network(away_from_kinks(net, x), x, y) if not check.passed]
    assert failed == ["layer 0 W"]


@dataclass(frozen=True, eq=False)
class WrongBackward(Dense):
    """The error it hands down is wrong by 0.1 %."""

    def backward(self, x, dy):
        return 1.001 * super().backward(x, dy)


@dataclass(frozen=True, eq=False)
class WrongWeights(Dense):
    """Its weight gradient is wrong by 0.1 %."""

    def gradients(self, x, dy, change=None):
        grads = super().gradients(x, dy, change)
        return {**grads, "W": 1.001 * grads["W"]}


@dataclass(frozen=True, eq=False)
class WrongBias(Dense):
    """Its bias gradient is wrong by 0.1 %."""

    def gradients(self, x, dy, change=None):
        grads = super().gradients(x, dy, change)
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
    with pytest.raises(NnliteError, match="found a net of float32 and x of float64"):
        check_network(net.astype(np.float32), x, y)
    with pytest.raises(NnliteError, match="found a net of float64 and x of float32"):
        check_network(net, x.astype(np.float32), y)


def test_nan_fails():
    assert not Check("W", (1,), 1, float("nan")).passed


# The exact update of a penalty


@settings(deadline=None, max_examples=50)
@given(cases(), st.sampled_from(PENALTIES))
def test_the_exact_update_of_every_penalty_agrees_with_central_differences(case, penalty):
    values = penalty.value(case.net.run(case.x, case.y).dx)
    assume(values.mean(axis=-1).min() > 1e-3)  # a J that all but cancels has lost its digits
    assume(penalty != L2_NORM or values.min() > 0.1)  # |J| has a tip at 0, and no difference across it is right
    for result in check_penalty(case.net, case.x, case.y, penalty):
        assert result.passed, result


@every_penalty
def test_no_kink_of_a_net_that_was_not_moved_spoils_the_check(penalty):
    # 3 units are dead for some examples, which leaves later pre-activations at exactly 0, on their kink
    rng = np.random.default_rng(5)
    net, x, y = mlp((6, 3, 40, 30, 4), rng, np.float64), rng.random((50, 6)), rng.integers(0, 4, 50)
    assert any((z == 0).any() for z in net.forward(x).inputs[3::2])
    checks = check_penalty(net, x, y, penalty)
    assert [check.name for check in checks] == [f"layer {k} {name}" for k in (0, 2, 4, 6) for name in "Wb"]
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize(("penalty", "row"), [(L1, [1.0, 1.0, 1.0001]), (LINF, [3.0, 1.0, 2.0001])])
def test_a_kink_of_the_penalty_within_the_step_does_not_spoil_the_check(penalty, row):
    # J = W (p - onehot): row 0 nearly has J_0 = 0, or the J_0 of row 1, so a step of 0.005 in W goes across the kink
    W = np.array([row, [3.0, 1.0, 2.0]])
    net, x, y = Network((Dense(W, np.zeros(3)),)), np.array([[0.2, 0.3]]), np.array([0])
    J = net.run(x, y).dx[0]
    assert min(abs(J[0]), abs(J[0] - J[1])) < 1e-4

    def value(a):
        return float(penalty.value(Network((Dense(a, net.layers[0].b),)).run(x, y).dx).mean())

    (check,) = (check for check in check_penalty(net, x, y, penalty) if check.name == "layer 0 W")
    assert check.passed, check
    near, far = (numerical_gradient(value, W, step=step) for step in (1e-7, 5e-3))
    assert relative_error(near, far) > 1e-3


def test_a_derivative_below_the_rounding_of_the_penalty_passes():
    # sure of the wrong class: p rounds to 1, so J and R(J) do not move with the bias
    net = Network((Dense(np.array([[0.1, 0.7]]), np.array([0.0, 40.0])),))
    weight, bias = check_penalty(net, np.array([[1.0]]), np.array([0]), L2)
    assert weight.passed
    assert bias.passed


def test_the_check_of_a_penalty_fails_where_a_rule_is_wrong(monkeypatch):
    net, x, y = _case()
    wrong = replace(L2, gradient=lambda J: 2.00002 * J)
    assert not any(check.passed for check in check_penalty(net, x, y, wrong))
    with monkeypatch.context() as patch:
        patch.setattr(ReLU, "tangent", lambda self, x, change: change)
        assert not any(check.passed for check in check_penalty(net, x, y, L1))
    with monkeypatch.context() as patch:
        patch.setattr(Dense, "add_gradients", None)
        patch.setattr(
            Dense,
            "gradients",
            lambda self, x, dy, change=None: {"W": (x if change is None else change).T @ dy, "b": dy.sum(axis=0)},
        )
        failed = {check.name for check in check_penalty(net, x, y, L1) if not check.passed}
    assert failed == {"layer 0 b", "layer 2 b", "layer 4 b"}
    assert not all(check.passed for check in check_penalty(net, x, y, L1, step=0.5))


# The finite difference against it


def test_the_errors_of_the_finite_difference_by_hand():
    # s = a h1 + c h2 with h1 = relu(x), h2 = relu(x - 1.5), logits (0, s): at x = 1 the second unit is off, and a step
    # of phi = 1 along y = sign(J) = 1 turns it on. Without the ReLUs it is on always.
    a, c, x, phi = 1.0, 2.0, 1.0, (0.25, 1.0)
    net = Network(
        (Dense(np.array([[1.0, 1.0]]), np.array([0, -1.5])), ReLU(), Dense(np.array([[0, a], [0, c]]), np.zeros(2)))
    )

    def gradient(x, on):
        h2 = on * (x - 1.5)
        p = 1 / (1 + math.exp(-(a * x + c * h2)))  # the loss with label 0 is log(1 + exp s), its slope in s is p
        return np.array([a * x, c * x * on, a, c * on, -x, x, -h2, h2, -1, 1]) * p

    def derivative(x, on):
        h2 = on * (x - 1.5)
        p = 1 / (1 + math.exp(-(a * x + c * h2)))
        of_p = np.array([a * x, c * x * on, a, c * on, -x, x, -h2, h2, -1, 1]) * p * (1 - p) * (a + c * on)
        return of_p + np.array([a, c * on, 0, 0, -1, 1, -on, on, 0, 0]) * p

    def finite(phi, before, after):
        return (gradient(x + phi, after) - gradient(x, before)) / phi

    def error(phi, before, after):
        off = finite(phi, before, after) - derivative(x, before)
        return np.linalg.norm(off) / np.linalg.norm(derivative(x, before))

    def cosine(phi, after):
        one, other = finite(phi, 0, after), derivative(x, 0)
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    found = convergence(net, np.array([[x]]), np.array([0]), L1, phi[::-1])
    assert found.phi == phi
    assert found.float64 == pytest.approx([error(0.25, 0, 0), error(1.0, 0, 1)], rel=1e-12)
    assert found.float32 == pytest.approx(found.float64, rel=1e-5)
    assert found.cosine == pytest.approx([cosine(0.25, 0), cosine(1.0, 1)], rel=1e-12)
    assert found.held == pytest.approx([error(0.25, 0, 0), error(1.0, 0, 0)], rel=1e-12)
    assert found.smooth == pytest.approx([error(0.25, 1, 1), error(1.0, 1, 1)], rel=1e-12)
    assert found.slope(found.float64) == pytest.approx([math.log(error(1.0, 0, 1) / error(0.25, 0, 0)) / math.log(4)])
    assert (found.flips.tolist(), found.relus, found.share.tolist()) == ([0, 1], 2, [0, 0.5])
    assert found.exact32 < 1e-6


@every_penalty
def test_without_its_relus_a_net_has_slope_1(penalty):
    net, x, y = _case()
    found = convergence(net, x, y, penalty, (1e-5, 1e-4, 1e-3))
    assert found.slope(found.smooth) == pytest.approx([1, 1], abs=0.05)


@every_penalty
def test_with_its_relus_held_a_net_has_slope_1_where_they_would_change_side(penalty):
    rng = np.random.default_rng(0)
    net, x, y = biased_mlp([6, 40, 40, 3], rng), rng.random((20, 6)), rng.integers(0, 3, 20)  # nothing keeps from kinks
    found = convergence(net, x, y, penalty, (1e-5, 1e-3, 1e-2))
    assert found.flips[-1] > 0
    assert found.slope(found.held) == pytest.approx([1, 1], abs=0.05)
    assert found.float64[-1] > 2 * found.held[-1]
    assert found.float64[0] == pytest.approx(found.held[0], rel=1e-6)


def test_with_its_relus_a_net_has_slope_1_until_the_first_changes_side():
    net, x, y = _case()
    found = convergence(net, x, y, L1, (1e-5, 1e-4, 1e-3, 0.3))
    assert found.flips[:3].tolist() == [0, 0, 0]
    assert found.flips[3] > 0
    assert found.slope(found.float64)[:2] == pytest.approx([1, 1], abs=0.05)
    assert found.float32[0] > 100 * found.float64[0]  # the step of 1e-5 drowns in the rounding of float32


@every_penalty
def test_the_relus_that_change_side_are_counted_one_by_one(penalty):
    rng = np.random.default_rng(3)
    net, x, y = biased_mlp([6, 9, 8, 3], rng), rng.random((5, 6)), rng.integers(0, 3, 5)
    found = convergence(net, x, y, penalty, (0.1, 1.0))
    for phi, flips in zip(found.phi, found.flips, strict=True):
        count = 0
        for image, label in zip(x, y, strict=True):
            J = net.run(image[None], np.array([label])).dx
            h, moved = image, image + phi * penalty.gradient(J)[0]
            for dense in (net.layers[0], net.layers[2]):
                z, after = h @ dense.W + dense.b, moved @ dense.W + dense.b
                count += sum((a > 0) != (b > 0) for a, b in zip(z, after, strict=True))
                h, moved = np.maximum(z, 0), np.maximum(after, 0)
        assert flips == count
    assert found.relus == 5 * (9 + 8)
    assert 0 < found.flips[1] < found.relus


def test_the_exact_update_holds_in_float32_on_a_trained_net(digits):
    net = train(Settings(hidden=(50, 50, 50), epochs=20), digits).net
    x, y = digits.test.batch(slice(0, 50))
    for penalty in PENALTIES:
        found = convergence(net.astype(np.float64), x.astype(np.float64), y, penalty, (0.1,))
        assert 1e-8 < found.exact32 < 1e-3


def test_a_net_without_hidden_layers_has_no_relu_to_change():
    rng = np.random.default_rng(0)
    found = convergence(biased_mlp([6, 3], rng), rng.random((4, 6)), np.array([0, 1, 2, 0]), L2)
    assert (found.relus, found.share.tolist()) == (0, [0.0] * len(found.phi))
    assert (found.float64 == found.smooth).all()
    assert len(found.phi) == 13
    assert all(a < b for a, b in pairwise(found.phi))


@pytest.mark.parametrize("phi", [(), (0.0,), (0.1, -0.1), (math.nan,), (2.0,), (0.9e-7,)])
def test_a_phi_that_is_no_step_is_refused(phi):
    net, x, y = _case()
    with pytest.raises(NnliteError, match="phi: expected steps"):
        convergence(net, x, y, L1, phi)


def test_where_the_derivative_is_0_there_is_nothing_to_compare():
    net, x, y = _case()
    dead = Network((Dense(net.layers[0].W, net.layers[0].b - 100), *net.layers[1:]))
    with pytest.raises(NnliteError, match="derivative other than 0"):
        convergence(dead, x, y, L1)


@pytest.mark.parametrize("check", [check_penalty, convergence])
def test_float32_is_refused_for_a_penalty(check):
    net, x, y = _case()
    with pytest.raises(NnliteError, match="float64"):
        check(net.astype(np.float32), x, y, L1)


# Parts


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


@pytest.mark.parametrize("seed", range(20))
def test_a_masked_penalty_is_held_where_the_penalty_is(seed):
    rng = np.random.default_rng(seed)
    net = mlp((64, 50, 50, 10), rng, np.float64)
    x, y = rng.random((20, 64)), rng.integers(0, 10, 20)
    for penalty in (L1, masked(L1, np.ones(64)), masked(LINF, np.linspace(0, 2, 64))):
        assert all(check.passed for check in check_penalty(net, x, y, penalty, directions=1))
