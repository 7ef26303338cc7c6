import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases, flat, gradient_error

from nnlite.errors import NnliteError
from nnlite.gradcheck import numerical_gradient
from nnlite.layers import Dense, ReLU
from nnlite.methods import METHODS
from nnlite.network import Network
from nnlite.penalties import L1, L2, L2_NORM, LINF, contractive_penalty, masked, weight_penalty
from nnlite.sgd import Update, train_step

MASK = np.array([0.0, 0.37, 1.0, 1.71])
PENALTIES = {p.name: p for base in (L1, L2, L2_NORM, LINF) for p in (base, masked(base, MASK))}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)

# three rows of sizes from 0.25 to 3, no two equal: away from the kinks of L1 and, even under MASK, of LINF
rows = st.builds(
    lambda sizes, signs: np.reshape(np.multiply(sizes, signs) / 4, (3, 4)),
    st.permutations(range(1, 13)),
    st.lists(st.sampled_from([-1, 1]), min_size=12, max_size=12),
)


@every_penalty
@settings(max_examples=30)
@given(a=rows)
def test_the_gradient_is_that_of_the_value(penalty, a):
    numeric = numerical_gradient(lambda array: float(penalty.value(array).sum()), a)
    assert penalty.gradient(a).ravel() == pytest.approx(numeric, rel=1e-6, abs=1e-9)


def test_the_paper_s_values_and_gradients():
    a = np.array([[3.0, -4.0, 0.0], [0.5, 0.0, -1.0]])
    assert L1.value(a).tolist() == [7.0, 1.5]
    assert L1.gradient(a).tolist() == [[1, -1, 0], [1, 0, -1]]
    assert L2.value(a).tolist() == [25.0, 1.25]
    assert L2.gradient(a).tolist() == [[6, -8, 0], [1, 0, -2]]
    assert L2_NORM.value(a).tolist() == [5.0, pytest.approx(1.25**0.5)]
    assert L2_NORM.gradient(a[:1]).tolist() == [[0.6, -0.8, 0]]
    assert LINF.value(a).tolist() == [4.0, 1.0]
    assert LINF.gradient(a).tolist() == [[0, -1, 0], [0, 0, -1]]


@every_penalty
def test_each_row_of_a_stack_has_its_own_value_and_gradient(penalty):
    a = np.random.default_rng(0).normal(size=(2, 3, 4))
    for k in range(2):
        assert (penalty.value(a)[k] == penalty.value(a[k])).all()
        assert (penalty.gradient(a)[k] == penalty.gradient(a[k])).all()


def test_of_equal_entries_the_first_is_the_largest():
    assert LINF.gradient(np.array([[1.0, -2.0, 2.0]])).tolist() == [[0, -1, 0]]


@every_penalty
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_there_is_no_gradient_there_is_no_direction(penalty, dtype):
    a = np.zeros((2, 3, 4), dtype)
    assert penalty.value(a).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (penalty.gradient(a) == 0).all()
    assert penalty.value(a).dtype == penalty.gradient(a).dtype == dtype


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_euclidean_norm_of_tiny_and_huge_gradients_keeps_its_digits_in_float32(size):
    # their squares would be 0, or infinite
    a = np.array([[3 * size, -4 * size]], np.float32)
    assert L2_NORM.value(a) == pytest.approx(5 * size, rel=1e-6)
    assert L2_NORM.gradient(a) == pytest.approx(np.array([[0.6, -0.8]]), rel=1e-6)


# of the L-infinity, L2 and L1 balls of radius 1 in 4 dimensions: all corners, or many points of the sphere
SPHERE = np.random.default_rng(0).standard_normal((20000, 4))
BALLS = {
    "l1": (L1, np.inf, np.array(list(itertools.product([-1.0, 1.0], repeat=4)))),
    "l2norm": (L2_NORM, 2, SPHERE / np.linalg.norm(SPHERE, axis=1, keepdims=True)),
    "linf": (LINF, 1, np.concatenate([np.eye(4), -np.eye(4)])),
}


