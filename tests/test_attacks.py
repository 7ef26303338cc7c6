import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import cases

from nnlite.attacks import NOISES, input_gradient, perturb
from nnlite.datasets import load
from nnlite.evaluation import PAPER_PHI, accuracy, attack, first_of_each_class
from nnlite.gradcheck import numerical_gradient
from nnlite.layers import Dense
from nnlite.losses import naive_softmax_cross_entropy, softmax_cross_entropy
from nnlite.network import Network, stack
from nnlite.penalties import L1, L2
from nnlite.training import Settings, train


@pytest.fixture(scope="module")
def trained():
    """Return the digits and a small Rect net that knows them."""
    data = load("digits")
    return data, train(Settings(hidden=(64, 64), epochs=15), data).net


@settings(deadline=None, max_examples=30)
@given(cases(classes=st.integers(2, 9)), st.sampled_from(list(NOISES)), st.floats(0.001, 0.05))
def test_noise_is_a_step_along_the_penalty_s_gradient(case, noise, phi):
    net, x, y = case
    dx = input_gradient(net, x, y)
    moved = perturb(x, NOISES[noise].gradient(dx), phi)
    if noise == "r1":
        assert abs(moved - x).max() <= phi * (1 + 1e-12)
    else:
        assert moved - x == pytest.approx(2 * phi * dx, abs=1e-15)


def test_the_input_gradient_is_that_of_each_example_alone():
    net = Network((Dense(np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2)),))
    x, y = np.array([[0.2, 0.4], [0.9, 0.1]]), np.array([0, 1])
    numeric = numerical_gradient(lambda a: float(softmax_cross_entropy(net.logits(a), y)[0].sum()), x)
    assert input_gradient(net, x, y).ravel() == pytest.approx(numeric, rel=1e-6)


def test_clipping_keeps_the_range_and_no_clipping_leaves_it():
    x, direction = np.array([[0.0, 1.0, 0.5]]), np.array([[-1.0, 1.0, 1.0]])
    assert perturb(x, direction, 0.1).tolist() == [[-0.1, 1.1, 0.6]]
    assert perturb(x, direction, 0.1, clip=True).tolist() == [[0.0, 1.0, 0.6]]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("penalty", [L1, L2])
def test_phi_0_is_the_clean_accuracy_bit_for_bit(trained, penalty, clip):
    data, net = trained
    table = attack(net, {"net": net}, data.test, penalty, (0.0,), clip=clip)
    assert table.accuracy["net"][0] == accuracy(net, data.test)


def test_accuracy_falls_with_phi_and_an_own_attack_hurts_most(trained):
    data, net = trained
    other = train(Settings(hidden=(64, 64), epochs=15, seed=1), data).net
    table = attack(net, {"net": net, "other": other}, data.test, L1, PAPER_PHI)
    own, foreign = table.accuracy["net"], table.accuracy["other"]
    assert (np.diff(own) <= 0).all()
    assert own[-1] < foreign[-1] < foreign[0]


def test_a_stack_of_victims_and_adversaries_equals_its_models(trained):
    data, net = trained
    other = train(Settings(hidden=(64, 64), epochs=3, seed=1), data).net
    pair = stack([net, other])
    assert accuracy(pair, data.test).tolist() == [accuracy(net, data.test), accuracy(other, data.test)]
    together = attack(pair, {"pair": pair}, data.test, L1).accuracy["pair"]
    for k, one in enumerate((net, other)):
        assert together[:, k] == pytest.approx(attack(one, {"one": one}, data.test, L1).accuracy["one"], abs=0.21)


def test_the_share_of_zero_gradients_is_counted(trained):
    data, _ = trained
    weights = np.random.default_rng(0).normal(size=(64, 10))
    weights[:16] = 0  # a quarter of the pixels is ignored, and so has no gradient
    net = Network((Dense(weights, np.zeros(10)),))
    assert attack(net, {"net": net}, data.test, L1).zero_share == 0.25


def test_float32_attacks_a_confident_net_as_float64_does(trained):
    data, net = trained
    # ten times the logits predict the same, and are as sure as a net that was trained for long
    last = net.layers[-1]
    sure = Network((*net.layers[:-1], Dense(10 * last.W, 10 * last.b)))
    exact = sure.astype(np.float64)
    single = attack(sure, {"sure": sure}, data.test, L1).accuracy["sure"]
    double = attack(exact, {"sure": exact}, data.test, L1).accuracy["sure"]
    assert single == pytest.approx(double, abs=0.3)
    trap = attack(sure, {"sure": sure}, data.test, L1, loss=naive_softmax_cross_entropy).accuracy["sure"]
    assert trap[-1] > double[-1] + 5  # the attack only looks weaker


def test_the_first_image_of_each_class_is_shown(trained):
    data, net = trained
    shown = first_of_each_class(net, {"net": net}, data.test, L1, (0.0, 0.1))
    assert shown.labels.tolist() == list(range(10))
    assert shown.images.shape == (10, 2, 64)
    first_seven = data.test.labels.tolist().index(7)
    x, _ = data.test.batch(slice(first_seven, first_seven + 1))
    assert (shown.images[7, 0] == x[0]).all()
    assert abs(shown.images[7, 1] - x[0]).max() == pytest.approx(0.1)
    assert (shown.predictions["net"][:, 0] == net.predict(shown.images[:, 0])).all()
