"""The table of methods: what each takes, what its runs are called, what its numbers mean, and that it is what it says.

The originals of the earlier works are written out here on their own, on HIPS autograd, as their papers state them.
"""

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
from nets import GIVEN, biased_mlp

from nnlite import methods
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.gradcheck import away_from_kinks
from nnlite.init import generator
from nnlite.layers import Dense
from nnlite.methods import EXAMPLES, METHODS, Regularisation
from nnlite.network import stack
from nnlite.penalties import L2, L2_NORM, LINF
from nnlite.sgd import train_step
from nnlite.training.loop import train
from nnlite.training.settings import Settings
from nnlite.training.update import update_of

EARLIER = ("szegedy", "goodfellow", "gu-rigazio", "huang", "miyato", "lyu", "nokland")
NUMBERS = {"lam": 0.01, "phi": 0.1, "alpha": 0.5, "p": "2", "term": ("l1,0.01,0.1",)}


def numbers(reg):
    return {name: NUMBERS[name] for name in METHODS[reg].takes}


# --- the table


@pytest.mark.parametrize(
    ("reg", "given", "slug"),
    [
        ("none", {}, "rect"),
        ("l1", {"lam": 0.001}, "l1-lam0.001"),
        ("l2", {"lam": 1e-5}, "l2-lam1e-05"),
        ("dgl1", {"lam": 0.01, "phi": 0.1}, "dgl1-lam0.01-phi0.1"),
        ("dgl2", {"lam": 0.0, "phi": 5.0}, "dgl2-lam0-phi5"),
        ("dgl1", {"lam": 0.01, "gradient": "exact"}, "dgl1-exact-lam0.01"),
        ("lyu", {"phi": 0.1, "p": "inf"}, "lyu-phi0.1-pinf"),
        ("goodfellow", {"phi": 0.25, "alpha": 0.5}, "goodfellow-phi0.25-alpha0.5"),
        ("szegedy", {"alpha": 0.9}, "szegedy-alpha0.9"),
        ("datagrad", {"term": ("l1,0.01,0.1", "linf,1,exact,rotation")}, "datagrad-l1-0.01-0.1-linf-1-exact-rotation"),
    ],
)
def test_a_run_is_called_by_its_method_and_numbers(reg, given, slug):
    assert Regularisation(reg, **given).slug == slug


@pytest.mark.parametrize("reg", METHODS)
def test_a_method_needs_each_option_that_it_takes(reg):
    Regularisation(reg, **numbers(reg))
    for name in METHODS[reg].takes:
        others = {other: value for other, value in numbers(reg).items() if other != name}
        with pytest.raises(NnliteError, match=rf"^{name}: method {reg} needs it; give for example .*--{name} "):
            Regularisation(reg, **others)


@pytest.mark.parametrize("reg", METHODS)
def test_the_numbers_given_as_an_example_are_taken_without_a_warning(reg):
    given = {name: EXAMPLES[name] for name in METHODS[reg].takes}
    given = {name: (value,) if name == "term" else value for name, value in given.items()}
    assert Regularisation(reg, **given).mix()[1] is None


@pytest.mark.parametrize("reg", METHODS)
def test_an_option_of_another_method_is_refused(reg):
    for name in NUMBERS.keys() - set(METHODS[reg].takes):
        with pytest.raises(NnliteError, match=f"^{name}: method {reg} does not use it; leave it out"):
            Regularisation(reg, **numbers(reg), **{name: NUMBERS[name]})


