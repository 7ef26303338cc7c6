"""Layers of the user's own: they plug into Network, gradcheck and training, and nothing of theirs is lost."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from nets import biased_mlp, flat, gradient_error

from nnlite.datagrad import Term, weighted_passes
from nnlite.errors import NnliteError
from nnlite.gradcheck import TOLERANCE, away_from_kinks, check_network, check_penalty
from nnlite.layers import Dense, ReLU
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import Network, stack, unstack
from nnlite.penalties import L1, L2, LINF, masked
from nnlite.sgd import Update, train_step

pytestmark = pytest.mark.once


@dataclass(frozen=True)
class LeakyReLU(ReLU):
    """A subclass of ReLU with a field."""

    slope: float = 0.01

    def forward(self, x):
        return np.where(x > 0, x, self.slope * x)

    def backward(self, x, dy):
        return np.where(x > 0, dy, self.slope * dy)

    def tangent(self, x, change):
        return np.where(x > 0, change, self.slope * change)


class Softplus:
    """log(1 + exp(x)), smooth: no dataclass, no base class, nothing of nnlite's."""

    parameters: dict = {}  # noqa: RUF012

    def __init__(self, sharpness):
        self.sharpness = sharpness

    def forward(self, x):
        return np.logaddexp(0, self.sharpness * x) / self.sharpness

    def slope(self, x):
        return 1 / (1 + np.exp(-self.sharpness * x))

    def backward(self, x, dy):
        return dy * self.slope(x)

    def tangent(self, x, change):
        return change * self.slope(x)

    def backward_tangent(self, x, dy, change):
        return dy * self.sharpness * self.slope(x) * (1 - self.slope(x)) * change


class Gain:
    """y = a x^2 unit by unit, with a parameter that training changes."""

    def __init__(self, a, unit="none"):
        self.a, self.unit = a, unit

    @property
    def parameters(self):
        return {"a": self.a}

    def forward(self, x):
        return self.a[..., None, :] * x * x

    def backward(self, x, dy):
        return 2 * self.a[..., None, :] * x * dy

    def gradients(self, x, dy, change=None):
        return {"a": (x * x * dy if change is None else 2 * x * change * dy).sum(axis=-2)}

    def tangent(self, x, change):
        return 2 * self.a[..., None, :] * x * change

    def backward_tangent(self, x, dy, change):
        return 2 * self.a[..., None, :] * change * dy


def own_net(*activations, seed=0, width=6):
    """Return a net in float64 with these layers between its Dense ones."""
    dense = biased_mlp([5, *[width] * len(activations), 4], np.random.default_rng(seed)).layers[::2]
    layers = [layer for pair in zip(dense, activations, strict=False) for layer in pair]
    return Network((*layers, dense[-1]))


