import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp
from scipy.optimize import brentq

from nnlite.attacks import Noise
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.layers import Dense
from nnlite.lbfgs import LBFGS, TOLERANCE, minimise
from nnlite.losses import runner_up, softmax_cross_entropy
from nnlite.network import Network, stack
from nnlite.penalties import L1, L2_NORM
from nnlite.training import Settings, train


def rng():
    return np.random.default_rng(0)


def two_classes(features=6, examples=20, seed=0):
    """Return a linear net with two classes, images, labels, and w, b with margin x.w + b > 0 for the other class."""
    draw = np.random.default_rng(seed)
    net = Network((Dense(draw.normal(size=(features, 2)), draw.normal(size=2)),))
    x = draw.random((examples, features))
    y = net.predict(x)
    last = net.layers[-1]
    w, b = last.W.T[1 - y] - last.W.T[y], last.b[1 - y] - last.b[y]
    return net, x, y, w, b


def objective(net, x, target, c, x_hat):
    return c * ((x_hat - x) ** 2).sum(axis=-1) + softmax_cross_entropy(net.logits(x_hat), target)[0]


def left_over(net, x, target, c, x_hat):
    """Return the projected gradient of |r|^2 + loss / c at r = x_hat - x, by its length as a share of 2 |r|."""
    gradient = 2 * (x_hat - x) + net.run(x_hat, target).dx / c[:, None]
    step = np.clip(x_hat - gradient, 0, 1) - x_hat
    return np.linalg.norm(step, axis=-1) / np.linalg.norm(2 * (x_hat - x), axis=-1)


# The minimiser


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_the_minimiser_of_a_linear_net_solves_its_equation(seed, c):
    # With m the margin, 2 c r = sigmoid(-m) w wherever the box leaves room: r = clip(x + k w, 0, 1) - x, k a number.
    net, x, y, w, b = two_classes(seed=seed)
    found, converged = minimise(net, x, 1 - y, c, 200)
    for k in range(len(x)):

        def image(share, k=k):
            return np.clip(x[k] + share * w[k], 0, 1)

        def excess(share, k=k):
            return share - 1 / (2 * c * (1 + np.exp(image(share) @ w[k] + b[k])))

        expected = image(brentq(excess, 0, 1 / c, xtol=1e-14))
        assert found[k] == pytest.approx(expected, abs=1e-4)
    assert converged.all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_one_joint_problem_is_one_problem_for_each_example():
    net, x, y, _, _ = two_classes()
    c = np.geomspace(0.01, 10, len(x))
    together, _ = minimise(net, x, 1 - y, c, 300)
    for k in range(len(x)):
        alone, _ = minimise(net, x[k : k + 1], 1 - y[k : k + 1], float(c[k]), 300)
        assert together[k] == pytest.approx(alone[0], abs=1e-4)


def test_one_joint_problem_is_as_good_on_a_net_with_kinks(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 40))
    target, c = runner_up(net.logits(x), y), np.geomspace(0.1, 3, 40).astype(np.float32)
    together, converged = minimise(net, x, target, c, 100)
    alone = [minimise(net, x[k : k + 1], target[k : k + 1], c[k : k + 1], 100)[0][0] for k in range(40)]
    ratio = objective(net, x, target, c, together) / objective(net, x, target, c, np.stack(alone))
    assert np.median(ratio) == pytest.approx(1, abs=1e-3)
    assert (abs(ratio - 1) < 0.01).mean() > 0.9  # a few of either end in another valley
    share = left_over(net, x, target, c, together)
    sure = abs(share / TOLERANCE - 1) > 0.01  # the images are in float32, and were judged in float64
    assert (converged == (share <= TOLERANCE))[sure].all()


def test_all_examples_converge_on_a_net_with_kinks(digits):
    # Another net than above: there, a kink near one minimum stops the search in some versions of SciPy and BLAS.
    net = train(Settings(hidden=(64, 64), epochs=15, seed=1), digits).net
    x, y = digits.test.batch(slice(0, 40))
    c = np.geomspace(0.1, 3, 40).astype(np.float32)
    assert minimise(net, x, runner_up(net.logits(x), y), c, 100)[1].all()