@pytest.mark.parametrize(("penalty", "p", "extremes"), BALLS.values(), ids=BALLS)
@settings(max_examples=30)
@given(a=rows, phi=st.floats(0.01, 2))
def test_the_direction_is_the_worst_step_of_the_dual_ball(penalty, p, extremes, a, phi):
    r = phi * penalty.gradient(a)
    assert np.linalg.norm(r, p, axis=-1) == pytest.approx(phi, rel=1e-12)
    # a linear function is largest at an extreme point of the ball
    best = (a @ (phi * extremes).T).max(axis=-1)
    gain = (a * r).sum(axis=-1)
    assert (gain >= best * (1 - 1e-12)).all()
    assert gain == pytest.approx(best, rel=0.05 if p == 2 else 1e-12)
    assert gain == pytest.approx(phi * penalty.value(a), rel=1e-12)


@pytest.mark.parametrize(
    ("base", "value", "gradient"),
    [
        (L1, 4 + 2, [0, -1, 0.5]),
        (L2, 16 + 4, [0, 2 * -4, 0.5 * 4]),
        (L2_NORM, 20**0.5, [0, -4 / 20**0.5, 0.5 * 2 / 20**0.5]),
        (LINF, 4, [0, -1, 0]),
    ],
    ids=["l1", "l2", "l2norm", "linf"],
)
def test_a_mask_weighs_the_gradient_and_scales_the_step(base, value, gradient):
    penalty = masked(base, np.array([0, 1, 0.5]))
    # R is taken of (0, -4, 2), and the step of each feature weighed once more
    a = np.array([[5.0, -4.0, 4.0]])
    assert penalty.value(a)[0] == pytest.approx(value, rel=1e-15)
    assert penalty.gradient(a)[0] == pytest.approx(gradient, rel=1e-15)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.array([1.0, -0.1]), r"weights from -0\.1 to 1\.0"),
        (np.array([1.0, np.nan]), "weights from nan to nan"),
        (np.array([np.inf, 1.0]), r"weights from 1\.0 to inf"),
        (np.ones((2, 2)), r"shape \(2, 2\)"),
        (np.array(1.0), r"shape \(\)"),
    ],
)
def test_an_impossible_mask_is_refused(mask, found):
    with pytest.raises(NnliteError, match=f"^mask: expected one finite weight of at least 0 .* found {found}$"):
        masked(L1, mask)


@pytest.mark.parametrize("features", [1, 2, 4])
def test_a_mask_of_another_length_is_refused(features):
    penalty = masked(L1, np.ones(3))
    for use in (penalty.value, penalty.gradient):
        with pytest.raises(NnliteError, match=f"mask: expected {features} weights, one for each feature, found 3"):
            use(np.ones((2, 5, features)))


def test_a_mask_has_the_paper_s_784_features():
    assert masked(L1, np.ones(784)).value(np.full((1, 784), -2.0)).tolist() == [1568.0]


@pytest.mark.parametrize(("penalty", "expected"), [(L1, [[2.0], [-2.0]]), (L2, [[2.0 * 6], [-2.0 * 8]])])
def test_the_classical_penalty_stands_beside_the_batch_sum(penalty, expected):
    net = Network((ReLU(), Dense(np.array([[3.0], [-4.0]]), np.array([5.0]))))
    clean = net.run(np.ones((100, 2)), np.zeros(100, int))
    # lambda 200 in a batch of 100 examples weighs 2 beside the mean; the bias is free
    first, last = weight_penalty(penalty, net, clean, 200.0)
    assert first == {}
    assert list(last) == ["W"]
    assert last["W"].tolist() == expected
    assert net.layers[1].W.tolist() == [[3.0], [-4.0]]


def clean_pass(net, x, y):
    """Return the clean pass of the main task, and the lambda of each model."""
    lam = np.array([0.5, 0.0, 2.0])[: len(net.layers[0].W)] if net.layers[0].W.ndim == 3 else 0.5
    return net.run(x, y["digit"]), lam


@settings(deadline=None, max_examples=40)
@given(cases(heads=True), st.sampled_from([L1, L2]))
def test_the_gradient_of_the_classical_penalty_is_that_of_its_value(case, penalty):
    net, x, y = case
    clean, lam = clean_pass(net, x, y)
    assume(min(abs(layer.W).min() for layer in net.all_layers if isinstance(layer, Dense)) > 1e-4)

    def objective(changed):
        weights = [layer.W for layer in changed.all_layers if isinstance(layer, Dense)]
        R = sum(penalty.value(W).sum(axis=-1) for W in weights)
        return (lam * R).sum() / x.shape[-2]

    assert gradient_error(objective, net, weight_penalty(penalty, net, clean, lam)) < 1e-6