def test_the_exact_gradient_is_for_penalties_and_takes_no_step():
    for reg, method in METHODS.items():
        if method.has_exact:
            (term,) = Regularisation(reg, lam=0.01, gradient="exact").terms
            assert term.phi is None
            with pytest.raises(NnliteError, match=r"^phi: the exact gradient takes no step; leave it out"):
                Regularisation(reg, lam=0.01, phi=0.1, gradient="exact")
        else:
            with pytest.raises(
                NnliteError, match=f"^gradient: method {reg} has no penalty .* dgl1, dgl2, dgl2norm, dglinf"
            ):
                Regularisation(reg, **numbers(reg), gradient="exact")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"reg": "dgl3"}, "reg: expected one of none, .*found 'dgl3'"),
        ({"reg": "dgl1", "lam": 0.1, "gradient": "symbolic"}, "gradient: expected one of finite, exact"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": 1.01}, "alpha: expected a number from 0 to 1, found 1.01"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": -0.01}, "alpha"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": float("nan")}, "alpha"),
        ({"reg": "lyu", "phi": 0.1, "p": "3"}, "p: expected one of 1, 2, inf, found '3'"),
        ({"reg": "nokland", "phi": 0.0}, "phi: expected a finite number above 0"),
        ({"reg": "nokland", "phi": -0.1}, "phi: expected a finite number above 0"),
        (
            {"reg": "datagrad", "term": ("l3,0.01,0.1",)},
            "term: expected PENALTY.*one of l1, .*found 'l3",
        ),
        ({"reg": "datagrad", "term": ("l1,0.01",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,0.01,tiny",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,0.01,0.1,digit,5",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,-1,0.1",)}, "lam: expected a finite number of at least 0"),
        ({"reg": "datagrad", "term": ("l1,0.01,0",)}, "phi: expected a finite number above 0"),
        ({"reg": "miyato", "lam": -1.0, "phi": 0.1}, "lam: expected a finite number of at least 0"),
    ],
)
def test_wrong_numbers_are_named(given, named):
    with pytest.raises(NnliteError, match=f"^{named}"):
        Regularisation(**given)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_either_loss_may_have_all_the_weight(alpha):
    (term,) = Regularisation("goodfellow", phi=0.25, alpha=alpha).terms
    assert term.weight == 1 - alpha


def test_datagrad_has_one_term():
    (term,) = Regularisation("dgl2", lam=0.02, phi=0.1).terms
    assert (term.penalty, term.lam, term.phi) == (L2, 0.02, 0.1)
    assert term.weight == pytest.approx(0.2)


def test_any_terms_of_equation_1_can_be_given():
    first, second = Regularisation("datagrad", term=("linf,0.01,0.1", "l2norm,2,exact,rotation")).terms
    assert (first.penalty, first.lam, first.phi, first.task) == (LINF, 0.01, 0.1, "digit")
    assert (second.penalty, second.lam, second.phi, second.task) == (L2_NORM, 2, None, "rotation")
    with pytest.raises(NnliteError, match=r"term: expected the task digit, found 'rotation'; see --multitask"):
        Settings(reg="datagrad", term=("l1,0.01,0.1,rotation",))
    assert (
        Settings(reg="datagrad", term=("l1,0.01,0.1,rotation",), multitask=True, gamma=0.5).terms[0].task == "rotation"
    )


def test_every_earlier_work_is_cited():
    for reg in EARLIER:
        assert "arXiv:1" in METHODS[reg].source
    assert set(METHODS) - set(EARLIER) == {"none", "l1", "l2", "dgl1", "dgl2", "dgl2norm", "dglinf", "datagrad"}


# --- what lambda and phi mean: clean weight 1 - lam/phi, adversarial weight lam/phi


@pytest.mark.parametrize(
    ("reg", "given", "said"),
    [
        (
            "dgl1",
            {"lam": 0.01, "phi": 0.1},
            "0.9 clean + 0.1 adversarial gradient: Goodfellow et al. 2014 with alpha",
        ),
        ("dgl2", {"lam": 0.01, "phi": 0.1}, "0.9 clean + 0.1 adversarial gradient"),
        (
            "dgl1",
            {"lam": 0.1, "phi": 0.1},
            "0 clean + 1 adversarial gradient: adversarial samples only, as Nøkland",
        ),
        ("dgl1", {"lam": 0.7, "phi": 0.7}, "0 clean + 1 adversarial gradient: adversarial samples only"),
        ("dgl1", {"lam": 0.0, "phi": 0.1}, "1 clean + 0 adversarial gradient"),
        ("dgl1", {"lam": 0.01, "gradient": "exact"}, "1 clean + 0.01 exact penalty gradient"),
        ("datagrad", {"term": ("l1,0.01,0.1", "l2,3,exact")}, "0.9 clean + 0.1 adversarial + 3 exact penalty gradient"),
        # a term on the loss of another task takes nothing off the digits' loss
        (
            "datagrad",
            {"term": ("l1,0.01,0.1,digit", "l1,0.02,0.1,age")},
            "0.9 clean + 0.1 adversarial + 0.2 adversarial",
        ),
        ("datagrad", {"term": ("l1,0.02,0.1,rotation",)}, "1 clean + 0.2 adversarial"),
        ("goodfellow", {"phi": 0.3, "alpha": 0.9}, "0.9 clean + 0.1 adversarial gradient"),
        ("szegedy", {"alpha": 0.25}, "0.25 clean + 0.75 adversarial gradient"),
        ("huang", {"phi": 0.3}, "0 clean + 1 adversarial gradient"),
        ("lyu", {"phi": 0.7, "p": "1"}, "0 clean + 1 adversarial gradient"),
        ("nokland", {"phi": 0.08}, "0 clean + 1 adversarial gradient"),
        ("miyato", {"lam": 0.5, "phi": 2.1}, "1 clean + 0.5 adversarial gradient"),
        ("none", {}, "no adversarial pass"),
        ("l1", {"lam": 0.1}, "no adversarial pass"),
        ("gu-rigazio", {"lam": 0.1}, "no adversarial pass"),
    ],
)
def test_what_the_numbers_mean_is_said(reg, given, said):
    words, warning = Regularisation(reg, **given).mix()
    assert said in words
    assert words.startswith(METHODS[reg].source)
    assert ("Goodfellow" in words) == (reg == "goodfellow" or "Goodfellow" in said)
    assert warning is None


@pytest.mark.parametrize(("lam", "clean", "shifted"), [(0.3, -2, 3), (0.15, -0.5, 1.5)])
def test_lambda_above_phi_warns_of_the_negative_weight(lam, clean, shifted):
    words, warning = Regularisation("dgl1", lam=lam, phi=0.1).mix()
    assert words.endswith(f"mixes {clean} clean + {shifted} adversarial gradient")  # neither Goodfellow's nor Nøkland's
    assert f"negative weight {clean}" in warning


@pytest.mark.parametrize(("phi", "warns"), [(1e-4, True), (1e-6, True), (2e-4, False)])
def test_a_tiny_phi_warns(phi, warns):
    _, warning = Regularisation("dgl1", lam=phi / 10, phi=phi).mix()
    assert (warning is not None) == warns
    assert not warns or f"phi = {phi:g}" in warning


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


DEEP, BATCH = (6, 9, 8, 4), 5
CASES = [
    *((reg, GIVEN[reg], DEEP, BATCH) for reg in EARLIER if reg != "szegedy"),
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


@pytest.mark.parametrize("reg", EARLIER)
def test_every_earlier_method_trains_and_its_seed_decides_it(reg, digits):
    data = replace(digits, train=digits.train[:400])
    settings = Settings(reg=reg, **GIVEN[reg], hidden=(32,), epochs=5, batch_size=50, lr=0.5)
    one, other, another = (train(replace(settings, seed=seed), data) for seed in (0, 0, 1))
    assert accuracy(one.net, data.test) > 50
    assert all((a.W == b.W).all() for a, b in zip(one.net.layers[::2], other.net.layers[::2], strict=True))
    assert (one.net.layers[0].W != another.net.layers[0].W).any()


@pytest.mark.parametrize("reg", EARLIER)
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


def test_virtual_adversarial_noise_needs_a_generator():
    rng = np.random.default_rng(0)
    net, x, y = biased_mlp([3, 2], rng), rng.random((2, 3)), np.array([0, 1])
    with pytest.raises(NnliteError, match=r"rng: .* give a generator"):
        train_step(net, x, y, update_of(Settings(reg="miyato", lam=1.0, phi=0.1)))
