"""The exact update of Eq. 2, a Term without phi: by hand, against central differences, and against another engine."""

import math

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases, distance_from_kinks, flat, gradient_error

from nnlite.datagrad import Term, weighted_passes
from nnlite.datasets.catalog import load
from nnlite.gradcheck import relative_error
from nnlite.init import generator
from nnlite.layers import Dense
from nnlite.network import Network, mlp
from nnlite.penalties import L1, L2, L2_NORM, LINF, masked
from nnlite.sgd import sgd_step

PENALTIES = (L1, L2, L2_NORM, LINF)
NAMES = [penalty.name for penalty in PENALTIES]


def update(net, x, y, terms, **weights):
    return net.gradients(weighted_passes(net, x, y, terms, **weights))


def test_the_exact_update_by_hand():
    # logits (0, w x) with w = log 3 at x = 1: the loss of class 0 has J = s w with s = 3/4 and ds/d(w x) = s (1 - s)
    w, s = math.log(3), 0.75
    net = Network((Dense(np.array([[0.0, w]]), np.zeros(2)),))
    (grad,) = update(net, np.array([[1.0]]), np.array([0]), [Term(L1, 1.0, None)], lam0=0.0)
    # d|J|/dw = s + s (1 - s) w x, d|J|/db = s (1 - s) w; the other class's are minus these
    assert grad["W"][0] == pytest.approx([-(s + s * (1 - s) * w), s + s * (1 - s) * w], rel=1e-14)
    assert grad["b"] == pytest.approx([-s * (1 - s) * w, s * (1 - s) * w], rel=1e-14)


def mean_loss(x, y, task):
    """Return the function net -> batch mean of the loss, one for each model."""
    return lambda net: net.run(x, y, task=task, input_gradient=False).loss.mean(axis=-1)


def mean_penalty(net, x, y, task, penalty):
    """Return the function net -> batch mean of R(J), one for each model, for nets very near to `net`."""
    direction = penalty.gradient(net.run(x, y, task=task).dx)

    def mean(changed):
        J = changed.run(x, y, task=task).dx
        # where the direction jumps R has no derivative: a sign has changed, or another entry is the largest
        assume(abs(penalty.gradient(J) - direction).max() < 1e-3)
        return penalty.value(J).mean(axis=-1)

    return mean


@pytest.mark.parametrize("mask", [False, True], ids=["all features", "masked"])
@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
@settings(deadline=None, max_examples=25)
@given(case=cases(classes=st.integers(2, 9)))
def test_the_exact_update_is_the_gradient_of_the_mean_penalty(penalty, mask, case):
    net, x, y = case
    if mask:
        penalty = masked(penalty, np.random.default_rng(0).choice([0.0, 0.5, 2.0], x.shape[-1]))
    mean = mean_penalty(net, x, y, "digit", penalty)
    grads = update(net, x, y, [Term(penalty, 1.0, None)], lam0=0.0)
    assert gradient_error(lambda changed: mean(changed).sum(), net, grads) < 1e-6


