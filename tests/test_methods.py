"""The table of methods: each row is the method that it names.

The originals of the earlier works are written out here independently, on HIPS autograd, as their papers state them.
"""

import pickle
from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from nets import GIVEN, biased_mlp, gradient_error

from nnlite import methods
from nnlite.datagrad import Term, weighted_passes
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.gradcheck import away_from_kinks
from nnlite.init import generator
from nnlite.layers import Dense
from nnlite.methods import METHODS
from nnlite.network import stack
from nnlite.penalties import L1
from nnlite.sgd import train_step
from nnlite.training.loop import train
from nnlite.training.settings import Settings
from nnlite.training.update import update_of

EARLIER = ("szegedy", "goodfellow", "gu-rigazio", "huang", "miyato", "lyu", "nokland")
LATER = ("pgd", "trades")
CITED = (*EARLIER, *LATER)


# --- the table


def test_every_work_of_others_is_cited():
    for reg in CITED:
        assert "arXiv:1" in METHODS[reg].source
    assert set(METHODS) - set(CITED) == {"none", "l1", "l2", "dgl1", "dgl2", "dgl2norm", "dglinf", "datagrad"}


@pytest.mark.parametrize("reg", METHODS)
def test_a_row_is_the_same_in_another_process(reg):
    method, again = METHODS[reg], pickle.loads(pickle.dumps(METHODS[reg]))
    assert (again.source, again.takes, again.has_exact) == (method.source, method.takes, method.has_exact)
    assert (again.on_weights is None) == (method.on_weights is None)
    values = {"lam": 0.01, "phi": 0.1, "alpha": 0.5, "p": "1", "steps": 3, "term": (Term(L1, 0.1, None),)}
    given = {name: values[name] for name in method.takes if method.on_weights is None}
    both = [[(term.penalty, term.lam, term.phi, term.loss) for term in row.terms(**given)] for row in (method, again)]
    assert both[0] == both[1]


# --- the originals, written out on their own: flat weights in, batch-mean gradients out


def forward(params, x):
    hidden = x
    for W, b in params[:-1]:
        hidden = anp.maximum(anp.dot(hidden, W) + b, 0)
    return anp.dot(hidden, params[-1][0]) + params[-1][1]


def log_softmax(z):
    z = z - anp.max(z, axis=1, keepdims=True)
    return z - anp.log(anp.sum(anp.exp(z), axis=1, keepdims=True))


def losses(params, x, y):
    return -log_softmax(forward(params, x))[anp.arange(len(y)), y]


def mean_loss(params, x, y):
    return anp.mean(losses(params, x, y))


def input_gradients(params, x, y):
    return autograd.grad(lambda moved: anp.sum(losses(params, moved, y)))(x)


def kl_to(params, x, log_p):
    return anp.sum(anp.exp(log_p) * (log_p - log_softmax(forward(params, x))), axis=1)


def lengths(g, p=2):
    return np.linalg.norm(g, ord=p, axis=1, keepdims=True)


def szegedy(params, x, y, rng, alpha):
    logits = forward(params, x)
    logits[np.arange(len(y)), y] = -np.inf
    samples = []
    for image, wrong in zip(x, logits.argmax(axis=1), strict=True):

        def objective(moved, image=image, wrong=wrong):
            return methods.SZEGEDY_C * anp.sum((moved - image) ** 2) + mean_loss(params, moved[None], np.array([wrong]))

        found = scipy.optimize.minimize(
            objective, image, jac=autograd.grad(objective), method="L-BFGS-B", bounds=[(0, 1)] * len(image), tol=1e-14
        )
        samples.append(found.x)
    samples = np.array(samples)
    assert abs(samples - x).max() > 0.01
    return lambda w: alpha * mean_loss(w, x, y) + (1 - alpha) * mean_loss(w, samples, y)


def goodfellow(params, x, y, rng, phi, alpha):
    eta = phi * np.sign(input_gradients(params, x, y))
    return lambda w: alpha * mean_loss(w, x, y) + (1 - alpha) * mean_loss(w, x + eta, y)


def gu_rigazio(params, x, y, rng, lam):
    def objective(w):
        penalty, hidden = 0.0, x
        for k, (W, b) in enumerate(w):

            def layer(h, W=W, b=b, k=k):
                return anp.dot(h, W) + b if k == len(w) - 1 else anp.maximum(anp.dot(h, W) + b, 0)

            jacobian = autograd.jacobian(layer)
            for row in range(len(y)):
                penalty = penalty + anp.sum(jacobian(hidden[row]) ** 2)
            hidden = layer(hidden)
        return mean_loss(w, x, y) + lam * penalty / len(y)

    return objective


def huang(params, x, y, rng, phi):
    g = input_gradients(params, x, y)
    return lambda w: mean_loss(w, x + phi * g / lengths(g), y)


def miyato(params, x, y, rng, lam, phi):
    log_p, xi = log_softmax(forward(params, x)), 1e-6
    d = rng.standard_normal(x.shape)
    d = autograd.grad(lambda r: anp.sum(kl_to(params, x + r, log_p)))(xi * d / lengths(d))
    r = phi * d / lengths(d)
    return lambda w: mean_loss(w, x, y) + lam * anp.mean(kl_to(w, x + r, log_p))