def squared_jacobian(block, h, step=1e-3):
    """Return |d block(h) / dh|^2 in the Frobenius norm for each example, by central differences; h is (..., N, D)."""
    units = step * np.eye(h.shape[-1])
    return sum((((block(h + unit) - block(h - unit)) / (2 * step)) ** 2).sum(axis=-1) for unit in units)


@settings(deadline=None, max_examples=40)
@given(cases(heads=True))
def test_the_contractive_penalty_shrinks_the_jacobian_of_each_layer(case):
    net, x, y = case
    clean, lam = clean_pass(net, x, y)

    def objective(changed):
        h, R = x, 0.0
        for layer, after in itertools.pairwise(changed.layers):
            if isinstance(layer, Dense):

                def block(h, layer=layer, after=after):
                    return after.forward(layer.forward(h))

                R = R + squared_jacobian(block, h)
                h = block(h)
        R = R + sum(squared_jacobian(last.forward, h) for last in (changed.layers[-1], *changed.heads.values()))
        return (lam * R.mean(axis=-1)).sum()

    assert gradient_error(objective, net, contractive_penalty(net, clean, lam)) < 1e-6


@settings(deadline=None, max_examples=10)
@given(cases(heads=True))
def test_the_contractive_penalty_takes_both_heads_for_one_last_layer(case):
    net, x, y = case
    main, rotation, lam = net.layers[-1], net.heads["rotation"], 0.3

    def contractive(net, y, task):
        return list(contractive_penalty(net, net.run(x, y, task=task), lam))

    *trunk, of_main, of_rotation = contractive(net, y["digit"], "digit")
    h = np.random.default_rng(0).random((*x.shape[:-1], main.W.shape[-2]))
    both = squared_jacobian(lambda h: np.concatenate([h @ main.W, h @ rotation.W], axis=-1), h).mean(axis=-1)
    slopes = sum((grad["W"] * head.W).sum(axis=(-1, -2)) for grad, head in ((of_main, main), (of_rotation, rotation)))
    assert slopes == pytest.approx(2 * lam * both, rel=1e-6)  # R is of degree 2 in W, so W . dR/dW is 2 R
    for task in ("digit", "rotation"):
        *alone, _ = contractive(Network(net.chain(task)), y[task], "digit")
        assert all((one[name] == other[name]).all() for one, other in zip(trunk, alone, strict=True) for name in one)


def test_a_unit_at_its_kink_sleeps():
    net = Network((Dense(np.array([[3.0, 3.0]]), np.array([-3.0, 0.0])), ReLU(), Dense(np.eye(2), np.zeros(2))))
    clean = net.run(np.array([[1.0]]), np.array([0]))  # the units see 0 and 3
    first, *_ = contractive_penalty(net, clean, 0.5)
    assert first["W"].tolist() == [[0.0, 2 * 0.5 * 3]]


@pytest.mark.parametrize("reg", ["l2", "gu-rigazio"])
def test_a_head_that_is_not_trained_is_not_penalised(reg):
    rng = np.random.default_rng(0)
    net = biased_mlp([6, 5, 4], rng, {"rotation": 3})
    before = net.copy()
    train_step(net, rng.random((3, 6)), np.array([0, 1, 2]), Update(0.1, on_weights=METHODS[reg].on_weights, lam=0.1))
    assert (net.heads["rotation"].W == before.heads["rotation"].W).all()
    assert all((now.W != was.W).any() for now, was in zip(net.layers[::2], before.layers[::2], strict=True))


@settings(deadline=None, max_examples=20)
@given(cases(heads=True), st.sampled_from(["l1", "l2", "gu-rigazio"]))
def test_a_step_goes_along_loss_and_penalty_both_taken_before_it(case, reg):
    net, x, y = case
    clean, lam = clean_pass(net, x, y)
    penalty, moved = METHODS[reg].on_weights, net.copy()
    train_step(moved, x, y, Update(0.1, gamma={"rotation": 0.5}, on_weights=penalty, lam=lam))
    passes = [(1.0, clean), (0.5, net.run(x, y["rotation"], task="rotation"))]
    step = 0.1 * (flat(net, net.gradients(passes)) + flat(net, penalty(net, clean, lam)))
    assert flat(net, [layer.parameters for layer in moved.all_layers]) == pytest.approx(
        flat(net, [layer.parameters for layer in net.all_layers]) - step, rel=1e-9, abs=1e-12
    )