@st.composite
def drawn_terms(draw, models):
    """Draw one to three terms, exact and finite, on either head; lambda is a number or one for each model."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [
        Term(
            draw(st.sampled_from(PENALTIES)),
            rng.random(models) if draw(st.booleans()) and models else rng.random(),
            draw(st.sampled_from([None, 0.1])),
            draw(st.sampled_from(["digit", "rotation"])),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]


@settings(deadline=None, max_examples=60)
@given(st.data(), cases(classes=st.integers(2, 9), heads=True), st.floats(0, 1.5), st.floats(0.25, 0.75))
def test_several_terms_exact_and_finite_on_two_heads_add_up_to_equation_1(data, case, lam0, gamma):
    net, x, y = case
    terms = data.draw(drawn_terms(net.layers[0].W.shape[:-2]))
    parts = [(lam0, mean_loss(x, y["digit"], "digit")), (gamma, mean_loss(x, y["rotation"], "rotation"))]
    for term in terms:
        labels, task, penalty = y[term.task], term.task, term.penalty
        if term.phi is None:
            parts.append((term.lam, mean_penalty(net, x, labels, task, penalty)))
        else:
            shifted = x + term.phi * penalty.gradient(net.run(x, labels, task=task).dx)
            assume(distance_from_kinks(net, shifted) > 1e-3)
            weight = term.lam / term.phi
            parts += [(weight, mean_loss(shifted, labels, task)), (-weight, mean_loss(x, labels, task))]

    def objective(changed):
        return sum((weight * part(changed)).sum() for weight, part in parts)

    assert gradient_error(objective, net, update(net, x, y, terms, lam0=lam0, gamma={"rotation": gamma})) < 1e-6


OF_AUTOGRAD = {
    "l1": lambda J: anp.sum(anp.abs(J), axis=1),
    "l2": lambda J: anp.sum(J**2, axis=1),
    "l2norm": lambda J: anp.sqrt(anp.sum(J**2, axis=1)),
    "linf": lambda J: anp.max(anp.abs(J), axis=1),
}


@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
def test_the_exact_update_is_autograd_s_double_backward(penalty):
    rng = np.random.default_rng(3)
    net = biased_mlp([20, 40, 30, 30, 10], rng)
    x, y = rng.random((8, 20)), rng.integers(0, 10, 8)

    def loss(x, parameters):
        for W, b in parameters[:-1]:
            x = anp.maximum(x @ W + b, 0)
        W, b = parameters[-1]
        logits = x @ W + b
        return anp.sum(anp.log(anp.sum(anp.exp(logits), axis=1)) - logits[np.arange(8), y])

    def regularised(parameters):
        J = autograd.grad(loss)(x, parameters)
        return (2 * loss(x, parameters) + 3 * anp.sum(OF_AUTOGRAD[penalty.name](J))) / 8

    pairs = autograd.grad(regularised)([(layer.W, layer.b) for layer in net.layers if isinstance(layer, Dense)])
    expected = np.concatenate([array.ravel() for pair in pairs for array in pair])
    found = flat(net, update(net, x, y, [Term(penalty, 3.0, None)], lam0=2.0))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.fixture(scope="module")
def confident():
    """Return a net like the paper's that has learnt 20 digits by heart, then made so sure that p rounds to 1."""
    x, y = load("digits").train.batch(slice(20))
    net = mlp((64, 100, 100, 100, 10), generator(0, "weights"))
    for _ in range(100):
        sgd_step(net, net.gradients([(1.0, net.run(x, y, input_gradient=False))]), 0.5)
    *trunk, last = net.layers
    net = Network((*trunk, Dense(3 * last.W, 3 * last.b)))
    assert net.run(x, y).loss.max() < 2**-25
    return net, x, y


@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
def test_float32_agrees_with_float64_for_each_confident_example(confident, penalty):
    net, x, y = confident
    terms = [Term(penalty, 1.0, None)]
    for k in range(20):
        one, label = x[k : k + 1], y[k : k + 1]
        found = flat(net, update(net, one, label, terms, lam0=0.0))
        double = net.astype(np.float64)
        expected = flat(double, update(double, one.astype(np.float64), label, terms, lam0=0.0))
        assert found.dtype == np.float32
        assert relative_error(found.astype(np.float64), expected) < 1e-4


@pytest.mark.parametrize("hidden", [[], [5, 4]], ids=["no hidden layer", "two"])
@pytest.mark.parametrize("penalty", PENALTIES, ids=NAMES)
def test_the_finite_update_converges_to_the_exact_one(penalty, hidden):
    # without a ReLU between them the layers are smooth, and the forward difference has slope 1
    rng = np.random.default_rng(1)
    net = biased_mlp([6, *hidden, 3], rng)
    net = Network(tuple(layer for layer in net.layers if isinstance(layer, Dense)))
    x, y = rng.random((4, 6)), np.array([0, 1, 2, 0])
    exact, *finite = (flat(net, update(net, x, y, [Term(penalty, 1.0, phi)])) for phi in (None, 1e-2, 1e-3, 1e-4))
    errors = [relative_error(found, exact) for found in finite]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)