def lyu(params, x, y, rng, phi, p):
    g = input_gradients(params, x, y)
    if p == "1":  # the limit of the general formula
        r = np.where(abs(g) == abs(g).max(axis=1, keepdims=True), np.sign(g), 0)
    elif p == "inf":
        r = np.sign(g)
    else:
        p = float(p)
        r = np.sign(g) * (abs(g) / lengths(g, p / (p - 1))) ** (1 / (p - 1))
    return lambda w: mean_loss(w, x + phi * r, y)


def nokland(params, x, y, rng, phi):
    moved = x + phi * np.sign(input_gradients(params, x, y))
    return lambda w: mean_loss(w, moved, y)


def ascent(function, x, start, phi, steps):
    point = start
    for _ in range(steps):
        point = point + 2.5 * phi / steps * np.sign(autograd.grad(lambda moved: anp.sum(function(moved)))(point))
        point = np.clip(np.clip(point, x - phi, x + phi), 0, 1)
    return point


def pgd(params, x, y, rng, phi, steps):
    start = x + rng.uniform(-phi, phi, x.shape)
    moved = ascent(lambda point: losses(params, point, y), x, start, phi, steps)
    return lambda w: mean_loss(w, moved, y)


def trades(params, x, y, rng, lam, phi, steps):
    log_p = log_softmax(forward(params, x))
    start = x + 0.001 * rng.standard_normal(x.shape)
    moved = ascent(lambda point: kl_to(params, point, log_p), x, start, phi, steps)
    return lambda w: mean_loss(w, x, y) + lam * anp.mean(kl_to(w, moved, log_softmax(forward(w, x))))


DEEP, BATCH = (6, 9, 8, 4), 5
CASES = [
    *((reg, GIVEN[reg], DEEP, BATCH) for reg in CITED if reg != "szegedy"),
    ("pgd", {"phi": 0.4, "steps": 10}, DEEP, BATCH),
    ("trades", {"lam": 6.0, "phi": 0.4, "steps": 10}, DEEP, BATCH),
    ("lyu", {"phi": 0.3, "p": "2"}, DEEP, BATCH),
    ("lyu", {"phi": 0.1, "p": "inf"}, DEEP, BATCH),
    # all images are one problem here and one each there; both find the minimum where there is but one
    ("szegedy", {"alpha": 0.5}, (6, 4), BATCH),
    ("szegedy", {"alpha": 0.25}, DEEP, BATCH),
]


@pytest.mark.parametrize(("reg", "given", "sizes", "batch"), CASES)
def test_an_update_equals_the_original_algorithm(reg, given, sizes, batch, monkeypatch):
    monkeypatch.setattr(methods, "SZEGEDY_ITERATIONS", 500)  # so that both searches arrive
    if sizes == DEEP:
        monkeypatch.setattr(methods, "SZEGEDY_C", 20.0)  # the minimum is then nearer than any other
    rng = np.random.default_rng(3)
    x, y = rng.random((batch, 6)), rng.integers(0, 4, batch)
    net = away_from_kinks(biased_mlp(list(sizes), rng), x)
    params = [(layer.W.copy(), layer.b.copy()) for layer in net.layers if isinstance(layer, Dense)]
    objective = globals()[reg.replace("-", "_")](params, x, y, generator(0, "noise"), **given)
    slopes = autograd.grad(objective)(params)
    train_step(net, x, y, update_of(Settings(reg=reg, **given, lr=1.0)), generator(0, "noise"))
    found = [layer for layer in net.layers if isinstance(layer, Dense)]
    size = 1e-4 if reg == "szegedy" else 1e-6  # a search stops near its minimum, a formula does not
    for layer, (W, b), (dW, db) in zip(found, params, slopes, strict=True):
        np.testing.assert_allclose(W - layer.W, dW, rtol=1e-4, atol=size)
        np.testing.assert_allclose(b - layer.b, db, rtol=1e-4, atol=size)


@pytest.mark.once
@pytest.mark.parametrize("reg", CITED)
def test_every_method_of_others_trains_and_its_seed_decides_it(reg, digits):
    data = replace(digits, train=digits.train[:400])
    settings = Settings(reg=reg, **GIVEN[reg], hidden=(32,), epochs=5, batch_size=50, lr=0.5)
    one, other, another = (train(replace(settings, seed=seed), data) for seed in (0, 0, 1))
    assert accuracy(one.net, data.test) > 50
    assert all((a.W == b.W).all() for a, b in zip(one.net.layers[::2], other.net.layers[::2], strict=True))
    assert (one.net.layers[0].W != another.net.layers[0].W).any()


