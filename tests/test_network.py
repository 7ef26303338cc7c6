import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases, flat

from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.gradcheck import TOLERANCE, check_network
from nnlite.init import PURPOSES, generator, he_normal
from nnlite.layers import Dense, ReLU
from nnlite.losses import kl_divergence, softmax_cross_entropy
from nnlite.network import MAIN, Network, mlp, stack, unstack
from nnlite.sgd import sgd_step

PAPER = (784, 784, 784, 784, 10)


@settings(deadline=None)
@given(cases())
def test_a_stack_equals_its_models(case):
    net, x, y = case
    once = net.run(x, y)
    grads = list(net.gradients([(1.0, once)]))
    for k in range(net.layers[0].W.shape[0] if net.layers[0].W.ndim == 3 else 0):
        one = net.map(lambda array, k=k: array[k])
        x_k, y_k = (x[k], y[k]) if x.ndim == 3 else (x, y)
        once_k = one.run(x_k, y_k)
        for name in ("logits", "loss", "dx"):
            assert getattr(once, name)[k] == pytest.approx(getattr(once_k, name), rel=1e-12, abs=1e-15)
        for grad, grad_k in zip(grads, one.gradients([(1.0, once_k)]), strict=True):
            for name in grad:
                assert grad[name][k] == pytest.approx(grad_k[name], rel=1e-12, abs=1e-15)


def test_three_models_trained_as_a_stack_equal_three_trained_alone():
    rng = np.random.default_rng(0)
    nets = [mlp((8, 16, 16, 5), rng) for _ in range(3)]
    together = stack(nets)
    lr = np.array([0.1, 0.2, 0.4])
    for _ in range(20):
        x, y = rng.random((10, 8), dtype=np.float32), rng.integers(0, 5, 10)
        sgd_step(together, together.gradients([(1.0, together.run(x, y))]), lr)
        for net, own_lr in zip(nets, lr.tolist(), strict=True):
            sgd_step(net, net.gradients([(1.0, net.run(x, y))]), own_lr)
    for layer, *alone in zip(together.layers, *(net.layers for net in nets), strict=True):
        for name, array in layer.parameters.items():
            assert array == pytest.approx(np.stack([own.parameters[name] for own in alone]), rel=1e-5, abs=1e-6)


@settings(deadline=None)
@given(cases())
def test_a_batch_is_the_mean_of_its_examples(case):
    net, x, y = case
    whole = net.run(x, y)
    n = x.shape[-2]
    single = [net.run(x[..., i : i + 1, :], y[..., i : i + 1]) for i in range(n)]
    # dx is each example's own gradient, whatever the company
    assert whole.dx == pytest.approx(np.concatenate([one.dx for one in single], axis=-2), rel=1e-9, abs=1e-14)
    for layer, *parts in zip(net.gradients([(1.0, whole)]), *(net.gradients([(1.0, p)]) for p in single), strict=True):
        for name, grad in layer.items():
            assert grad == pytest.approx(sum(part[name] for part in parts) / n, rel=1e-9, abs=1e-14)


def test_weighted_passes_add_up():
    rng = np.random.default_rng(0)
    net = biased_mlp([6, 5, 4], rng)
    first, second = (net.run(rng.random((3, 6)), np.array([0, 1, 2])) for _ in range(2))
    mixed = net.gradients([(-0.5, first), (1.5, second)])
    for grad, one, two in zip(mixed, net.gradients([(1.0, first)]), net.gradients([(1.0, second)]), strict=True):
        for name in grad:
            assert grad[name] == pytest.approx(-0.5 * one[name] + 1.5 * two[name], rel=1e-12)


def test_a_pass_of_weight_0_leaves_no_trace():
    rng = np.random.default_rng(0)
    net = mlp((30, 40, 5), rng)
    first, second = (net.run(rng.random((7, 30), dtype=np.float32), rng.integers(0, 5, 7)) for _ in range(2))
    for grad, alone in zip(net.gradients([(1.0, first), (0.0, second)]), net.gradients([(1.0, first)]), strict=True):
        assert all((grad[name] == alone[name]).all() for name in alone)
    nowhere = dataclasses.replace(second, deltas=tuple(np.full_like(delta, np.nan) for delta in second.deltas))
    for none in ([(0.0, first)], [(0.0, first), (0.0, nowhere)]):
        assert all((grad == 0).all() for layer in net.gradients(none) for grad in layer.values())


