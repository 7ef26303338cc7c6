import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnlite.evaluation.float32_trap import naive_softmax_cross_entropy
from nnlite.gradcheck import numerical_gradient
from nnlite.losses import (
    Loss,
    free_kl_divergence,
    kl_divergence,
    margin,
    runner_up,
    softmax_cross_entropy,
    softmax_tangent,
    targeted_margin,
)

logits_of_one = hnp.arrays(np.float64, st.integers(1, 9).map(lambda n: (3, n)), elements=st.floats(-50, 50))
# logits, the target of a KL divergence, and a change of the logits
triples = st.integers(1, 9).flatmap(lambda n: hnp.arrays(np.float64, (3, 3, n), elements=st.floats(-5, 5)))


@pytest.mark.parametrize("cross_entropy", [softmax_cross_entropy, naive_softmax_cross_entropy])
@given(logits=logits_of_one)
def test_loss_and_error_agree_with_scipy(cross_entropy, logits):
    y = np.arange(3) % logits.shape[-1]
    loss, dlogits = cross_entropy(logits, y)
    assert loss == pytest.approx(-scipy.special.log_softmax(logits, axis=-1)[np.arange(3), y], rel=1e-9, abs=1e-15)
    expected = scipy.special.softmax(logits, axis=-1) - np.eye(logits.shape[-1])[y]
    assert dlogits == pytest.approx(expected, abs=1e-14)


@given(logits_of_one, st.floats(-1e3, 1e3))
def test_a_constant_added_to_all_logits_changes_nothing(logits, constant):
    y = np.zeros(3, int)
    before, after = softmax_cross_entropy(logits, y), softmax_cross_entropy(logits + constant, y)
    assert after[0] == pytest.approx(before[0], rel=1e-9, abs=1e-9)
    assert after[1] == pytest.approx(before[1], abs=1e-9)


def test_each_error_sums_to_0():
    _, dlogits = softmax_cross_entropy(np.random.default_rng(0).normal(size=(50, 10)) * 30, np.arange(50) % 10)
    assert abs(dlogits.sum(axis=-1)).max() < 1e-15


@pytest.mark.parametrize("cross_entropy", [softmax_cross_entropy, naive_softmax_cross_entropy])
def test_huge_logits_neither_overflow_nor_turn_into_nan(cross_entropy):
    loss, dlogits = cross_entropy(np.array([[1e30, 0.0, -1e30]], np.float32), np.array([2]))
    assert loss[0] == pytest.approx(2e30)
    assert dlogits.tolist() == [[1.0, 0.0, -1.0]]


def test_equal_logits_cost_log_10():
    loss, _ = softmax_cross_entropy(np.zeros((1, 10)), np.array([3]))
    assert loss[0] == pytest.approx(np.log(10), rel=1e-15)


def test_a_confident_example_keeps_its_digits_in_float32():
    # p of the true class is 1 - 2e-11, which float32 rounds to 1: p - 1 would be 0 and so would the loss
    logits = np.array([[25.0, 0.0, -1.0]])
    y = np.array([0])
    loss, dlogits = softmax_cross_entropy(logits.astype(np.float32), y)
    exact_loss, exact_dlogits = softmax_cross_entropy(logits, y)
    assert loss == pytest.approx(exact_loss, rel=1e-6)
    assert dlogits == pytest.approx(exact_dlogits, rel=1e-6)
    assert dlogits[0, 0] < 0


@pytest.mark.parametrize("cross_entropy", [softmax_cross_entropy, naive_softmax_cross_entropy])
def test_a_stack_shares_labels_or_has_its_own(cross_entropy):
    logits = np.random.default_rng(0).normal(size=(2, 5, 4))
    shared, own = np.array([0, 1, 2, 3, 0]), np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 3]])
    for k in range(2):
        for y, y_k in ((shared, shared), (own, own[k])):
            loss, dlogits = cross_entropy(logits, y)
            loss_k, dlogits_k = cross_entropy(logits[k], y_k)
            assert (loss[k] == loss_k).all()
            assert (dlogits[k] == dlogits_k).all()


def test_a_stack_diverges_and_moves_as_its_models():
    logits, other = np.random.default_rng(0).normal(size=(2, 2, 5, 4))
    loss, dlogits = kl_divergence(logits, other)
    for k in range(2):
        loss_k, dlogits_k = kl_divergence(logits[k], other[k])
        assert (loss[k] == loss_k).all()
        assert (dlogits[k] == dlogits_k).all()
        assert (softmax_tangent(logits, None, other)[k] == softmax_tangent(logits[k], None, other[k])).all()


@given(triples, st.sampled_from([1, 10]))
def test_the_kl_divergence_agrees_with_scipy(triple, scale):
    logits, target, _ = scale * triple
    loss, dlogits = kl_divergence(logits, target)
    q, p = scipy.special.softmax(logits, axis=-1), scipy.special.softmax(target, axis=-1)
    assert loss == pytest.approx(scipy.special.rel_entr(p, q).sum(axis=-1), rel=1e-9, abs=1e-12)
    assert dlogits == pytest.approx(q - p, abs=1e-14)


@given(triples)
def test_the_error_of_the_kl_divergence_is_its_derivative(triple):
    logits, target, _ = triple
    numeric = numerical_gradient(lambda z: float(kl_divergence(z, target)[0].sum()), logits)
    assert kl_divergence(logits, target)[1].ravel() == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@given(triples)