def test_a_stack_is_minimised_model_by_model():
    nets = [two_classes(seed=seed)[0] for seed in range(3)]
    x, target = rng().random((7, 6)), rng().integers(0, 2, (3, 7))
    c = rng().uniform(0.1, 1, (3, 7))
    together, converged = minimise(stack(nets), x, target, c, 200)
    assert converged.shape == (3, 7)
    for k, net in enumerate(nets):
        assert together[k] == pytest.approx(minimise(net, x, target[k], c[k], 200)[0], abs=1e-4)


def test_images_of_each_model_of_a_stack_are_minimised_apart():
    nets = [two_classes(seed=seed)[0] for seed in range(2)]
    x, target = rng().random((2, 7, 6)), rng().integers(0, 2, (2, 7))
    found, _ = minimise(stack(nets), x, target, 0.5, 200)
    for k, net in enumerate(nets):
        assert found[k] == pytest.approx(minimise(net, x[k], target[k], 0.5, 200)[0], abs=1e-4)


def test_where_nothing_pulls_the_image_itself_is_the_minimiser():
    x = rng().random((3, 6))
    found, converged = minimise(Network((Dense(np.zeros((6, 2)), np.zeros(2)),)), x, np.array([0, 1, 0]), 1.0, 5)
    assert (found == x).all()
    assert converged.all()


def test_converged_is_said_of_each_example_by_its_own_projected_gradient():
    net, x, y, w, b = two_classes(examples=200)
    c = np.geomspace(1e-3, 10, len(x))
    found, converged = minimise(net, x, 1 - y, c, 2)
    push = w / (1 + np.exp((found * w).sum(axis=-1) + b))[:, None]  # minus the gradient of the loss
    pull = 2 * c[:, None] * (found - x)
    left = np.clip(found - (pull - push) / c[:, None], 0, 1) - found
    share = np.linalg.norm(left, axis=-1) / np.linalg.norm(pull / c[:, None], axis=-1)
    sure = abs(share - TOLERANCE) > 1e-6
    assert (converged == (share <= TOLERANCE))[sure].all()
    assert converged.any()
    assert not converged.all()


def test_the_type_is_the_net_s_and_nothing_is_written_to():
    net, x, y, _, _ = two_classes()
    net, x = net.astype(np.float32), x.astype(np.float32)
    before = x.copy()
    found, _ = minimise(net, x, 1 - y, 0.1, 5)
    assert found.dtype == np.float32
    assert (x == before).all()


# The attack


@pytest.mark.parametrize("scale", [0.01, 1, 100])  # of the logits: so far is the c that is searched from 1
def test_the_noise_on_a_linear_net_is_the_distance_to_the_boundary(scale):
    W = scale * rng().normal(size=(6, 2))
    net = Network((Dense(W, -0.5 * W.sum(axis=0)),))  # the boundary goes through x = 0.5, far from the box
    x = rng().uniform(0.4, 0.6, (50, 6))
    y = net.predict(x)
    logits, w = net.logits(x), W[:, 0] - W[:, 1]
    distance = abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(w)
    crafted = LBFGS(searches=16).craft(net, x, y, (), rng())
    length = np.linalg.norm(crafted.smallest - x, axis=-1)
    assert (net.predict(crafted.smallest) != y).all()
    assert (length > distance).all()
    assert length == pytest.approx(distance, rel=0.02, abs=1e-3)
    assert not crafted.failed.any()


