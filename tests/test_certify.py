"""Certificates against points that an adversary may choose, exact nets, an oracle written in loops, and rounding."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases

from nnlite import certify
from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, perturb
from nnlite.certify import _Relaxed, is_proven, margins
from nnlite.errors import NnliteError
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp, stack, unstack

pytestmark = pytest.mark.once


def rng():
    return np.random.default_rng(0)


def true_margins(net, x, y, task="digit"):
    """Return z_y - z_t at x, inf at t = y."""
    z = net.logits(x, task).astype(np.float64)
    labels = np.broadcast_to(y, z.shape[:-1])[..., None]
    gaps = np.take_along_axis(z, labels, -1) - z
    np.put_along_axis(gaps, labels, np.inf, -1)
    return gaps


def points(x, phi, count, *, clip):
    """Yield points of the boxes: the images, random ones, and corners."""
    draw = rng()
    yield x
    for k in range(count):
        step = draw.uniform(-1, 1, x.shape)
        moved = x + phi * (np.sign(step) if k % 2 else step)
        yield moved.clip(0, 1) if clip else moved


# No point of the box contradicts a certificate


@settings(deadline=None, max_examples=60)
@given(cases(min_depth=1, classes=st.integers(2, 9)), st.floats(0, 0.5), st.booleans())
def test_no_point_of_the_box_has_a_smaller_margin(case, phi, clip):
    net, x, y = case
    bounds = margins(net, x, y, phi, clip=clip)
    assert bounds.dtype == np.float64
    assert bounds.shape == net.logits(x).shape
    for point in points(x, phi, 40, clip=clip):
        assert (true_margins(net, point, y) >= bounds).all()


@pytest.mark.parametrize("phi", [0.01, 0.03, 0.1])
def test_no_attack_breaks_a_proven_image(trained, phi):
    data, net = trained
    x, y = data.test.batch(slice(0, 150))
    proven = is_proven(net, x, y, phi)
    assert 0 < proven.sum() < 150
    for attack in (PGD(steps=20, restarts=3), PGD(steps=1, stride=1.0), R1, APGD(steps=20)):
        image = attack.craft(net, x, y, (phi,), rng()).images[0]
        image = image.clip(0, 1)
        assert not (proven & (net.predict(image) != y)).any()
    for point in points(x, phi, 100, clip=True):
        assert not (proven & (net.predict(point.astype(np.float32)) != y)).any()


def test_none_of_a_million_points_breaks_a_proven_image(trained):
    """Half of them anywhere in the box, half in its corners."""
    data, net = trained
    x, y = data.test.batch(slice(0, 100))
    phi, rng, count = 0.04, np.random.default_rng(0), 0
    for image, label in zip(*(part[is_proven(net, x, y, phi)][:50] for part in (x, y)), strict=True):
        noise = rng.uniform(-1, 1, (20_000, 64)).astype(np.float32)
        noise[::2] = np.sign(noise[::2])
        points = (image + np.float32(phi) * noise).clip(0, 1)
        assert (net.predict(points) == label).all()
        count += len(points)
    assert count == 1_000_000


@pytest.mark.parametrize("phi", [0.03, 0.1])
def test_a_planted_counterexample_is_never_proven(trained, phi):
    # The bias of one class is raised until it wins at a corner of the box, by as little as possible.
    data, net = trained
    net = net.astype(np.float64)
    x, y = data.test.batch(slice(0, 60), np.float64)
    corner = (x + phi * np.sign(rng().uniform(-1, 1, x.shape))).clip(0, 1)
    for k, gaps in enumerate(true_margins(net, corner, y)):
        raised = net.copy()
        raised.layers[-1].b[gaps.argmin()] += gaps.min() + 1e-9
        assert raised.predict(corner[k : k + 1]) != y[k]
        assert not is_proven(raised, x[k : k + 1], y[k : k + 1], phi)


# Where the exact answer is known


def least_at_corners(net, x, y, phi):
    """Return the least margins over the corners of the box of one image (D,) with label y, clipped."""
    corners = np.array([x + phi * np.array(signs) for signs in product((-1, 1), repeat=len(x))]).clip(0, 1)
    return true_margins(net, corners, np.full(len(corners), y)).min(axis=0)


@pytest.mark.parametrize("clip", [False, True])
def test_one_dense_layer_is_exact(clip):
    # the least of (W_y - W_t) x + b_y - b_t lies phi against the sign of W_y - W_t, or at the border of [0, 1]
    W, b, x, y = rng().normal(size=(6, 4)), rng().normal(size=4), rng().random((5, 6)), np.arange(5) % 4
    bounds = margins(Network((Dense(W, b),)), x, y, 0.3, clip=clip, allowance=False)
    for n, t in product(range(5), range(4)):
        difference = W[:, y[n]] - W[:, t]
        worst = x[n] - 0.3 * np.sign(difference)
        worst = worst.clip(0, 1) if clip else worst
        expected = worst @ difference + b[y[n]] - b[t] if t != y[n] else np.inf
        assert bounds[n, t] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("relus", [0, 1, 2])
def test_where_no_relu_may_switch_the_bounds_are_exact(relus):
    # then the net is linear on the box, and the least margin lies at a corner
    draw = rng()
    layers = []
    for p, q in [(4, 6), (6, 5)]:
        b = 40 * np.where(draw.random(q) < 0.5, -1.0, 1.0)  # far on, or far off
        layers += [Dense(draw.normal(size=(p, q)), b), *([ReLU()] if len(layers) < 2 * relus else [])]
    net, x = Network((*layers, Dense(draw.normal(size=(5, 3)), draw.normal(size=3)))), draw.random((6, 4))
    y = np.arange(6) % 3
    expected = [least_at_corners(net, *one, 0.2) for one in zip(x, y, strict=True)]
    assert margins(net, x, y, 0.2, allowance=False) == pytest.approx(np.array(expected), abs=1e-10)


@settings(deadline=None, max_examples=30)
@given(cases(classes=st.integers(2, 9)), st.booleans())
def test_without_noise_the_bounds_are_the_margins_of_the_net(case, clip):
    net, x, y = case
    assert margins(net, x, y, 0, clip=clip, allowance=False) == pytest.approx(true_margins(net, x, y), abs=1e-11)
    assert margins(net, x, y, 0, clip=clip) == pytest.approx(true_margins(net, x, y), abs=1e-10)
    assert (margins(net, x, y, 0, clip=clip) <= true_margins(net, x, y)).all()


def test_one_relu_by_hand():
    # y0 = relu(x) on x in [-1, 2] without noise beyond: lower slope 1 as 2 > 1, upper line 2/3 (x + 1).
    # z0 - z1 = relu(x) - (0.5 x + 0.25): least of x - 0.5 x - 0.25 at x = -1 is -0.75.
    # z1 - z0: least of 0.5 x + 0.25 - 2/3 (x + 1) = -x/6 - 5/12 at x = 2 is -0.75.
    # relu(x - 3 z) with z = 0: the second unit carries x itself, as relu(x + 10) - 10.
    W, b = np.array([[1.0, 1.0]]), np.array([0.0, 10.0])
    last = Dense(np.array([[1.0, 0.0], [0.0, 0.5]]), np.array([0.0, -4.75]))
    net, x = Network((Dense(W, b), ReLU(), last)), np.array([[0.5], [0.5]])
    bounds = margins(net, x, np.array([0, 1]), 1.5, clip=False, allowance=False)
    assert bounds == pytest.approx(np.array([[np.inf, -0.75], [-0.75, np.inf]]), abs=1e-12)


# The same algorithm in loops


def slow_margins(net, x, y, phi, clip):
    """Return CROWN's bounds for one image (D,), one neuron and one ReLU at a time.

    Bounds of a layer are those of intervals; where 0 lies within, those of a backward pass, if tighter.
    """
    low, high = x - phi, x + phi
    if clip:
        low, high = low.clip(0, 1), high.clip(0, 1)
    box, seen = (low, high), []  # what each layer saw

    def least(a, depth):
        constant = 0.0
        for k in reversed(range(depth)):
            layer = net.layers[k]
            if isinstance(layer, Dense):
                constant += sum(a[j] * layer.b[j] for j in range(len(a)))
                a = [sum(layer.W[i, j] * a[j] for j in range(len(a))) for i in range(len(layer.W))]
                continue
            a = list(a)
            for j, (down, up) in enumerate(zip(*seen[k], strict=True)):
                if up <= 0:
                    a[j] = 0.0
                elif down < 0 and a[j] > 0:
                    a[j] = a[j] if up > -down else 0.0
                elif down < 0:
                    constant -= a[j] * up * down / (up - down)
                    a[j] = a[j] * up / (up - down)
        return constant + sum(c * (down if c > 0 else up) for c, down, up in zip(a, *box, strict=True))

    for k, layer in enumerate(net.layers):
        seen.append((low, high))
        if isinstance(layer, ReLU):
            low, high = np.maximum(low, 0), np.maximum(high, 0)
            continue
        above, below = np.maximum(layer.W, 0), np.minimum(layer.W, 0)
        low, high = low @ above + high @ below + layer.b, high @ above + low @ below + layer.b
        if k and k + 1 < len(net.layers) and isinstance(net.layers[k + 1], ReLU):
            for j in range(len(low)):
                if low[j] < 0 < high[j]:
                    one = np.eye(len(low))[j]
                    low[j], high[j] = max(low[j], least(one, k + 1)), min(high[j], -least(-one, k + 1))
    one_hot = np.eye(len(low))
    return [np.inf if t == y else least(one_hot[y] - one_hot[t], len(net.layers)) for t in range(len(low))]


@settings(deadline=None, max_examples=40)
@given(cases(min_depth=2, classes=st.integers(2, 9)), st.floats(0.01, 0.6), st.booleans())
def test_the_bounds_are_those_of_crown_in_loops(case, phi, clip):
    net, x, y = case
    found = margins(net, x, y, phi, clip=clip, allowance=False, splits=0)
    for k, one in enumerate(unstack(net)):
        bounds, images = (found[k] if found.ndim == 3 else found), (x[k] if x.ndim == 3 else x)
        expected = [slow_margins(one, *at, phi, clip) for at in zip(images, y[k] if y.ndim == 2 else y, strict=True)]
        assert bounds == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("order", ["dd", "ddrd", "drrd", "rdrd", "ddrdd"])
def test_any_chain_of_dense_and_relu_layers(order):
    draw, width, layers = rng(), 5, []
    for kind in order:
        layers.append(Dense(draw.normal(size=(width, 5)), draw.normal(size=5)) if kind == "d" else ReLU())
    net, x, y = Network(tuple(layers)), draw.normal(size=(8, 5)), draw.integers(0, 5, 8)
    found = margins(net, x, y, 0.2, clip=False, allowance=False, splits=0)
    expected = [slow_margins(net, *one, 0.2, False) for one in zip(x, y, strict=True)]
    assert found == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)
    for point in points(x, 0.2, 200, clip=False):
        assert (true_margins(net, point, y) >= found - 1e-9).all()


def test_a_small_block_gives_the_same_bounds(trained, monkeypatch):
    data, net = trained
    x, y = data.test.batch(slice(0, 20))
    expected = margins(net, x, y, 0.05)
    monkeypatch.setattr(certify, "BLOCK", 3)
    assert margins(net, x, y, 0.05) == pytest.approx(expected, abs=1e-12)


# Branch and bound


def test_two_splits_by_hand():
    # z0 - z1 = 2.5 - relu(x1 + x2) - relu(x1 - x2) with |x1|, |x2| <= 1. Both upper lines are z/2 + 1: the least of
    # 2.5 - x1 - 2 is -0.5, at x1 = 1. With the second unit on it is 2.5 - (x1 + x2)/2 - 1 - (x1 - x2), at least -0.5
    # still, and with it off 0.5. With the first one on or off as well, it is 2.5 - 2 x1, 2.5 - x1 + x2: 0.5, the truth.
    # In z0 - z2, which is -1 everywhere, no ReLU loses, and no split is spent on it.
    last = Dense(np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), np.array([2.5, 0.0, 3.5]))
    net = Network((Dense(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), ReLU(), last))
    found = [
        margins(net, np.zeros((1, 2)), np.array([0]), 1.0, clip=False, allowance=False, splits=splits)[0, 1:]
        for splits in (-1, 0, 1, 2, 100)
    ]
    assert np.array(found) == pytest.approx(np.array([[least, -1] for least in (-0.5, -0.5, -0.5, 0.5, 0.5)]))


def test_a_split_relu_is_linear_on_each_half():
    relus = _Relaxed(np.array([0.0, 1.0, 1.0]), np.array([0.2, 1.0, 0.8]), np.array([0.1, 0.0, 0.7]))
    chosen = np.array([[True, False, False], [False, False, True]])
    once = relus.split(np.array([0, 2]), chosen)
    assert once.lower.tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 0]]
    assert once.upper.tolist() == [[1, 1, 0.8], [0.2, 1, 1], [0, 1, 0.8], [0.2, 1, 0]]
    assert once.offset.tolist() == [[0, 0, 0.7], [0.1, 0, 0], [0, 0, 0.7], [0.1, 0, 0]]
    twice = once.split(np.array([3]), np.array([[True, False, False]]))
    assert twice.upper.tolist() == [[1, 1, 0], [0, 1, 0]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6))
def test_with_enough_splits_the_bounds_of_a_concave_margin_are_exact(seed, pixels, width):
    # z0 - z1 falls as any unit rises: it is concave in x, and least at a corner. A bound is not raised once it is above
    # 0, so the bias of class 0 puts the least there by a little, or below.
    draw = np.random.default_rng(seed)
    first = Dense(draw.normal(size=(pixels, width)), draw.normal(size=width))
    last = Dense(np.abs(draw.normal(size=(width, 2))) * [-1, 1], np.zeros(2))
    net, x, y = Network((first, ReLU(), last)), draw.random(pixels), np.array([0])
    least = least_at_corners(net, x, 0, 0.4)[1]
    for beyond in (-1.0, -1e-3, 1e-3):
        last.b[0] = beyond - least
        found = margins(net, x[None], y, 0.4, allowance=False, splits=2**width)[0, 1]
        assert found == pytest.approx(beyond, abs=1e-9) if beyond < 0 else 0 < found < beyond + 1e-9
        last.b[0] = 0


@pytest.mark.parametrize("seed", [18, 103, 292])
def test_halves_with_lower_bounds_than_the_whole_lower_none(seed):
    # A line that gives one ReLU less may give more to those before it, which see a coefficient of another sign.
    draw = np.random.default_rng(seed)
    net, x, y = biased_mlp([3, 6, 6, 6, 2], draw), draw.random((2, 3)), np.array([0, 1])
    assert (margins(net, x, y, 0.3, splits=200) >= margins(net, x, y, 0.3, splits=0)).all()


def test_splits_prove_more_and_never_lower_a_bound(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 100))
    crown, few, many = (margins(net, x, y, 0.045, splits=splits) for splits in (0, 3, 400))
    assert (few >= crown).all()
    assert (many >= crown).all()
    assert (few[crown > 0] == crown[crown > 0]).all()
    proven = [(bounds.min(axis=-1) > 0).sum() for bounds in (crown, few, many)]
    assert proven[0] < proven[1] < proven[2] <= (net.predict(x) == y).sum()


# How tight


def by_intervals(net, x, y, phi):
    """Return the lower bounds of the margins that intervals alone give."""
    low, high = (x - phi).clip(0, 1), (x + phi).clip(0, 1)
    for layer in net.layers[:-1]:
        if isinstance(layer, ReLU):
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        else:
            above, below = np.maximum(layer.W, 0), np.minimum(layer.W, 0)
            low, high = low @ above + high @ below + layer.b, high @ above + low @ below + layer.b
    last, least = net.layers[-1], np.empty((len(y), net.sizes[-1]))
    for t in range(net.sizes[-1]):
        W, b = last.W.T[y] - last.W.T[t], last.b[y] - last.b[t]
        least[:, t] = (np.where(W > 0, low, high) * W).sum(axis=-1) + b
    return least


def test_the_bounds_are_tighter_than_intervals(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 100), np.float64)
    net = net.astype(np.float64)
    for phi in (0.005, 0.02):
        others = np.arange(10) != y[:, None]
        assert (margins(net, x, y, phi)[others] > by_intervals(net, x, y, phi)[others]).all()
    assert is_proven(net, x, y, 0.02).sum() > 50 + (by_intervals(net, x, y, 0.02) > 0).all(axis=-1).sum()


def test_more_noise_proves_less(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 100))
    proven = [is_proven(net, x, y, phi) for phi in (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)]
    assert (proven[0] == (net.predict(x) == y)).all()
    for less, more in pairwise(proven):
        assert not (more & ~less).any()
    assert proven[1].sum() > proven[3].sum() > proven[4].sum() > proven[5].sum()
    assert not proven[-1].any()


# Rounding


def test_what_only_exact_arithmetic_gets_right_is_not_proven():
    # 1 + 2^-25 is 1 in float32, in any order of summation: the logits tie, and class 0 is predicted.
    W = np.array([[1, 1], [0, 2**-25]], np.float32)
    net, x, y = Network((Dense(W, np.zeros(2, np.float32)),)), np.ones((1, 2), np.float32), np.array([1])
    assert net.predict(x) != y
    assert is_proven(net, x, y, 0, allowance=False)
    assert not is_proven(net, x, y, 0)


def test_noise_that_float32_carries_out_of_the_ball_is_allowed_for():
    # z_1 - z_0 = b - x, above 0 on the whole ball, and 0 at the point where adding the noise in float32 ends.
    x, y = np.array([[0.5]], np.float32), np.array([1])
    phi = next(phi for phi in np.linspace(0.1, 0.2, 100) if float(perturb(x, np.ones_like(x), phi)[0, 0]) > 0.5 + phi)
    noisy = perturb(x, np.ones_like(x), phi)
    net = Network((Dense(np.array([[1, 0]], np.float32), np.array([0, noisy[0, 0]], np.float32)),))
    assert net.predict(noisy) != y
    assert is_proven(net, x, y, phi, allowance=False)
    assert not is_proven(net, x, y, phi)


def test_what_underflows_is_not_proven():
    # 2^-75 2^-75 is above 0, and 0 in float32
    W = np.array([[0, 2**-75]], np.float32)
    net, x, y = Network((Dense(W, np.zeros(2, np.float32)),)), np.full((1, 1), 2**-75, np.float32), np.array([1])
    assert net.predict(x) != y
    assert is_proven(net, x, y, 0, allowance=False)
    assert not is_proven(net, x, y, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [10, 300])
def test_the_allowance_covers_the_worst_order_of_summation_and_little_more(p, dtype):
    # From the left, 1 + u + u + ... stays 1: each addition loses all that it adds.
    u = float(np.finfo(dtype).eps) / 2
    W = np.zeros((p, 2), dtype)
    W[:, 1] = u
    W[0] = 1
    net, x, y = Network((Dense(W, np.zeros(2, dtype)),)), np.ones((1, p), dtype), np.array([1])
    total = dtype(0)
    for term in W[:, 1]:
        total += term
    assert total == 1
    (bound,) = margins(net, x, y, 0)[:, 0]
    assert bound <= 0
    if dtype == np.float32:  # the sum of class 0 might be off by as much, though here it is not
        assert bound > (p - 1) * u - 1.001 * 2 * (p + 1) * u


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_allowance_is_that_of_the_docstring_and_counts_our_own_rounding(dtype):
    # One layer, in fractions: the least margin on the widened box, less what the docstring allows for the net.
    W, b = rng().normal(size=(5, 2)).astype(dtype), rng().normal(size=2).astype(dtype)
    x, y = rng().uniform(-1, 1, (100, 5)).astype(dtype), np.arange(100) % 2
    bounds = margins(Network((Dense(W, b),)), x, y, 0.1, clip=False).min(axis=-1)
    u, phi = Fraction(float(np.finfo(dtype).eps)) / 2, Fraction(0.1)
    gamma, fraction = 6 * u / (1 - 6 * u), lambda value: Fraction(float(value))
    for image, label, bound in zip(x, y, map(fraction, bounds), strict=True):
        least = fraction(b[label]) - fraction(b[1 - label]) - gamma * sum(map(abs, map(fraction, b)))
        for pixel, weights in zip(map(fraction, image), W, strict=True):
            reach, weights = phi + 3 * u * (abs(pixel) + phi), [*map(fraction, weights)]
            a = weights[label] - weights[1 - label]
            least += a * pixel - abs(a) * reach - gamma * (abs(pixel) + reach) * sum(map(abs, weights))
        assert bound < least < bound + Fraction(1e-13)


@pytest.mark.parametrize("hidden", [1, 2])
def test_a_relu_that_rounding_may_switch_on_is_not_taken_for_off(hidden):
    # Exactly, 1 + 150 u - 1 - 300 u is below 0 and the ReLU off. In float32, and in an order that loses all of the
    # 300 u, it is on, and its 150 u times 2^23 are more than the 1 that class 1 is ahead.
    u, p = 2.0**-24, 302
    terms = np.array([1 + 150 * u, -1, *(p - 2) * [-u]], np.float32)
    total = np.float32(0)
    for term in terms[1:]:
        total += term
    assert total + terms[0] == 150 * u
    first, relu = Dense(np.ones((1, p), np.float32), np.zeros(p, np.float32)), ReLU()
    second = Dense(terms[:, None], np.zeros(1, np.float32))
    last = Dense(np.array([[2.0**23, 0]], np.float32), np.array([0, 1], np.float32))
    layers = (first, relu, second, relu, last) if hidden == 2 else (second, relu, last)
    net, x = Network(layers), np.ones((1, 1 if hidden == 2 else p), np.float32)
    assert is_proven(net, x, np.array([1]), 0, allowance=False)
    assert not is_proven(net, x, np.array([1]), 0)


def test_a_relu_that_rounding_may_switch_off_is_not_taken_for_on():
    # Exactly, 1 - 1 + 300 u is above 0. In float32, and in an order that loses all of the 300 u, it is 0. What sees it
    # is then 150 u above 0, and times 2^23 more than the 1 that class 1 is ahead.
    u, p = 2.0**-24, 302
    terms = np.array([1, -1, *(p - 2) * [u]], np.float32)
    total = terms[0]
    for term in terms[2:]:
        total += term
    assert total + terms[1] == 0
    layers = (
        *(Dense(np.ones((1, p), np.float32), np.zeros(p, np.float32)), ReLU()),
        *(Dense(terms[:, None], np.zeros(1, np.float32)), ReLU()),
        *(Dense(np.array([[-1]], np.float32), np.array([150 * u], np.float32)), ReLU()),
        Dense(np.array([[2.0**23, 0]], np.float32), np.array([0, 1], np.float32)),
    )
    net, x, y = Network(layers), np.ones((1, 1), np.float32), np.array([1])
    assert is_proven(net, x, y, 0, allowance=False)
    assert not is_proven(net, x, y, 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_hold_in_the_arithmetic_of_the_net_in_any_order(dtype):
    draw = rng()
    net = biased_mlp([20, 16, 16, 4], draw).astype(dtype)
    x, y = draw.random((4, 20)).astype(dtype), draw.integers(0, 4, 4)
    bounds = margins(net, x, y, 0)
    for _ in range(30):
        z = x
        for layer in net.layers:
            if isinstance(layer, ReLU):
                z = layer.forward(z)
                continue
            terms = [layer.b[None], *(z[:, i, None] * layer.W[i] for i in range(len(layer.W)))]
            total = np.zeros((4, len(layer.b)), dtype)
            for k in draw.permutation(len(terms)):
                total = total + terms[k]
            z = total
        assert z.dtype == dtype
        gaps = np.take_along_axis(z, y[:, None], -1).astype(np.float64) - z
        gaps[range(4), y] = np.inf
        assert (gaps >= bounds).all()


def test_the_allowance_costs_little(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 60))
    exact, allowed = (margins(net, x, y, 0.02, allowance=allowance, splits=0) for allowance in (False, True))
    others = np.isfinite(exact)
    assert (allowed[others] < exact[others]).all()
    assert allowed[others] == pytest.approx(exact[others], abs=0.02)


# Stacks, heads, and what is refused


@settings(deadline=None, max_examples=20)
@given(cases(min_depth=1, classes=st.integers(2, 5), heads=True), st.sampled_from(["digit", "rotation"]))
def test_a_stack_and_a_head_are_the_single_nets(case, task):
    net, x, y = case.net, case.x, case.y[task]
    found = margins(Network(net.chain(task)), x, y, 0.1)
    for k, one in enumerate(unstack(net)):
        alone = Network(one.chain(task))
        images, labels = (x[k], y[k]) if x.ndim == 3 else (x, y)
        expected = margins(alone, images, labels, 0.1)
        assert (found[k] if found.ndim == 3 else found).tolist() == expected.tolist()


def test_a_stack_of_one_is_a_stack():
    net, x, y = biased_mlp([4, 6, 3], rng()), rng().random((5, 4)), np.arange(5) % 3
    assert margins(stack([net]), x, y, 0.1).tolist() == [margins(net, x, y, 0.1).tolist()]


def test_images_of_a_single_net_may_have_leading_axes():
    net, x, y = biased_mlp([4, 6, 3], rng()), rng().random((2, 5, 4)), rng().integers(0, 3, (2, 5))
    found = margins(net, x, y, 0.1)
    assert found.shape == (2, 5, 3)
    assert found.tolist() == [margins(net, *one, 0.1).tolist() for one in zip(x, y, strict=True)]


def test_no_images_give_no_bounds():
    net = biased_mlp([4, 6, 3], rng())
    assert margins(net, np.zeros((0, 4)), np.zeros(0, int), 0.1).shape == (0, 3)
    assert is_proven(net, np.zeros((0, 4)), np.zeros(0, int), 0.1).shape == (0,)


def test_a_layer_without_a_relaxation_is_refused_by_name():
    class Softplus(ReLU):
        pass

    first, _, last = biased_mlp([2, 3, 2], rng()).layers
    with pytest.raises(NnliteError, match=r"layer 1 \(Softplus\): has no relaxation; use Dense and ReLU"):
        margins(Network((first, Softplus(), last)), np.zeros((1, 2)), np.zeros(1, int), 0.1)


REFUSED = {
    "phi below 0": ({"phi": -0.1}, "phi: expected a finite number of at least 0, found -0.1"),
    "phi inf": ({"phi": np.inf}, "phi: .*found inf"),
    "phi NaN": ({"phi": np.nan}, "phi: .*found nan"),
    "a pixel above 1": ({"x": np.full((1, 2), 1.1)}, r"x: expected pixels within \[0, 1\], found .* clip=False"),
    "a pixel below 0": ({"x": np.full((1, 2), -0.1)}, r"x: expected pixels within \[0, 1\]"),
    "a pixel NaN": ({"x": np.full((1, 2), np.nan)}, r"x: expected pixels within \[0, 1\]"),
    "one image": ({"x": np.zeros(2), "y": np.array(0)}, r"x: expected \(N, 2\), .* found \(2,\)"),
    "width": ({"x": np.zeros((1, 3))}, r"x: expected \(N, 2\), .* found \(1, 3\)"),
    "a label too many": ({"y": np.zeros(2, int)}, r"y: expected an array \(1,\), .* found shape \(2,\)"),
    "a label too large": ({"y": np.array([2])}, "y: expected classes from 0 to 1, found 2"),
    "a label below 0": ({"y": np.array([-1])}, "y: expected classes from 0 to 1, found -1"),
    "float labels": ({"y": np.zeros(1)}, "y: expected integers, found float64"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(changed, message):
    given = {"x": np.zeros((1, 2)), "y": np.zeros(1, int), "phi": 0.1} | changed
    with pytest.raises(NnliteError, match=message):
        margins(biased_mlp([2, 3, 2], rng()), **given)


def test_images_for_another_number_of_models_are_refused():
    net = stack([biased_mlp([4, 3], rng()) for _ in range(2)])
    with pytest.raises(NnliteError, match=r"x: expected images \(N, 4\), or stacked as the net is, found \(3, 5, 4\)"):
        margins(net, np.zeros((3, 5, 4)), np.zeros((3, 5), int), 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_net_that_may_overflow_is_refused(value):
    net = mlp([2, 9, 2], rng())
    net.layers[0].W[1, 3] = value
    with pytest.raises(NnliteError, match="layer 0: sums may leave the range"):
        margins(net, np.ones((1, 2), np.float32), np.zeros(1, int), 0.1)


def test_a_dtype_that_cannot_add_so_many_is_refused():
    # 2 m = (p + 1) 2^-10 is below 1 for 1,022 weights, and 1 for 1,023
    few, many = (mlp([p, 2], rng(), np.float16) for p in (1022, 1023))
    assert np.isfinite(margins(few, np.ones((1, 1022), np.float16), np.zeros(1, int), 0.1)).any()
    with pytest.raises(NnliteError, match="layer 0: sums may leave the range or precision of float16; use float32"):
        margins(many, np.ones((1, 1023), np.float16), np.zeros(1, int), 0.1)


def test_nothing_that_comes_in_is_changed():
    net, x, y = stack([biased_mlp([4, 6, 6, 3], rng()) for _ in range(2)]), rng().random((5, 4)), np.arange(5) % 3
    for array in (x, y, *(array for layer in net.layers for array in layer.parameters.values())):
        array.flags.writeable = False
    margins(net, x, y, 0.1)
