"""The bracket: the exact answer of linear nets, certificates and attacks asked one by one, and what ends the work."""

import sys

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlite.apgd import APGD
from nnlite.certify import is_proven
from nnlite.datasets import check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation import certifying
from nnlite.evaluation.auditing import AuditOptions
from nnlite.evaluation.certifying import BLOCK, Bracket, CertifyOptions, bracket
from nnlite.evaluation.threads import blocks_at_a_time
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp, stack

pytestmark = pytest.mark.once

PHI = (0.01, 0.03, 0.1)
QUICK = CertifyOptions(PHI, examples=60)


def rng():
    return np.random.default_rng(0)


def interrupted_at(done):
    """Return an on_progress during which Ctrl-C is pressed, once `done` images are done."""

    def on_progress(now, total):
        if now >= done:
            raise KeyboardInterrupt

    return on_progress


@pytest.fixture(scope="module")
def asked(trained):
    """The small net, the test digits, and the bracket of 60 of them."""
    data, net = trained
    return net, data.test, bracket(net, data.test, QUICK)


# What is found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.booleans())
def test_of_a_linear_net_nothing_is_unknown(seed, clip):
    # its least margin lies at the corner of the box against the sign of W_y - W_t
    draw = np.random.default_rng(seed)
    W, b, x = draw.standard_normal((9, 4)), 0.1 * draw.standard_normal(4), draw.random((30, 9))
    y, phi = draw.integers(0, 4, 30), (0.02, 0.1, 0.3)
    found = bracket(Network((Dense(W, b),)), check_samples(x, y, white=1.0), CertifyOptions(phi, clip, None))
    assert found.phi == (0.0, *phi)
    for k, size in enumerate(found.phi):
        least = np.full(30, np.inf)
        for t in range(4):
            difference = W[:, y] - W[:, [t]]  # (9, N)
            corner = x - size * np.sign(difference.T)
            corner = corner.clip(0, 1) if clip else corner
            margin = (corner * difference.T).sum(axis=1) + b[y] - b[t]
            least = np.minimum(least, np.where(y == t, np.inf, margin))
        sure = abs(least) > 1e-9
        assert (found.proven[k] == (least > 0))[sure].all()
        assert (found.stands[k] == (least > 0))[sure].all()


def test_the_figures_are_those_of_certificates_and_attack_asked_one_by_one(asked):
    net, samples, found = asked
    x, y = samples.batch(AuditOptions(examples=60).rows(len(samples)))
    images = APGD().craft(net, x, y, found.phi, rng()).images
    for k, phi in enumerate(found.phi):
        assert (found.proven[k] == is_proven(net, x, y, phi)).all()
        assert (found.stands[k] == (net.predict(images[k]) == y)).all()
    assert 0 < found.proven[-1].sum() < found.stands[-1].sum() < 60


def test_proven_is_at_most_what_stands_and_neither_rises(asked):
    found = asked[2]
    assert not found.contradictions.any()
    assert (found.proven <= found.stands).all()
    for ones in (found.proven, found.stands):
        assert (ones[1:] <= ones[:-1]).all()


def test_percent_and_intervals():
    ones = np.arange(10)
    found = Bracket((0.0, 0.1), np.stack([ones < 9, ones < 2]), np.stack([ones < 9, ones < 6]), ones, False)
    assert {name: values.tolist() for name, values in found.accuracy.items()} == {
        "proven": [90, 20],
        "unknown": [0, 40],
        "worst": [90, 60],
    }
    # Wilson's interval of 2 of 10, as Brown, Cai and DasGupta (2001) write it: z = 1.96, n + z^2 = 13.8415
    low, high = found.intervals["proven"]
    assert low[1] == pytest.approx(5.668, abs=1e-3)
    assert high[1] == pytest.approx(50.984, abs=1e-3)
    assert not found.interrupted


def test_of_several_heads_the_main_one_is_asked(trained):
    data, net = trained
    other = mlp((8, 5), rng()).layers[0]
    width, samples = len(net.layers[-1].W), data.test[:10]
    more = Network(net.layers, {"rotation": Dense(rng().normal(size=(width, 5)).astype(np.float32), other.b)})
    one, two = (bracket(each, samples, CertifyOptions(PHI)) for each in (net, more))
    assert (one.proven == two.proven).all()
    assert (one.stands == two.stands).all()