def test_a_pass_is_a_value():
    rng = np.random.default_rng(0)
    net = biased_mlp([6, 5, 4], rng)
    first = net.run(rng.random((3, 6)), np.array([0, 1, 2]))
    kept = [array.copy() for array in (first.logits, first.loss, first.dx, *first.inputs, *first.deltas)]
    list(net.gradients([(1.0, net.run(rng.random((3, 6)), np.array([3, 3, 3])))]))
    assert all(
        (a == b).all()
        for a, b in zip(kept, (first.logits, first.loss, first.dx, *first.inputs, *first.deltas), strict=True)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.loss = kept[1]


def test_without_the_input_gradient_the_rest_is_the_same():
    rng = np.random.default_rng(0)
    net = biased_mlp([6, 5, 4], rng)
    x, y = rng.random((3, 6)), np.array([0, 1, 2])
    full, short = net.run(x, y), net.run(x, y, input_gradient=False)
    assert all((a == b).all() for a, b in zip(full.deltas, short.deltas, strict=True))
    assert (net.backward(net.forward(x), y, MAIN, softmax_cross_entropy).dx == full.dx).all()
    with pytest.raises(NnliteError, match="input_gradient=False"):
        _ = short.dx


@st.composite
def runs(draw):
    """Draw a net with two heads, a batch, and how it is run there: the labels, the task and the loss."""
    net, x, y = draw(cases(heads=True))
    task = draw(st.sampled_from(["digit", "rotation"]))
    labels = y[task]
    loss = draw(st.sampled_from([softmax_cross_entropy, kl_divergence]))
    if loss is kl_divergence:
        labels = np.random.default_rng(1).standard_normal(net.logits(x, task).shape)
    return net, x, {"y": labels, "task": task, "loss": loss}


@settings(deadline=None, max_examples=60)
@given(runs())
def test_a_tangent_is_the_derivative_of_its_pass_along_the_direction(run):
    net, x, how = run
    clean = net.run(x, **how)
    direction, step = np.random.default_rng(2).standard_normal(clean.dx.shape), 1e-5
    tangent = net.tangent(clean, direction, input_gradient=True)
    ahead, behind = (net.run(x + sign * step * direction, **how) for sign in (1, -1))
    found = [*tangent.inputs, *tangent.deltas, tangent.dx]
    expected = [(a - b) / (2 * step) for a, b in zip(arrays(ahead), arrays(behind), strict=True)]
    assert [array.shape for array in found] == [array.shape for array in expected]
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other).max() < 1e-6 * max(abs(other).max(), 0.01)
    # and so are the weight gradients, whichever weight each model gives its tangent
    c = np.array([0.5, -2.0, 3.0])[: len(net.layers[0].W)] if net.layers[0].W.ndim == 3 else -2.0
    a, b = (flat(net, net.gradients([(c, once)])) for once in (ahead, behind))
    gradients = flat(net, net.gradients([(c, tangent)]))
    assert abs(gradients - (a - b) / (2 * step)).max() < 1e-6 * max(abs(gradients).max(), 0.01)


def test_any_chain_of_layers_is_a_net():
    rng = np.random.default_rng(0)
    first, last = (Dense(rng.normal(size=(4, 4)), rng.normal(size=4)) for _ in range(2))
    x, y, direction = rng.normal(size=(5, 4)), rng.integers(0, 4, 5), rng.normal(size=(5, 4))
    for layers in [(ReLU(), first), (first, last), (ReLU(), first, ReLU(), last), (first, ReLU(), ReLU(), last)]:
        net = Network(layers)
        assert max(check.error for check in check_network(net, x, y)) < TOLERANCE
        ahead, behind = (net.run(x + step * direction, y).dx for step in (1e-6, -1e-6))
        assert net.tangent(net.run(x, y), direction, input_gradient=True).dx == pytest.approx(
            (ahead - behind) / 2e-6, rel=1e-6, abs=1e-8
        )