def test_a_free_target_has_its_own_derivative_of_the_same_divergence(triple):
    logits, target, _ = triple
    loss, dtarget = free_kl_divergence.of_target(target, logits)
    assert loss.tolist() == kl_divergence(logits, target)[0].tolist() == free_kl_divergence(logits, target)[0].tolist()
    numeric = numerical_gradient(lambda z: float(kl_divergence(logits, z)[0].sum()), target)
    assert dtarget.ravel() == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    assert abs(dtarget.sum(axis=-1)).max() < 1e-14


def test_the_target_of_a_kl_divergence_is_held_fixed_unless_it_is_free():
    assert kl_divergence.of_target is None
    assert free_kl_divergence.own_target
    assert free_kl_divergence.tangent is kl_divergence.tangent


def test_the_derivative_at_a_confident_target_keeps_its_digits_in_float32():
    logits, target = np.array([[24.0, 1.5, -1.0]]), np.array([[25.0, 0.0, -1.0]])
    _, found = free_kl_divergence.of_target(target.astype(np.float32), logits.astype(np.float32))
    assert found.dtype == np.float32
    assert found == pytest.approx(free_kl_divergence.of_target(target, logits)[1], rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kl_divergence_of_logits_from_themselves_is_exactly_0(dtype):
    logits = (30 * np.random.default_rng(0).normal(size=(2, 50, 10))).astype(dtype)
    for divergence in (kl_divergence, free_kl_divergence.of_target):
        loss, error = divergence(logits, logits.copy())
        assert loss.dtype == error.dtype == dtype
        assert not loss.any()
        assert not error.any()


def test_the_kl_divergence_alone_is_from_the_nets_own_output():
    assert kl_divergence.own_target
    assert not softmax_cross_entropy.own_target
    assert not Loss("a loss of labels", softmax_cross_entropy.function).own_target


def test_the_kl_divergence_of_huge_logits_neither_overflows_nor_turns_into_nan():
    loss, dlogits = kl_divergence(np.array([[0.0, 1e30]], np.float32), np.array([[1e30, -1e30]], np.float32))
    assert loss[0] == pytest.approx(1e30)
    assert dlogits.tolist() == [[-1.0, 1.0]]


def test_the_kl_divergence_of_a_confident_example_keeps_its_digits_in_float32():
    # both p and q of the largest logit round to 1, and q - p to 0
    logits, target = np.array([[24.0, 1.5, -1.0]]), np.array([[25.0, 0.0, -1.0]])
    loss, dlogits = kl_divergence(logits.astype(np.float32), target.astype(np.float32))
    exact_loss, exact_dlogits = kl_divergence(logits, target)
    assert loss == pytest.approx(exact_loss, rel=1e-5)
    assert dlogits == pytest.approx(exact_dlogits, rel=1e-5)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, kl_divergence])
@given(triple=triples)
def test_the_tangent_is_the_derivative_of_either_error(loss, triple):
    logits, target, change = triple
    labels = target if loss is kl_divergence else target.argmax(axis=-1)
    step = 1e-5
    ahead, behind = (loss(logits + sign * step * change, labels)[1] for sign in (1, -1))
    assert loss.tangent(logits, labels, change) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6, abs=1e-8)


def test_the_tangent_of_a_confident_example_keeps_its_digits_in_float32():
    # q of the largest is 1 - 2e-11, which rounds to 1: then q (change - q . change) is rounding alone
    logits, change = np.array([[25.0, 0.0, -1.0]]), np.array([[0.3, -1.7, 0.9]])
    found = softmax_tangent(logits.astype(np.float32), None, change.astype(np.float32))
    assert found.dtype == np.float32
    assert found == pytest.approx(softmax_tangent(logits, None, change), rel=1e-6)


def test_logits_that_move_together_leave_the_error_as_it_is():
    logits = 10 * np.random.default_rng(0).normal(size=(50, 10))
    assert not softmax_tangent(logits, None, np.full((50, 10), 3.7)).any()


def test_the_runner_up_is_the_most_likely_wrong_class():
    logits = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, -1.0, -2.0]])
    assert runner_up(logits, np.array([0, 1, 0])).tolist() == [2, 0, 1]
    assert runner_up(np.stack([logits, -logits]), np.array([0, 1, 0])).tolist() == [[2, 0, 1], [1, 2, 2]]


@given(st.integers(2, 6), st.integers(0, 2**16))
def test_a_margin_is_the_difference_of_two_logits_and_its_derivative_picks_them(classes, seed):
    draw = np.random.default_rng(seed)
    logits, y = draw.standard_normal((3, 4, classes)), draw.integers(0, classes, (3, 4))
    t = (y + draw.integers(1, classes, y.shape)) % classes
    value, change = targeted_margin(logits, np.stack([y, t], axis=-1))
    for place in np.ndindex(3, 4):
        assert value[place] == pytest.approx(logits[place][t[place]] - logits[place][y[place]], abs=1e-15)
        expected = np.zeros(classes)
        expected[t[place]], expected[y[place]] = 1, -1
        assert (change[place] == expected).all()
    likeliest, _ = margin(logits, y)
    others = np.where(np.arange(classes) == y[..., None], -np.inf, logits).max(axis=-1)
    own = np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    assert likeliest == pytest.approx(others - own, abs=1e-15)
    assert margin(logits.astype(np.float32), y)[1].dtype == np.float32