def test_an_image_is_the_nearest_found_where_that_is_within_phi(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 80))
    phi = (0.0, 0.3, 0.6, 100.0)
    crafted = LBFGS(searches=4, iterations=20).craft(net, x, y, phi, rng())
    length = L2_NORM.value(crafted.smallest - x)
    wrong = net.predict(x) != y
    assert wrong.any()
    assert (length[wrong] == 0).all()
    assert not crafted.failed[wrong].any()
    assert (crafted.images[0] == x).all()
    for size, image in zip(phi, crafted.images, strict=True):
        moved = (image != x).any(axis=-1)
        assert (moved == (length > 0) & (length <= size)).all()
        assert (image[moved] == crafted.smallest[moved]).all()
        assert (net.predict(image)[moved] != y[moved]).all()
    assert 0 < (crafted.images[1] != x).any(axis=-1).sum() < (crafted.images[3] != x).any(axis=-1).sum()
    exact = float(length[~wrong][0])  # phi is the size of that noise, to the last digit
    image = LBFGS(searches=4, iterations=20).craft(net, x, y, (exact,), rng()).images[0]
    assert (image != x).any(axis=-1)[~wrong][0]


def test_what_has_not_converged_or_found_nothing_has_failed(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 80))
    right, short = net.predict(x) == y, LBFGS(searches=1, iterations=1)
    assert short.craft(net, x, y, (), rng()).failed.tolist() == right.tolist()
    assert evaluate_attack(net, {"net": net}, data.test[:80], short, (1.0,)).failed == right.sum() < 80
    unreachable = Network((Dense(np.array([[1.0, -1.0]]), np.array([9.0, 0.0])),))  # class 1 begins beyond x = 1
    crafted = LBFGS().craft(unreachable, np.array([[0.2], [0.9]]), np.array([0, 0]), (5.0,), rng())
    assert crafted.failed.tolist() == [True, True]
    assert crafted.smallest.tolist() == crafted.images[0].tolist() == [[0.2], [0.9]]


def test_it_needs_less_noise_than_r1_at_equal_success(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 100))
    right = net.predict(x) == y
    crafted = LBFGS().craft(net, x, y, (), rng())
    assert not crafted.failed.any()
    assert (net.predict(crafted.smallest) != y).all()
    grid = np.linspace(0, 1, 401)[1:].tolist()
    images = np.stack(Noise(L1, clip=True).craft(net, x, y, grid, rng()).images)
    fooled = net.predict(images) != y
    assert fooled.any(axis=0).all()  # equal success: both fool every image
    first = images[fooled.argmax(axis=0), np.arange(100)]
    lengths = [np.linalg.norm(image - x, axis=-1)[right] for image in (crafted.smallest, first)]
    assert np.median(lengths[0]) < 0.8 * np.median(lengths[1])
    assert (lengths[0] <= lengths[1]).mean() > 0.95


def test_a_stack_gets_the_noise_of_its_single_models():
    nets = [biased_mlp([6, 8, 3], np.random.default_rng(seed)) for seed in range(3)]
    x, y = rng().random((30, 6)), rng().integers(0, 3, 30)
    together = LBFGS().craft(stack(nets), x, y, (0.2,), rng())
    assert together.failed.shape == (3, 30)
    for k, net in enumerate(nets):
        alone = LBFGS().craft(net, x, y, (0.2,), rng())
        lengths = [np.linalg.norm(smallest - x, axis=-1) for smallest in (together.smallest[k], alone.smallest)]
        assert np.median(abs(lengths[0] - lengths[1])) < 1e-3
        assert ((lengths[0] > 0) == (lengths[1] > 0)).mean() >= 0.9


def test_no_attack_forms_a_weight_gradient(trained, monkeypatch):
    data, net = trained

    def add_gradients(*_):
        raise AssertionError("the attack formed a weight gradient")

    monkeypatch.setattr(Dense, "add_gradients", add_gradients)
    evaluate_attack(net, {"net": net}, data.test[:10], LBFGS(2, 2), (0.1,))


@pytest.mark.parametrize("options", [{"searches": 0}, {"iterations": -1}, {"iterations": 1.5}])
def test_it_refuses_what_is_no_count(options):
    with pytest.raises(NnliteError, match="expected an integer of at least 1"):
        LBFGS(**options)


def test_it_searches_as_much_as_its_docstring_says():
    assert (LBFGS().searches, LBFGS().iterations, LBFGS().norm, LBFGS().clip) == (10, 50, "l2", True)