def test_on_a_device_it_is_the_same(asked, monkeypatch):
    net, samples, _ = asked
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    there = bracket(net.to("gpu"), samples.to("gpu"), CertifyOptions((0.03,), examples=9))
    here = bracket(net, samples, CertifyOptions((0.03,), examples=9))
    assert isinstance(there.proven, np.ndarray)
    assert (there.proven == here.proven).all()
    assert (there.stands == here.stands).all()


# What is asked


def test_what_failed_and_what_was_broken_before_is_not_tried(trained, monkeypatch):
    data, net = trained
    tried = {}

    def count(net, x, y, phi, **more):
        tried[phi] = tried.get(phi, 0) + len(x)
        return is_proven(net, x, y, phi, **more)

    monkeypatch.setattr(certifying, "is_proven", count)
    found = bracket(net, data.test, QUICK)
    expected = [60 + 3, *(found.proven[:-1] & found.stands[:-1]).sum(axis=1)]
    assert list(tried) == [0.0, *PHI]  # at 0 also one image of each of three blocks, before the attack
    assert list(tried.values()) == expected
    assert expected[-1] < 60


@pytest.mark.parametrize("known", [np.ones, np.zeros])
def test_a_certificate_that_is_wrong_is_found(trained, monkeypatch, known):
    # at the phi that breaks an image first, it is still tried
    data, net = trained
    monkeypatch.setattr(certifying, "is_proven", lambda net, x, y, phi, **_: known(len(y), bool))
    found = bracket(net, data.test, QUICK)
    fallen = (found.stands[:-1] & ~found.stands[1:]).sum(axis=1)
    assert fallen.sum() > 10
    assert found.contradictions[1:].sum(axis=1).tolist() == (fallen.tolist() if known == np.ones else [0, 0, 0])


def test_the_images_are_those_of_an_audit_with_the_same_seed():
    for seed, examples in ((0, 10), (3, 10), (0, None), (0, 1000)):
        audited = AuditOptions(seed=seed, examples=examples).rows(50)
        assert (CertifyOptions(seed=seed, examples=examples).rows(50) == audited).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phi": (0.1, 1.5)}, "phi: expected numbers from 0 to 1, the range of a pixel, one of them above 0, found"),
        ({"phi": (0.0,)}, "one of them above 0, found"),
        ({"phi": (0.1, -0.1)}, "phi: expected one or more sizes of noise, each a number from 0"),
        ({"phi": ()}, "phi: expected one or more"),
        ({"phi": (np.nan,)}, "phi: expected one or more sizes of noise"),
        ({"examples": 0}, "examples: expected an integer of at least 1, found 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, found -1"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(NnliteError, match=words):
        CertifyOptions(**options)


class Leaky(ReLU):
    """A layer that certify does not know."""


def test_what_cannot_be_certified_is_refused_before_any_attack(trained, monkeypatch):
    data, net = trained
    monkeypatch.setattr(certifying, "evaluate_attack", None)
    with pytest.raises(NnliteError, match="found a stack; certify its nets one by one"):
        bracket(stack([net, net]), data.test)
    leaky = Network((net.layers[0], Leaky(), *net.layers[2:]))
    with pytest.raises(NnliteError, match=r"layer 1 \(Leaky\): has no relaxation"):
        bracket(leaky, data.test)
    with pytest.raises(NnliteError, match="expected images of 9 pixels, for which it was made, found 64"):
        bracket(mlp((9, 10), rng()), data.test)


# What ends it


def test_an_interrupt_keeps_the_images_that_are_finished(asked):
    net, samples, whole = asked
    with blocks_at_a_time(1):
        found = bracket(net, samples, QUICK, on_progress=interrupted_at(2 * BLOCK))
    assert found.interrupted
    assert (found.rows == whole.rows[: 2 * BLOCK]).all()
    assert (found.proven == whole.proven[:, : 2 * BLOCK]).all()
    assert (found.stands == whole.stands[:, : 2 * BLOCK]).all()


def test_an_interrupt_at_the_first_images_goes_on_to_the_caller(asked):
    with pytest.raises(KeyboardInterrupt):
        bracket(asked[0], asked[1], QUICK, on_progress=interrupted_at(0))


def test_progress_counts_the_images(asked):
    calls = []
    with blocks_at_a_time(1):
        bracket(asked[0], asked[1], QUICK, on_progress=lambda *call: calls.append(call))
    done = [done for done, _ in calls]
    assert done == sorted(done)
    assert {0, 25, 50, 60} <= set(done)
    assert len([one for one in done if 0 < one < 25]) > 10  # within the attack and the certificates, too
    assert {total for _, total in calls} == {60}