def test_what_belongs_to_a_net_of_other_layers_is_an_error():
    rng = np.random.default_rng(0)
    short, deep = biased_mlp([4, 4, 4], rng), biased_mlp([4, 4, 4, 4], rng)
    x, y = rng.random((3, 4)), np.array([0, 1, 2])
    headed = biased_mlp([4, 4], rng, {"rotation": 3})
    flat_net = Network((short.layers[0], short.layers[2]))  # says the same of itself as `short`
    for wrong in (
        lambda: short.tangent(deep.run(x, y), x),
        lambda: short.backward(deep.forward(x), y, MAIN, softmax_cross_entropy),
        lambda: headed.rebuild(headed.layers),
    ):
        with pytest.raises(ValueError, match=r"zip\(\)"):
            wrong()
    with pytest.raises(
        NnliteError, match=r"stack: expected layers that differ in their arrays only, found ReLU.* Dense"
    ):
        stack([short, flat_net])


def arrays(once):
    return [*once.inputs, *once.deltas, once.dx]


@settings(deadline=None, max_examples=60)
@given(runs())
def test_the_hessian_in_x_is_symmetric(run):
    net, x, how = run
    clean = net.run(x, **how)
    u, v = np.random.default_rng(3).standard_normal((2, *clean.dx.shape))
    Hu, Hv = (net.tangent(clean, direction, input_gradient=True).dx for direction in (u, v))
    assert (u * Hv).sum(axis=-1) == pytest.approx((v * Hu).sum(axis=-1), rel=1e-9, abs=1e-9 * abs(Hu).max())


def test_a_tangent_shares_the_rows_of_its_pass_and_adds_one_product(monkeypatch):
    rng = np.random.default_rng(0)
    net = biased_mlp([6, 5, 4], rng)
    clean = net.run(rng.random((3, 6)), np.array([0, 1, 2]))
    tangent = net.tangent(clean, rng.standard_normal((3, 6)))
    apart = 0.5 * flat(net, net.gradients([(1.0, clean)])) + 2.0 * flat(net, net.gradients([(1.0, tangent)]))
    rows, add_gradients = [], Dense.add_gradients

    def counted(layer, into, scale, x, dy, change=None):
        rows.append(len(x))
        add_gradients(layer, into, scale, x, dy, change)

    monkeypatch.setattr(Dense, "add_gradients", counted)
    assert flat(net, net.gradients([(0.5, clean), (2.0, tangent)])) == pytest.approx(apart, rel=1e-12)
    assert rows == [3, 3, 3, 3]  # in each of two layers 3 of the pass, and 3 that change


def test_a_tangent_without_the_input_gradient_says_so():
    net = biased_mlp([6, 5, 4], np.random.default_rng(0))
    x = np.ones((3, 6))
    tangent = net.tangent(net.run(x, np.array([0, 1, 2])), x)
    with pytest.raises(NnliteError, match="input_gradient=True"):
        _ = tangent.dx


def test_he_initialisation_has_variance_2_over_fan_in():
    weights = he_normal(np.random.default_rng(0), 784, 784, np.float64)
    assert weights.std() == pytest.approx(math.sqrt(2 / 784), rel=0.01)
    assert abs(weights.mean()) < 1e-3


def test_float32_weights_are_the_rounded_float64_ones():
    single, double = (mlp(PAPER, generator(3, "weights"), dtype) for dtype in (np.float32, np.float64))
    assert (double.layers[0].W.astype(np.float32) == single.layers[0].W).all()
    assert single.dtype == np.float32
    assert (single.layers[2].b == 0).all()


def test_streams_of_one_seed_are_different_and_repeatable():
    drawn = [generator(5, purpose, *counter).random() for purpose in PURPOSES for counter in ((), (1,), (2,))]
    assert len(set(drawn)) == len(drawn)
    assert generator(5, "shuffle", 2).random() == generator(5, "shuffle", 2).random()


def test_the_loss_of_a_new_net_is_near_log_10():
    data = load("digits")
    x, y = data.train.batch(slice(None))
    # He's scale keeps the logits at the scale of the inputs, so the loss starts a little above log 10
    losses = [mlp((64, 784, 784, 784, 10), generator(seed, "weights")).run(x, y).loss.mean() for seed in range(3)]
    assert np.mean(losses) == pytest.approx(math.log(10), abs=0.3)


