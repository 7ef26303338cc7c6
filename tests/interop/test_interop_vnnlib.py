"""VNN-LIB: a reader of a few lines, written from the format, finds the question of the certificate and the attack."""

import re

import numpy as np
import pytest

from nnlite.attacks import PGD
from nnlite.certify import is_proven
from nnlite.init import generator
from nnlite.inputs import UNIT, Box
from nnlite.interop.vnnlib import instances, vnnlib
from nnlite.network import mlp


def read(text):
    """Return low (D,), high (D,) and the pairs (greater, less) of outputs of which one must hold."""
    bounds = {}
    for relation, k, value in re.findall(r"^\(assert \((<=|>=) X_(\d+) (-?\d+\.\d+)\)\)$", text, re.MULTILINE):
        bounds[relation, int(k)] = float(value)
    count = len(re.findall(r"^\(declare-const X_\d+ Real\)$", text, re.MULTILINE))
    (unsafe,) = re.findall(r"^\(assert \(or\n(.*?)^\)\)$", text, re.MULTILINE | re.DOTALL)
    pairs = [tuple(map(int, pair)) for pair in re.findall(r"\(and \(>= Y_(\d+) Y_(\d+)\)\)", unsafe)]
    return *(np.array([bounds[sign, k] for k in range(count)]) for sign in (">=", "<=")), pairs


def test_a_small_one_by_hand():
    text = vnnlib(np.array([0.25, 1.0], np.float32), 1, 0.5, 3)
    assert text == (
        "; true class 1, noise within 0.5 in the L-infinity norm, pixels within [0, 1]\n"
        "(declare-const X_0 Real)\n(declare-const X_1 Real)\n"
        "(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n(declare-const Y_2 Real)\n"
        "(assert (>= X_0 0.0))\n(assert (<= X_0 0.75))\n(assert (>= X_1 0.5))\n(assert (<= X_1 1.0))\n"
        "(assert (or\n    (and (>= Y_0 Y_1))\n    (and (>= Y_2 Y_1))\n))\n"
    )


@pytest.mark.parametrize(
    ("box", "low", "high"),
    [
        (UNIT, [0.0, 0.6], [0.35, 1.0]),
        (None, [-0.25, 0.6], [0.35, 1.2]),
        (Box(np.array([-0.1, 0.0]), np.array([1.0, 1.1])), [-0.1, 0.6], [0.35, 1.1]),
    ],
    ids=["in [0, 1]", "free", "in a box of their own"],
)
def test_noise_is_clipped_to_the_box_or_free(box, low, high):
    found = read(vnnlib(np.array([0.05, 0.9]), 0, 0.3, 2, box))
    np.testing.assert_allclose(found[0], low, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found[1], high, rtol=0, atol=1e-15)
    assert found[2] == [(1, 0)]


def test_tiny_and_long_numbers_keep_all_digits_without_an_exponent():
    x = np.array([1e-9, 0.1, 1 / 3])
    low, high, _ = read(vnnlib(x, 0, 1e-12, 2, None))
    assert low.tolist() == (x - 1e-12).tolist()
    assert high.tolist() == (x + 1e-12).tolist()


@pytest.mark.parametrize(("clip", "phi"), [(True, 0.1), (False, 0.05)])
def test_what_is_proven_has_no_unsafe_point_and_what_is_broken_is_one(trained, clip, phi):
    digits, net = trained
    x, y = digits.test.batch(slice(0, 30))
    rng = np.random.default_rng(0)
    proven = is_proven(net, x, y, phi, clip=clip)
    (adversarial,) = PGD(clip=clip).craft(net, x, y, (phi,), generator(0, "attack")).images
    unsafe = []
    for k in range(30):
        low, high, pairs = read(vnnlib(x[k], int(y[k]), phi, 10, UNIT if clip else None))
        points = np.concatenate([adversarial[[k]], rng.uniform(low, high, (100, 64)).astype(np.float32)])
        assert (points[0] >= low - 1e-6).all()
        assert (points[0] <= high + 1e-6).all()
        logits = net.logits(points)
        unsafe.append(np.any([logits[:, t] >= logits[:, true] for t, true in pairs], axis=0))
    unsafe = np.array(unsafe)
    assert proven.any()
    assert not unsafe[proven].any()
    np.testing.assert_array_equal(unsafe[:, 0], net.predict(adversarial) != y)


def test_instances_name_the_net_the_property_and_the_seconds():
    assert instances("net.onnx", ["a.vnnlib", "b.vnnlib"]) == "net.onnx,a.vnnlib,300\nnet.onnx,b.vnnlib,300\n"


def test_the_image_that_comes_in_is_left_as_it_is():
    net = mlp((3, 2), np.random.default_rng(0))
    x = np.random.default_rng(1).random((1, 3), dtype=np.float32)
    before = x.copy()
    vnnlib(x[0], int(net.predict(x)[0]), 0.1, 2)
    np.testing.assert_array_equal(x, before)
