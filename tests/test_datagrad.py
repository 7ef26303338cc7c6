import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases

from nnlite.attacks import input_gradient
from nnlite.datagrad import Term, clean_weight, weighted_passes
from nnlite.gradcheck import numerical_gradient, relative_error
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, stack
from nnlite.penalties import L1, L2

penalties = st.sampled_from([L1, L2])
STEP = 1e-5  # one float64 gradient of norm 1 or so: rounding 1e-11, truncation less


def test_datagrad_by_hand():
    # one input, two classes, logits (0, x log 3): softmax is (1/4, 3/4) at x = 1 and (1/10, 9/10) at x = 2
    net = Network((Dense(np.array([[0.0, math.log(3)]]), np.zeros(2)),))
    x, y = np.array([[1.0]]), np.array([0])
    # the error at x = 1 is (-3/4, 3/4), so dx = 3/4 log 3 > 0 and phi = 1 leads to x_hat = 2
    (c0, clean), (c1, shifted) = weighted_passes(net, x, y, [Term(L1, lam=0.5, phi=1.0)])
    assert (c0, c1) == (0.5, 0.5)
    assert clean.dx.item() == pytest.approx(0.75 * math.log(3))
    assert shifted.inputs[0].item() == 2.0
    (grad,) = net.gradients([(c0, clean), (c1, shifted)])
    # dW = 1/2 * 1 * (-3/4, 3/4) + 1/2 * 2 * (-9/10, 9/10), db the same without the factors x
    assert grad["W"][0] == pytest.approx([-1.275, 1.275])
    assert grad["b"] == pytest.approx([-0.825, 0.825])


@settings(deadline=None)
@given(cases(classes=st.integers(2, 9)), penalties, st.floats(0.001, 0.2), st.floats(0.5, 1.5))
def test_the_update_is_the_gradient_of_the_surrogate_with_frozen_direction(case, penalty, lam, lam0):
    net, x, y = case
    phi = 0.1
    moved = x + phi * penalty.gradient(input_gradient(net, x, y))
    assume(_distance_from_kinks(net, moved) > 1e-3)

    def surrogate(changed):
        weight = lam / phi
        return (lam0 - weight) * _mean_loss(changed, x, y) + weight * _mean_loss(changed, moved, y)

    analytic = _flat(net.gradients(weighted_passes(net, x, y, [Term(penalty, lam, phi)], lam0)))
    assume(np.linalg.norm(analytic) > 1e-2)  # below that the difference quotient itself has no 7 digits
    assert relative_error(analytic, _numerical(surrogate, net)) < 1e-7


def test_several_terms_add_up_as_in_equation_4():
    net, x, y = _case()
    terms = [Term(L1, 0.01, 0.1), Term(L2, 0.02, 0.05)]
    assert clean_weight(terms, lam0=2.0) == pytest.approx(2 - 0.1 - 0.4)
    dx = input_gradient(net, x, y)
    points = [(1.5, x), (0.1, x + 0.1 * np.sign(dx)), (0.4, x + 0.05 * 2 * dx)]
    expected = sum(weight * _flat(net.gradients([(1.0, net.run(point, y))])) for weight, point in points)
    assert _flat(net.gradients(weighted_passes(net, x, y, terms, lam0=2.0))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("penalty", [L1, L2])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_the_finite_difference_converges_to_the_derivative_of_the_penalty(penalty, hidden):
    # without a ReLU between them the layers are smooth, and the forward difference has slope 1
    net, x, y = _case(hidden)
    net = Network(tuple(layer for layer in net.layers if not isinstance(layer, ReLU)))
    exact = _numerical(lambda changed: float(penalty.value(input_gradient(changed, x, y)).mean()), net)
    errors = []
    for phi in (1e-2, 1e-3, 1e-4):
        # lambda0 = lambda = phi leaves (g(x_hat) - g(x)) after dividing by phi
        passes = weighted_passes(net, x, y, [Term(penalty, phi, phi)], lam0=0.0)
        errors.append(relative_error(_flat(net.gradients(passes)) / phi, exact))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


@settings(deadline=None)
@given(cases(), penalties)
def test_lambda_0_is_plain_training_bit_for_bit(case, penalty):
    net, x, y = case
    plain = net.gradients(weighted_passes(net, x, y))
    with_term = net.gradients(weighted_passes(net, x, y, [Term(penalty, 0.0, 0.1)]))
    assert (_flat(plain) == _flat(with_term)).all()
    assert (_flat(plain) == _flat(net.gradients([(1.0, net.run(x, y))]))).all()


@settings(deadline=None)
@given(cases(), penalties)
def test_the_update_does_not_depend_on_the_batch_size(case, penalty):
    net, x, y = case
    terms = [Term(penalty, 0.01, 0.1)]
    whole = _flat(net.gradients(weighted_passes(net, x, y, terms)))
    n = x.shape[-2]
    rows = [(x[..., i : i + 1, :], y[..., i : i + 1]) for i in range(n)]
    single = [_flat(net.gradients(weighted_passes(net, x_i, y_i, terms))) for x_i, y_i in rows]
    assert whole == pytest.approx(sum(single) / n, rel=1e-9, abs=1e-12)


def test_a_stack_with_lambda_and_phi_of_its_own_equals_its_models():
    rng = np.random.default_rng(0)
    nets = [biased_mlp([6, 5, 4, 3], rng) for _ in range(3)]
    x, y = rng.random((4, 6)), np.array([0, 1, 2, 0])
    lam, phi = np.array([0.01, 0.0, 0.1]), np.array([0.1, 0.05, 0.01])
    net = stack(nets)
    together = net.gradients(weighted_passes(net, x, y, [Term(L1, lam, phi)]))
    for k, one in enumerate(nets):
        alone = one.gradients(weighted_passes(one, x, y, [Term(L1, lam[k], phi[k])]))
        for grad, grad_k in zip(together, alone, strict=True):
            for name in grad:
                assert grad[name][k] == pytest.approx(grad_k[name], rel=1e-10, abs=1e-14)


def test_plain_training_forms_no_input_gradient():
    net, x, y = _case()
    ((weight, clean),) = weighted_passes(net, x, y)
    assert weight == 1.0
    assert clean.input_gradient is None


def test_the_inputs_are_left_as_they_were():
    net, x, y = _case()
    before = x.copy()
    net.gradients(weighted_passes(net, x, y, [Term(L2, 0.01, 0.1)]))
    assert (x == before).all()


def _case(hidden=(5, 4)):
    rng = np.random.default_rng(1)
    return biased_mlp([6, *hidden, 3], rng), rng.random((4, 6)), np.array([0, 1, 2, 0])


def _mean_loss(net, x, y):
    return float(net.run(x, y, input_gradient=False).loss.mean(axis=-1).sum())


def _distance_from_kinks(net, x):
    seen = [abs(z).min() for layer, z in zip(net.layers, net.forward(x), strict=True) if isinstance(layer, ReLU)]
    return min(seen, default=np.inf)


def _flat(grads):
    return np.concatenate([array.ravel() for grad in grads for array in grad.values()])


def _numerical(function, net):
    """Return the central differences of function(net) for all parameters of `net`, in the order of _flat."""
    slopes = []
    for k, layer in enumerate(net.layers):
        for name, array in layer.parameters.items():

            def changed(value, k=k, name=name, layer=layer):
                replaced = type(layer)(**{**layer.parameters, name: value})
                return function(Network((*net.layers[:k], replaced, *net.layers[k + 1 :])))

            slopes.append(numerical_gradient(changed, array, step=STEP))
    return np.concatenate(slopes)