def test_twenty_examples_can_be_learned_by_heart():
    x, y = load("digits").train.batch(slice(20))
    net = mlp((64, 100, 100, 10), generator(0, "weights"))
    for _ in range(200):
        once = net.run(x, y, input_gradient=False)
        sgd_step(net, net.gradients([(1.0, once)]), 0.2)
    assert (net.predict(x) == y).all()
    assert net.run(x, y).loss.max() < 0.05


def test_an_sgd_step_by_hand():
    net = Network((Dense(np.array([[1.0]]), np.array([2.0])),))
    sgd_step(net, [{"W": np.array([[10.0]]), "b": np.array([-10.0])}], 0.1)
    assert net.layers[0].W.tolist() == [[0.0]]
    assert net.layers[0].b.tolist() == [3.0]


def test_what_a_network_says_of_itself():
    net = mlp(PAPER, np.random.default_rng(0))
    assert net.sizes == PAPER
    assert repr(net) == "Network(784-784-784-784-10, float32)"
    assert mlp((3, 2), np.random.default_rng(0)).sizes == (3, 2)


def test_a_stack_has_the_sizes_of_its_nets_and_gives_them_back():
    nets = [mlp((7, 5, 3), np.random.default_rng(seed), heads={"rotation": 4}) for seed in range(2)]
    together = stack(nets)
    assert together.sizes == (7, 5, 3)
    assert repr(together) == repr(nets[0]) == "Network(7-5-3, rotation 4, float32)"
    for net, back in zip(nets, unstack(together), strict=True):
        for layer, again in zip(net.all_layers, back.all_layers, strict=True):
            assert all((again.parameters[name] == array).all() for name, array in layer.parameters.items())
    assert unstack(nets[0]) == [nets[0]]


def test_each_model_of_a_stack_predicts_for_itself():
    nets = [mlp((7, 5, 3), np.random.default_rng(seed)) for seed in range(2)]
    x = np.random.default_rng(2).random((20, 7), dtype=np.float32)
    assert stack(nets).predict(x).tolist() == [net.predict(x).tolist() for net in nets]


@pytest.mark.parametrize("task", ["age", "zoom"])
def test_a_task_is_known_by_its_name_whatever_it_is(task):
    net = mlp((7, 5, 3), np.random.default_rng(0), heads={task: 4})
    x, read = np.ones((2, 7), np.float32), "".join(list(task))  # an equal text from elsewhere, as from a file
    once = net.run(x, np.array([0, 3]), task=read)
    assert once.logits.shape == (2, 4)
    assert net.logits(x, "".join(list(MAIN))).shape == (2, 3)
    *_, main, head = net.gradients([(1.0, once)])
    assert (main, head["W"].shape) == ({}, (5, 4))


def test_a_gradient_for_each_layer_no_more_and_no_less():
    net = mlp((3, 2), np.random.default_rng(0))
    grads = list(net.gradients([(1.0, net.run(np.ones((1, 3), np.float32), np.array([0])))]))
    for wrong in ([], [*grads, {}]):
        with pytest.raises(ValueError, match=r"zip\(\)"):
            sgd_step(net, wrong, 0.1)


def test_a_copy_has_arrays_of_its_own():
    net = mlp((3, 2), np.random.default_rng(0))
    copy, before = net.copy(), net.layers[0].W.tolist()
    sgd_step(net, [{"W": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}], 1.0)
    assert copy.layers[0].W.tolist() == before != net.layers[0].W.tolist()


@pytest.mark.parametrize("sizes", [(), (5,), (5, 0, 2), (-1, 2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(NnliteError, match="sizes"):
        mlp(sizes, np.random.default_rng(0))


def test_only_nets_of_equal_sizes_make_a_stack():
    rng = np.random.default_rng(0)
    with pytest.raises(NnliteError, match="equal sizes"):
        stack([mlp((3, 2), rng), mlp((3, 3), rng)])
    with pytest.raises(NnliteError, match="equal sizes"):
        stack([])
