import math
from functools import partial

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases, distance_from_kinks, flat, gradient_error

from nnlite.attacks import input_gradient
from nnlite.datagrad import Term, objectives, weighted_passes
from nnlite.errors import NnliteError
from nnlite.layers import Dense
from nnlite.losses import free_kl_divergence, kl_divergence, softmax_cross_entropy
from nnlite.network import Network, stack
from nnlite.penalties import L1, L2, L2_NORM, LINF, masked

penalties = st.sampled_from([L1, L2, L2_NORM, LINF])
steps = st.sampled_from([0.1, None])


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
    assume(distance_from_kinks(net, moved) > 1e-3)

    def surrogate(changed):
        weight = lam / phi
        return (lam0 - weight) * _mean_loss(changed, x, y) + weight * _mean_loss(changed, moved, y)

    grads = net.gradients(weighted_passes(net, x, y, [Term(penalty, lam, phi)], lam0))
    assert gradient_error(surrogate, net, grads) < 1e-7


def test_exact_terms_take_nothing_off_the_clean_pass():
    terms = [Term(L1, 0.01, 0.1), Term(L2, 0.02, 0.05), Term(L1, 7.0, None)]
    assert objectives(terms)[0].weight == pytest.approx(1 - 0.1 - 0.4)
    assert objectives(terms, lam0=2.0)[0].weight == pytest.approx(2 - 0.1 - 0.4)
    assert [term.weight for term in terms] == pytest.approx([0.1, 0.4, 7.0])


def test_equation_1_in_full_is_the_sum_written_out_by_hand():
    net, x, y = _case(heads={"rotation": 5})
    y = {"digit": y, "rotation": np.array([4, 0, 2, 2])}
    mask, found = np.array([0.0, 1.0, 0.5, 2.0, 1.0, 0.0]), np.random.default_rng(2).standard_normal((4, 6))
    terms = [
        Term(L1, 0.01, 0.1),
        Term(masked(L2_NORM, mask), 0.03, 0.2),
        Term(L2, 0.02, 0.05, "rotation"),
        Term(LINF, 0.7, None, "rotation"),
        Term(lambda *_: found, 0.06, 0.3, loss=kl_divergence),
        Term(L2_NORM, 5.0, 0.1, "rotation", kl_divergence),
    ]

    def plain(point, task="digit", loss=softmax_cross_entropy):
        target = y[task] if loss is softmax_cross_entropy else net.logits(x, task)
        return flat(net, net.gradients([(1.0, net.run(point, target, task=task, loss=loss))]))

    J, J_rotation = (net.run(x, labels, task=task).dx for task, labels in y.items())
    weighed, largest = mask * J, abs(J_rotation) == abs(J_rotation).max(axis=-1, keepdims=True)
    ahead, behind = (plain(x + step * largest * np.sign(J_rotation), "rotation") for step in (1e-5, -1e-5))
    expected = (
        (2.0 - 0.1 - 0.15) * plain(x)
        + 0.1 * plain(x + 0.1 * np.sign(J))
        + 0.15 * plain(x + 0.2 * mask * weighed / np.linalg.norm(weighed, axis=-1, keepdims=True))
        + (0.5 - 0.4) * plain(x, "rotation")
        + 0.4 * plain(x + 0.05 * 2 * J_rotation, "rotation")
        + 0.7 * (ahead - behind) / 2e-5
        + 0.2 * plain(x + 0.3 * found, loss=kl_divergence)
        # the last term has no direction: at the clean point the divergence and its gradient are 0
    )
    passes = weighted_passes(net, x, y, terms, lam0=2.0, gamma={"rotation": 0.5})
    assert flat(net, net.gradients(passes)) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_a_mask_keeps_its_features_from_noise():
    net, x, y = _case()
    mask = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 2.0])
    (_, clean), (_, shifted) = weighted_passes(net, x, y, [Term(masked(L1, mask), 0.01, 0.1)])
    assert (shifted.inputs[0][:, mask == 0] == x[:, mask == 0]).all()
    assert shifted.inputs[0] - x == pytest.approx(0.1 * mask * np.sign(clean.dx), rel=1e-12)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, kl_divergence])
def test_a_search_gives_the_direction_in_place_of_a_penalty(loss):
    one, x, y = _case()
    net = stack([one, one.copy()])
    direction, asked = np.random.default_rng(2).standard_normal((2, 4, 6)), []

    def search(*args):
        asked.append(args)
        return direction

    rng, phi = np.random.default_rng(3), np.array([0.25, 0.5])
    passes = weighted_passes(net, x, y, [Term(search, 0.5, phi, loss=loss)], rng=rng)
    (clean_c, clean), (c, shifted) = passes[-2:]
    ((its_net, its_pass, its_labels, its_phi, its_rng),) = asked
    assert its_net is net
    assert its_pass is clean
    assert its_phi is phi
    assert its_rng is rng
    assert (its_labels == (y if loss is softmax_cross_entropy else net.logits(x))).all()
    assert (shifted.inputs[0] == x + phi[:, None, None] * direction).all()
    assert c.tolist() == [2.0, 1.0]
    assert clean_c.tolist() == ([-1.0, 0.0] if loss is softmax_cross_entropy else [-2.0, -1.0])


