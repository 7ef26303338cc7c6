"""The fast minimum-norm attack: linear nets, whose distances are known, L-BFGS beside it, and what it promises."""

import sys

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases
from scipy.optimize import brentq

from nnlite.attacks import NORMS
from nnlite.errors import NnliteError
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.promises import check_crafted
from nnlite.inputs import UNIT
from nnlite.layers import Dense
from nnlite.lbfgs import LBFGS
from nnlite.losses import runner_up
from nnlite.network import Network, stack
from nnlite.training import Settings, train

norms = pytest.mark.parametrize("norm", NORMS)
seeds = st.integers(0, 2**16)


def rng():
    return np.random.default_rng(0)


def found_by(attack, net, x, y):
    """Return what the attack found, and how far it is."""
    crafted = attack.craft(net, x, y, (), rng())
    return crafted, NORMS[attack.norm](crafted.smallest - x)


def linear(classes, seed, features=12, examples=20):
    """Return a linear net, images, and the labels that it gives them."""
    draw = np.random.default_rng(seed)
    net = Network((Dense(draw.normal(size=(features, classes)), 0.3 * draw.normal(size=classes)),))
    x = draw.random((examples, features))
    return net, x, net.predict(x)


# The distance of a linear net to class t is (z_y - z_t) / |w_y - w_t|, in the dual norm


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([*NORMS]), st.integers(2, 6), seeds)
def test_linear_nets_without_borders(norm, classes, seed):
    net, x, y = linear(classes, seed)
    W, z = net.layers[0].W.T, net.logits(x)
    difference, order = W[y][:, None] - W, {"linf": 1, "l2": 2}[norm]
    gap, length = z[np.arange(20), y][:, None] - z, np.linalg.norm(difference, order, axis=-1)
    distances = np.where(y[:, None] == np.arange(classes), np.inf, gap / np.where(length > 0, length, 1))
    _, found = found_by(FMN(norm, clip=False), net, x, y)
    exact = distances.min(axis=1)
    assert (found >= exact * (1 - 1e-9)).all()
    if classes == 2:
        assert found == pytest.approx(exact, rel=2e-3)
    else:  # the likeliest class need not be the nearest
        nearest = distances.argsort(axis=1)[:, 0]
        assert (found <= exact * 1.002)[nearest == runner_up(z, y)].all()


@norms
def test_linear_nets_within_the_range_of_pixels(norm):
    # two classes: the margin falls fastest along -sign(w) or -w, and a pixel that has reached 0 or 1 stays there
    net, x, y = linear(2, 3, examples=60)
    W, b = net.layers[0].W, net.layers[0].b
    _, found = found_by(FMN(norm), net, x, y)
    reached = 0
    for k, (image, label) in enumerate(zip(x, y, strict=True)):
        w, offset = W[:, label] - W[:, 1 - label], b[label] - b[1 - label]
        way = np.sign(w) if norm == "linf" else w

        def moved(share, image=image, way=way):
            return np.clip(image - share * way, 0, 1)

        if moved(1e3) @ w + offset < 0:  # there is a misclassified image at all
            share = brentq(lambda share, w=w, o=offset, moved=moved: moved(share) @ w + o, 0, 1e3, xtol=1e-13)
            assert found[k] == pytest.approx(NORMS[norm](moved(share) - image), rel=2e-3)
            reached += ((moved(share) == 0) | (moved(share) == 1)).any()
    assert reached > 5


# Beside the attack of Szegedy et al.


@pytest.mark.parametrize("reg", [{}, {"reg": "dgl1", "lam": 0.05, "phi": 0.1}])
def test_it_comes_as_near_as_lbfgs(digits, reg):
    net = train(Settings(hidden=(64, 64), epochs=15, **reg), digits).net
    x, y = digits.test.batch(slice(0, 60))
    right = net.predict(x) == y
    (near, found), (_, other) = (found_by(attack, net, x, y) for attack in (FMN("l2"), LBFGS()))
    assert (net.predict(near.smallest) != y).all()
    assert (found[right] / other[right]).mean() < 1.02


@norms
def test_more_steps_come_no_farther(trained, norm):
    data, net = trained
    x, y = data.test.batch(slice(0, 60))
    few, usual, many = (found_by(FMN(norm, steps), net, x, y)[1].mean() for steps in (10, 100, 400))
    assert usual < few
    assert many < 1.01 * usual


# What it promises


@settings(deadline=None, max_examples=40)
@given(cases(min_depth=1, classes=st.integers(2, 6)), st.sampled_from([*NORMS]), st.booleans())
def test_what_it_crafts_keeps_its_promises(case, norm, clip):
    net, x, y = case
    attack, phi, clean = FMN(norm, 30, clip), (0.0, 0.05, 0.3, 1.0), x.copy()
    crafted = attack.craft(net, x, y, phi, rng())
    check_crafted(attack, x, phi, crafted, UNIT)
    assert (x == clean).all()
    assert (crafted.images[0] == x).all()
    fooled, right = net.predict(crafted.smallest) != y, net.predict(x) == y
    assert (fooled == ~crafted.failed).all()
    assert (crafted.smallest == x)[crafted.failed | ~right].all()
    for size, image in zip(phi, crafted.images, strict=True):
        within = NORMS[norm](crafted.smallest - x) <= size
        assert (image == np.where(within[..., None], crafted.smallest, x)).all()


@norms
def test_where_there_is_no_way_the_image_is_returned(norm):
    x = rng().random((4, 6))
    flat = Network((Dense(np.zeros((6, 3)), np.array([0.0, 1.0, 0.0])),))
    crafted, _ = found_by(FMN(norm), flat, x, np.array([1, 1, 0, 1]))
    assert crafted.failed.tolist() == [True, True, False, True]
    assert (crafted.smallest == x).all()


@norms
def test_a_stack_is_attacked_model_by_model(norm):
    nets = [biased_mlp([8, 9, 4], np.random.default_rng(seed)) for seed in range(3)]
    x, y = rng().random((7, 8)), rng().integers(0, 4, 7)
    together, _ = found_by(FMN(norm), stack(nets), x, y)
    for k, net in enumerate(nets):
        alone, _ = found_by(FMN(norm), net, x, y)
        assert together.smallest[k] == pytest.approx(alone.smallest, abs=1e-9)


@norms
def test_it_runs_on_a_device_and_keeps_float32(norm, trained, monkeypatch):
    data, net = trained
    x, y = data.test.batch(slice(0, 20))
    here, _ = found_by(FMN(norm), net, x, y)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    there = FMN(norm).craft(net.to("gpu"), *(strict_cupy.asarray(part) for part in (x, y)), (0.1,), rng())
    assert all(isinstance(part, strict_cupy.ndarray) for part in (there.smallest, *there.images))
    assert here.smallest.dtype == np.float32
    assert (strict_cupy.asnumpy(there.smallest) == here.smallest).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"norm": "l1"}, "norm: expected one of linf, l2, found 'l1'"),
        ({"steps": 0}, "steps: expected an integer of at least 1, found 0"),
    ],
)
def test_bad_numbers_are_refused(given, words):
    with pytest.raises(NnliteError, match=words):
        FMN(**given)