@pytest.mark.parametrize("reg", CITED)
def test_a_stack_takes_the_steps_of_its_models(reg, monkeypatch):
    monkeypatch.setattr(methods, "SZEGEDY_ITERATIONS", 500)
    rng = np.random.default_rng(0)
    nets = [biased_mlp([6, 4] if reg == "szegedy" else [6, 9, 4], rng) for _ in range(2)]
    together = stack(nets)
    x, y = rng.random((5, 6)), rng.integers(0, 4, 5)
    settings = update_of(Settings(reg=reg, **GIVEN[reg]))
    train_step(together, x, y, settings, generator(0, "noise"))
    for k, net in enumerate(nets):
        train_step(net, x, y, settings, generator(0, "noise"))
        for layer, own in zip(together.layers[::2], net.layers[::2], strict=True):
            np.testing.assert_allclose(layer.W[k], own.W, rtol=1e-3 if reg == "szegedy" else 1e-9)


@pytest.mark.parametrize("reg", ["miyato", *LATER])
def test_noise_that_begins_at_random_needs_a_generator(reg):
    rng = np.random.default_rng(0)
    net, x, y = biased_mlp([3, 2], rng), rng.random((2, 3)), np.array([0, 1])
    with pytest.raises(NnliteError, match=r"rng: .* give a generator"):
        train_step(net, x, y, update_of(Settings(reg=reg, **GIVEN[reg])))


# --- PGD and TRADES: their samples, and what their gradient goes through


@pytest.mark.parametrize("reg", LATER)
def test_samples_of_pgd_are_those_of_the_plain_loop_within_the_range_of_pixels(reg):
    net, x, y = black_and_white()
    given = {**GIVEN[reg], "phi": 0.3, "steps": 10}
    params = [(layer.W, layer.b) for layer in net.layers if isinstance(layer, Dense)]
    rng, log_p = generator(0, "noise"), log_softmax(forward(params, x))
    if reg == "pgd":
        start = x + rng.uniform(-0.3, 0.3, x.shape)
        expected = ascent(lambda point: losses(params, point, y), x, start, 0.3, 10)
    else:
        start = x + 0.001 * rng.standard_normal(x.shape)
        expected = ascent(lambda point: kl_to(params, point, log_p), x, start, 0.3, 10)
    found = sample(net, x, y, Settings(reg=reg, **given))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert abs(expected - x).max() == pytest.approx(0.3)
    assert expected.min() == 0
    assert expected.max() == 1


def test_the_update_of_trades_is_the_gradient_of_its_objective_through_both_predictions():
    net, x, y = black_and_white()
    settings = Settings(reg="trades", lam=6.0, phi=0.3, steps=10)
    moved = sample(net, x, y, settings)

    def objective(changed, target=None):
        p, q = (scipy.special.softmax(changed.logits(point), axis=-1) for point in (x, moved))
        loss = -np.log(p[np.arange(len(y)), y])
        return float((loss + 6.0 * scipy.special.rel_entr(p if target is None else target, q).sum(axis=-1)).mean())

    def grads():
        return net.gradients(weighted_passes(net, x, y, settings.terms, rng=generator(0, "noise")))

    assert gradient_error(objective, net, grads()) < 1e-7
    held = scipy.special.softmax(net.logits(x), axis=-1)
    assert gradient_error(lambda changed: objective(changed, held), net, grads()) > 0.1


@pytest.mark.parametrize("reg", LATER)
def test_nets_of_a_stack_have_a_phi_of_their_own_whether_or_not_they_share_images(reg):
    rng = np.random.default_rng(0)
    nets = [biased_mlp([6, 9, 4], rng) for _ in range(2)]
    models = [Settings(reg=reg, **{**GIVEN[reg], "phi": phi}) for phi in (0.1, 0.3)]
    (term,) = models[0].terms
    phi = np.array([0.1, 0.3])
    together = replace(term, lam=phi * np.array([one.terms[0].weight for one in models]), phi=phi)
    own, y = rng.random((2, 5, 6)), rng.integers(0, 4, 5)
    for x in (own[0], own):
        found = sample(stack(nets), x, y, [together])
        noise = generator(0, "noise")
        drawn = noise.uniform(-1, 1, x.shape) if reg == "pgd" else noise.standard_normal(x.shape)
        for k, (net, model) in enumerate(zip(nets, models, strict=True)):
            given = Drawn(drawn if x.ndim == 2 else drawn[k])
            alone = sample(net, x if x.ndim == 2 else x[k], y, model, given)
            np.testing.assert_allclose(found[k], alone, rtol=0, atol=1e-12)


class Drawn:
    """A generator whose next numbers are given."""

    def __init__(self, numbers):
        self.uniform = lambda low, high, shape: numbers
        self.standard_normal = lambda shape: numbers


def black_and_white():
    """Return a net, and images with pixels at both ends of their range."""
    rng = np.random.default_rng(4)
    x = rng.random((5, 6))
    x[x < 0.2], x[x > 0.8] = 0, 1
    return biased_mlp([6, 9, 8, 4], rng), x, rng.integers(0, 4, 5)


def sample(net, x, y, of, rng=None):
    """Return the points at which the last term's own pass is taken."""
    terms = of.terms if isinstance(of, Settings) else of
    passes = weighted_passes(net, x, y, terms, rng=rng or generator(0, "noise"))
    return next(p.inputs[0] for _, p in reversed(passes) if p.inputs[0].shape != x.shape or (p.inputs[0] != x).any())