def test_the_kl_divergence_needs_no_labels():
    net, x, y = _case(heads={"rotation": 5})
    _, (_, clean), (_, shifted) = weighted_passes(net, x, y, [Term(lambda *_: x, 1.0, 0.1, "rotation", kl_divergence)])
    assert clean.loss.tolist() == [0, 0, 0, 0]
    assert (shifted.loss > 0).all()


@settings(deadline=None)
@given(cases(classes=st.integers(2, 9)), st.floats(0.01, 2))
def test_the_update_goes_through_a_free_target_and_not_through_one_held_fixed(case, lam):
    net, x, y = case
    direction = np.random.default_rng(2).standard_normal((*net.logits(x).shape[:-1], x.shape[-1]))
    moved = x + 0.1 * direction
    assume(distance_from_kinks(net, moved) > 1e-3)
    held = scipy.special.softmax(net.logits(x), axis=-1)

    def divergence(changed, target=None):
        p = scipy.special.softmax(changed.logits(x), axis=-1) if target is None else target
        q = scipy.special.softmax(changed.logits(moved), axis=-1)
        return float(scipy.special.rel_entr(p, q).sum(axis=-1).mean(axis=-1).sum())

    for loss, target in ((free_kl_divergence, None), (kl_divergence, held)):
        grads = net.gradients(weighted_passes(net, x, y, [Term(lambda *_: direction, lam, 0.1, loss=loss)], lam0=0.5))
        surrogate = partial(
            lambda changed, target: 0.5 * _mean_loss(changed, x, y) + lam / 0.1 * divergence(changed, target),
            target=target,
        )
        assert gradient_error(surrogate, net, grads) < 1e-7


def test_what_goes_through_a_free_target_shares_the_clean_activations():
    net, x, y = _case(heads={"rotation": 5})
    term = Term(lambda *_: x, 0.2, 0.1, "rotation", free_kl_divergence)
    (_, main), (_, clean), (_, shifted), (weight, through) = weighted_passes(net, x, y, [term])
    assert weight == term.weight == 2.0
    assert through.activations is clean.activations is main.activations
    assert through.task == "rotation"
    assert through.loss == pytest.approx(shifted.loss, rel=1e-12)


def test_a_search_has_no_exact_derivative():
    with pytest.raises(NnliteError, match="phi: only a penalty has an exact derivative"):
        Term(lambda net, clean, y, phi, rng: clean.dx, 0.1, None)


@settings(deadline=None)
@given(cases(), penalties, steps)
def test_lambda_0_is_plain_training_bit_for_bit(case, penalty, phi):
    net, x, y = case
    plain = flat(net, net.gradients(weighted_passes(net, x, y)))
    assert (plain == flat(net, net.gradients(weighted_passes(net, x, y, [Term(penalty, 0.0, phi)])))).all()
    assert (plain == flat(net, net.gradients([(1.0, net.run(x, y))]))).all()


@settings(deadline=None)
@given(cases(), penalties, steps)
def test_the_update_does_not_depend_on_the_batch_size(case, penalty, phi):
    net, x, y = case
    terms = [Term(penalty, 0.01, phi)]
    whole = flat(net, net.gradients(weighted_passes(net, x, y, terms)))
    n = x.shape[-2]
    rows = [(x[..., i : i + 1, :], y[..., i : i + 1]) for i in range(n)]
    single = [flat(net, net.gradients(weighted_passes(net, x_i, y_i, terms))) for x_i, y_i in rows]
    assert whole == pytest.approx(sum(single) / n, rel=1e-9, abs=1e-12)


def test_a_stack_with_lambda_and_phi_of_its_own_equals_its_models():
    rng = np.random.default_rng(0)
    nets = [biased_mlp([6, 5, 4, 3], rng) for _ in range(3)]
    x, y = rng.random((4, 6)), np.array([0, 1, 2, 0])
    lam, phi = np.array([0.01, 0.0, 0.1]), np.array([0.1, 0.05, 0.01])
    net = stack(nets)
    together = list(net.gradients(weighted_passes(net, x, y, [Term(L1, lam, phi)])))
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
    list(net.gradients(weighted_passes(net, x, y, [Term(L2, 0.01, 0.1)])))
    assert (x == before).all()


def _case(heads=None):
    rng = np.random.default_rng(3)  # a seed that leaves no example without a unit awake
    return biased_mlp([6, 5, 4, 3], rng, heads), rng.random((4, 6)), np.array([0, 1, 2, 0])


def _mean_loss(net, x, y):
    return float(net.run(x, y, input_gradient=False).loss.mean(axis=-1).sum())


def test_a_step_that_moves_no_white_pixel_is_refused():
    net, y = biased_mlp([3, 4, 2], np.random.default_rng(0)), np.array([0])
    for dtype in (np.float32, np.float64):
        x, least = np.ones((1, 3), dtype), float(np.finfo(dtype).eps) / 2
        assert (x + least == x).all()
        for phi in (least, -least, 1e-30, np.float64(least)):
            with pytest.raises(NnliteError, match=f"phi: expected a step that moves a pixel of 1 in {x.dtype}, found"):
                weighted_passes(net.astype(dtype), x, y, [Term(L1, 0.1, phi)])
        (_, clean), (_, moved) = weighted_passes(net.astype(dtype), x, y, [Term(L1, 0.1, 2 * least)])
        assert (moved.inputs[0] != clean.inputs[0]).any()