def batch(seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((7, 5)), rng.integers(0, 4, 7)


ALL = (LeakyReLU(0.1), Softplus(2.0), Gain(np.linspace(0.5, 1.5, 6)))


def test_they_are_checked_by_gradcheck():
    x, y = batch()
    net = away_from_kinks(own_net(*ALL), x)
    checks = check_network(net, x, y)
    assert {check.name for check in checks} == {f"layer {k} {n}" for k in (0, 2, 4, 6) for n in "Wb"} | {
        "layer 5 a",
        "input x",
    }
    assert max(check.error for check in checks) < TOLERANCE


@pytest.mark.parametrize("penalty", [L1, L2, LINF, masked(L1, np.ones(5))])
@pytest.mark.parametrize("activations", [(LeakyReLU(0.1),) * 2, (Softplus(1.0),) * 2, ALL])
def test_their_exact_gradient_is_that_of_the_penalty(penalty, activations):
    x, y = batch()
    checks = check_penalty(own_net(*activations), x, y, penalty)
    assert max(check.error for check in checks) < 1e-5


def test_the_exact_gradient_of_a_smooth_net_agrees_with_differences_that_hold_nothing():
    x, y = batch()
    net = own_net(Softplus(1.0), Gain(np.ones(6)))

    def penalised(of):
        return float((of.run(x, y).dx ** 2).sum(axis=-1).mean())

    exact = net.gradients(weighted_passes(net, x, y, [Term(L2, 1.0, None)], lam0=0.0))
    assert gradient_error(penalised, net, exact) < 1e-6


def test_a_net_of_them_learns():
    rng = np.random.default_rng(0)
    x = rng.random((60, 5))
    y = (4 * x[:, 0]).astype(int)
    net = own_net(*ALL).copy()
    before = net.run(x, y).loss.mean()
    for _ in range(1500):
        train_step(net, x, y, Update(lr=0.1, terms=(Term(L1, 0.001, 0.01), Term(L2, 0.001, None))))
    assert net.run(x, y).loss.mean() < 0.8 * before


def test_all_their_fields_survive():
    net = own_net(LeakyReLU(0.3), Softplus(3.0), Gain(np.ones(6), unit="volts"))
    for other in (
        net.copy(),
        net.astype(np.float32),
        net.to("cpu"),
        net.map(lambda array: array + 1),
        *unstack(stack([net, net])),
        stack([net, net.copy()]),
        net.rebuild(net.all_layers),
    ):
        _, leaky, _, softplus, _, gain, _ = other.layers
        assert (leaky.slope, softplus.sharpness, gain.unit) == (0.3, 3.0, "volts")
    assert net.copy().layers[5].a is not net.layers[5].a
    assert net.astype(np.float32).layers[5].a.dtype == np.float32


def test_a_stack_of_them_equals_its_models():
    x, y = batch()
    nets = [own_net(Softplus(1.0), Gain(np.ones(6)), seed=seed) for seed in (0, 1)]
    terms = [Term(L2, 0.1, None), Term(L1, 0.01, 0.1)]
    together = stack(nets)
    grads = [*together.gradients(weighted_passes(together, x, y, terms))]
    for k, net in enumerate(nets):
        for grad, alone in zip(grads, net.gradients(weighted_passes(net, x, y, terms)), strict=True):
            assert all(grad[name][k] == pytest.approx(alone[name], rel=1e-10) for name in alone)


def test_an_array_that_is_no_parameter_survives_a_stack_and_tells_layers_apart():
    class Shifted(Softplus):
        def __init__(self, shift):
            super().__init__(1.0)
            self.shift = shift

    one, same, other = (own_net(Shifted(np.full(6, value))) for value in (1.0, 1.0, 2.0))
    assert (stack([one, same]).layers[1].shift == 1).all()
    with pytest.raises(NnliteError, match="differ in their arrays only"):
        stack([one, other])


def test_layers_that_differ_make_no_stack():
    with pytest.raises(NnliteError, match=r"differ in their arrays only, found Leaky.*0\.1.*and Leaky.*0\.2"):
        stack([own_net(LeakyReLU(0.1)), own_net(LeakyReLU(0.2))])


# What is missing is named when the net is built


class Nothing:
    pass


@pytest.mark.parametrize(
    ("missing", "layer"),
    [
        ("parameters and forward and backward", Nothing()),
        ("backward", type("NoWayBack", (), {"parameters": {}, "forward": lambda self, x: x})()),
        ("gradients", type("NoGradients", (Gain,), {"gradients": None})(np.ones(6))),
    ],
)
def test_a_missing_method_is_named_when_the_net_is_built(missing, layer):
    with pytest.raises(
        NnliteError, match=rf"layer 1 \({type(layer).__name__}\): expected {missing} in a layer, found none"
    ):
        own_net(layer)


def test_a_parameter_that_is_no_attribute_is_named():
    odd = type("Odd", (Gain,), {"parameters": property(lambda self: {"alpha": self.a})})(np.ones(6))
    with pytest.raises(NnliteError, match=r"layer 1 \(Odd\): expected alpha"):
        own_net(odd)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((), "a Dense layer at the end"),
        ((Dense(np.ones((3, 2)), np.ones(2)), ReLU()), "a Dense layer at the end"),
        ((Dense(np.ones((3, 2)), np.ones(3)),), r"layer 0: expected W \(in, out\) and b \(out,\)"),
        ((Dense(np.ones(3), np.ones(3)),), r"layer 0: expected W \(in, out\)"),
        ((Dense(np.ones((2, 3, 2)), np.ones(2)),), r"layer 0: expected W \(in, out\)"),
        (
            (Dense(np.ones((3, 2)), np.ones(2)), ReLU(), Dense(np.ones((4, 2)), np.ones(2))),
            "layer 2: expected W \\(2, out\\)",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_named_when_the_net_is_built(layers, words):
    with pytest.raises(NnliteError, match=words):
        Network(layers)


def test_a_head_that_does_not_fit_is_named_when_the_net_is_built():
    first, last = Dense(np.ones((3, 2)), np.ones(2)), Dense(np.ones((2, 4)), np.ones(4))
    Network((first, ReLU(), last), {"rotation": Dense(np.ones((2, 5)), np.ones(5))})
    with pytest.raises(NnliteError, match="head rotation: expected W \\(2, out\\)"):
        Network((first, ReLU(), last), {"rotation": Dense(np.ones((4, 5)), np.ones(5))})
    with pytest.raises(NnliteError, match="as each head"):
        Network((first, ReLU(), last), {"rotation": ReLU()})


# What the exact gradient needs


def without(layer, *names):
    """Return a layer like `layer` that lacks these methods."""
    kept = {name: value for kind in type(layer).__mro__[::-1] for name, value in vars(kind).items()}
    kept = {name: value for name, value in kept.items() if name not in (*names, "__dict__", "__weakref__")}
    bare = type("Bare", (), kept)
    made = object.__new__(bare)
    made.__dict__.update(vars(layer))
    return made


@pytest.mark.parametrize(
    ("layer", "missing"),
    [
        (without(Softplus(1.0), "backward_tangent"), "backward_tangent"),
        (without(Softplus(1.0), "tangent"), "tangent"),
        (without(LeakyReLU(0.1), "tangent"), "tangent"),
    ],
)
def test_a_layer_without_a_tangent_trains_with_a_step_and_has_no_exact_gradient(layer, missing):
    x, y = batch()
    net = own_net(layer).copy()
    train_step(net, x, y, Update(lr=0.1, terms=(Term(L1, 0.01, 0.1),)))
    before = flat(net, [layer.parameters for layer in net.layers])
    with pytest.raises(NnliteError, match=rf"layer 1 \(Bare\): expected {missing} for the exact gradient"):
        train_step(net, x, y, Update(lr=0.1, terms=(Term(L1, 0.01, None),)))
    assert (flat(net, [layer.parameters for layer in net.layers]) == before).all()


def squared_error(logits, y):
    difference = logits - (y[..., None] == np.arange(logits.shape[-1]))
    return (difference**2).sum(axis=-1), 2 * difference


MSE = Loss("squared error", squared_error, lambda logits, y, change: 2 * change)


def test_the_exact_gradient_is_that_of_its_own_loss():
    x, y = batch()
    net = away_from_kinks(biased_mlp([5, 8, 6, 4], np.random.default_rng(0)), x)

    def penalised(of):
        return float((of.run(x, y, loss=MSE).dx ** 2).sum(axis=-1).mean())

    passes = weighted_passes(net, x, y, [Term(L2, 1.0, None, loss=MSE)], lam0=0.0)
    assert gradient_error(penalised, net, net.gradients(passes)) < 1e-6


def test_a_loss_without_a_tangent_has_no_exact_gradient():
    x, y = batch()
    unknown, net = replace(MSE, tangent=None), own_net(ReLU())
    assert len(weighted_passes(net, x, y, [Term(L2, 1.0, 0.1, loss=unknown)])) == 3
    with pytest.raises(NnliteError, match="phi: squared error has no tangent"):
        Term(L2, 1.0, None, loss=unknown)
    with pytest.raises(NnliteError, match=r"loss: .*squared.error.* has no tangent"):
        net.tangent(net.run(x, y, loss=unknown), x)
    for call in (lambda: Term(L2, 1.0, 0.1, loss=squared_error), lambda: net.run(x, y, loss=squared_error)):
        with pytest.raises(NnliteError, match="loss: expected a Loss, found <function squared_error"):
            call()


# Values that were rebuilt, or sent to another process, mean the same


@pytest.mark.parametrize("value", [L1, LINF, masked(L1, np.array([1.0, 0, 1, 1, 1])), softmax_cross_entropy])
def test_a_value_means_the_same_after_pickling(value):
    x, y = batch()
    net = away_from_kinks(biased_mlp([5, 8, 4], np.random.default_rng(0)), x)
    again = pickle.loads(pickle.dumps(value))
    for term in (
        (Term(L1, 0.1, 0.1, loss=value), Term(L1, 0.1, None, loss=value))
        if isinstance(value, Loss)
        else (
            Term(value, 0.1, 0.1),
            Term(value, 0.1, None),
        )
    ):
        sent = pickle.loads(pickle.dumps(term))
        both = [flat(net, net.gradients(weighted_passes(net, x, y, [one]))) for one in (term, sent)]
        assert (both[0] == both[1]).all()
        assert len(weighted_passes(net, x, y, [sent])) == 2  # the loss is known again: no clean pass of its own
    if not isinstance(value, Loss):
        assert (again.piecewise_linear, again.ball) == (value.piecewise_linear, value.ball)
        assert max(check.error for check in check_penalty(net, x, y, again)) < TOLERANCE
