"""What may come in: labels that are no classes of the net, images of another form, and images outside their box."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from nets import biased_mlp

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, Noise, input_gradient, perturb, project
from nnlite.backend import to_host
from nnlite.certify import is_proven, margins
from nnlite.datagrad import Term, weighted_passes
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy, evaluate_attack
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.gradcheck import check_network
from nnlite.init import generator
from nnlite.inputs import UNIT, Box, check_images
from nnlite.lbfgs import LBFGS
from nnlite.losses import margin, softmax_cross_entropy, targeted_margin
from nnlite.network import mlp, stack
from nnlite.penalties import L1
from nnlite.sgd import Update, train_step

CLASSES, FEATURES = 3, 5
NET = biased_mlp([FEATURES, 8, CLASSES], np.random.default_rng(0)).astype(np.float32)
X = np.random.default_rng(1).random((20, FEATURES), dtype=np.float32)
Y = np.arange(20) % CLASSES

CLIPPED_R1 = Noise(L1, clip=True)
ATTACKS = [CLIPPED_R1, PGD(steps=2), APGD(steps=2), FMN(steps=3), RandomSigns(), LBFGS(searches=2, iterations=3)]


def craft(attack, x, y, box=UNIT, net=NET):
    return attack.craft(net, x, y, (0.1,), generator(0, "attack"), box).images[0]


DOORS = {
    "run": NET.run,
    "cross-entropy": lambda x, y: softmax_cross_entropy(NET.logits(x), y),
    "margin": lambda x, y: margin(NET.logits(x), y),
    "input gradient": lambda x, y: input_gradient(NET, x, y),
    "passes": lambda x, y: weighted_passes(NET, x, y, (Term(L1, 0.1, 0.1),)),
    "step": lambda x, y: train_step(NET.copy(), x, y, Update(terms=(), lr=0.1)),
    "gradcheck": lambda x, y: check_network(NET.astype(np.float64), x.astype(np.float64), y),
    "certificate": lambda x, y: margins(NET, x, y, 0.01),
    "accuracy": lambda x, y: accuracy(NET, Samples(x, y, 1.0)),
    "evaluation": lambda x, y: evaluate_attack(NET, {"net": NET}, Samples(x, y, 1.0), R1, (0.1,)),
    **{type(attack).__name__: lambda x, y, attack=attack: craft(attack, x, y) for attack in ATTACKS},
}
every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@every_door
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Y + 1, "expected classes from 0 to 2, found 1 to 3"),
        (Y + 5, "expected classes from 0 to 2, found 5 to 7"),
        (Y - 1, "expected classes from 0 to 2, found -1 to 1"),
        (Y.astype(str), "expected integers, found <U"),
        (Y.astype(float), "expected integers, found float64"),
        (Y > 0, "expected integers, found bool"),
        (Y[:, None], r"expected an array \(20,\), the class of each image, found shape \(20, 1\)"),
        (np.eye(CLASSES, dtype=int)[Y], r"found shape \(20, 3\)"),
        (np.append(Y, 0), r"found shape \(21,\)"),
        (Y[:19], r"expected an array \(20,\), the class of each image, found shape \(19,\)"),
        (np.int64(1), r"found shape \(\)"),
        (Y.tolist(), "found a list"),
    ],
    ids=[
        "from 1",
        "from 5",
        "below 0",
        "text",
        "float",
        "bool",
        "(N, 1)",
        "one-hot",
        "too many",
        "too few",
        "one for all",
        "list",
    ],
)
def test_labels_that_are_no_classes_of_the_net_are_refused(door, labels, words):
    with pytest.raises(NnliteError, match=words):
        door(X, labels)


@every_door
@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_integers_of_any_kind_are_labels(door, kind):
    door(X, Y.astype(kind))
    if np.dtype(kind).kind == "i":
        with pytest.raises(NnliteError, match="expected classes from 0 to 2, found -1 to 2"):
            door(X, np.where(np.arange(20) == 7, -1, Y).astype(kind))


@pytest.mark.parametrize("door", [NET.logits, NET.predict, lambda x: NET.run(x, Y), lambda x: craft(R1, x, Y)])
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (X.tolist(), r"expected an array \(N, 5\) of floats, found a list"),
        ((255 * X).astype(np.uint8), "expected floats, found uint8; scale pixels"),
        (X > 0.5, "expected floats, found bool"),
        (X + 0j, "expected floats, found complex"),
        (X[:, :4], r"expected \(N, 5\), a row for each image, found \(20, 4\)"),
        (X[0], r"found \(5,\)"),
        (X.reshape(20, 5, 1), r"found \(20, 5, 1\)"),
    ],
    ids=["list", "bytes", "bits", "complex", "narrow", "one image", "columns"],
)
def test_images_of_another_form_are_refused(door, images, words):
    with pytest.raises(NnliteError, match=words):
        door(images)


@pytest.mark.parametrize("width", [None, FEATURES])
def test_images_may_be_stacked_as_a_net_is(width):
    check_images(np.stack([X, X]), width)


def test_pairs_of_classes_are_checked_as_labels_are():
    with pytest.raises(NnliteError, match="found 0 to 3"):
        targeted_margin(NET.logits(X), np.stack([Y, np.arange(20) % 4], axis=-1))


def test_a_stack_may_share_its_labels_or_have_its_own():
    both = stack([NET, NET])
    for y in (Y, np.stack([Y, Y])):
        assert (both.run(X, y).loss == NET.run(X, Y).loss).all()
    with pytest.raises(NnliteError, match=r"expected an array \(20,\), .* found shape \(3, 20\)"):
        both.run(X, np.stack([Y, Y, Y]))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("shift", [lambda x: 2 * x - 1, lambda x: (x - x.mean()) / x.std()])
def test_images_outside_the_box_are_refused_not_pulled_into_it(attack, shift):
    with pytest.raises(NnliteError, match=r"x: expected pixels within \[0, 1\], found -.*give the Box of your data"):
        craft(attack, shift(X), Y)
    with pytest.raises(NnliteError, match=r"expected pixels within \[0, 1\]"):
        margins(NET, shift(X), Y, 0.01)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_in_a_box_that_is_wider_an_attack_is_the_same_on_images_and_weights_that_are_scaled(attack):
    """x' = 4 x - 2 in [-2, 2] with W' = W / 4 is the same net: noise of 4 phi does there what phi does here."""
    first = NET.layers[0]
    W = first.W / 4
    wide = NET.rebuild([type(first)(W, first.b + 2 * W.sum(axis=0)), *NET.all_layers[1:]])
    box = Box(-2, 2)
    image = attack.craft(wide, 4 * X - 2, Y, (0.4,), generator(0, "attack"), box).images[0]
    assert abs(image - (4 * X - 2)).max() <= (0.4 + 1e-6 if attack.norm == "linf" else 4)
    assert image.min() >= -2
    assert image.max() <= 2
    if attack.norm == "linf" and not isinstance(attack, FMN):
        expected = craft(attack, X, Y)
        assert (wide.predict(image) == NET.predict(expected)).mean() > 0.9


def test_a_box_of_its_own_for_each_feature_and_each_image():
    low, high = np.full(FEATURES, -0.5), np.linspace(1, 2, FEATURES)
    moved = craft(PGD(steps=5, restarts=2), X, Y, Box(low, high))
    assert (moved >= low.astype(np.float32)).all()
    assert (moved <= high.astype(np.float32)).all()
    assert (moved < 0).any()
    frozen = Box(np.where(np.arange(FEATURES) == 2, X, 0), np.where(np.arange(FEATURES) == 2, X, 1))
    for attack in ATTACKS[1:]:
        moved = craft(attack, X, Y, frozen)
        assert (moved[:, 2] == X[:, 2]).all()


def test_samples_of_limited_columns_have_a_box_for_each_row():
    samples = Samples(X, Y, 1.0).limited(np.array([0, 0.1, np.inf, np.inf, np.inf]))
    assert (samples.box.low[:, 0] == X[:, 0]).all()
    assert samples[3:5].box.low.shape == (2, FEATURES)
    assert Box(np.zeros(FEATURES), 1).take(slice(3, 5)).low.shape == (FEATURES,)
    assert Box(0, np.array(1.0)).take(slice(3, 5)).high == 1
    for attack in ATTACKS[:-1]:
        found = {}
        evaluate_attack(NET, {"net": NET}, samples, attack, (0.5,), block=7, keep=found.__setitem__)
        moved = abs(np.concatenate([images[0] for images in found.values()]) - X)
        assert not moved[:, 0].any()
        assert moved[:, 1].max() <= 0.1 + 1e-6


def test_a_certificate_holds_in_the_box_and_a_smaller_box_proves_more():
    phi, free, tight = 0.3, margins(NET, X, Y, 0.3, clip=False), margins(NET, X, Y, 0.3)
    narrow = margins(NET, X, Y, phi, box=Box(X - np.float32(0.01), X + np.float32(0.01)))
    assert free.min(axis=-1).mean() < tight.min(axis=-1).mean() < narrow.min(axis=-1).mean()
    assert (is_proven(NET, X, Y, 1.0, box=Box(X, X)) == (NET.predict(X) == Y)).all()
    points = np.random.default_rng(2).uniform(X - 0.01, X + 0.01, (200, *X.shape)).astype(np.float32)
    logits = NET.logits(points)
    found = np.take_along_axis(logits, np.broadcast_to(Y[:, None], (200, 20, 1)), axis=-1) - logits
    assert (found >= np.where(np.isinf(narrow), -np.inf, narrow)).all()


def test_a_box_keeps_the_dtype_and_changes_nothing_inside():
    box = Box(np.zeros(FEATURES), 1.0).like(X)
    assert box.clip(X).dtype == np.float32
    assert (box.clip(X) == X).all()
    assert repr(UNIT) == "[0, 1]"
    assert repr(Box(np.zeros(3), 1)) == "the range of each feature"
    assert perturb(X, np.ones_like(X), 5.0, box).max() == 1
    assert to_host(project(X + 5, X, 3.0, "l2", box)).max() <= 1
    assert UNIT.beyond(X + 1) > 0 >= UNIT.beyond(X)


def test_a_box_is_a_value():
    with pytest.raises(FrozenInstanceError):
        UNIT.high = 2.0
    assert Box(np.zeros(3), 1.0) != Box(np.zeros(3), 1.0)  # by identity: arrays have no one truth


def test_a_box_with_nothing_in_it_is_refused():
    with pytest.raises(NnliteError, match="expected low <= high"):
        Box(1, 0)
    with pytest.raises(NnliteError, match="expected low <= high"):
        Box(np.zeros(3), np.array([1.0, np.nan, 1.0]))


@pytest.mark.parametrize(
    ("sizes", "dtype", "words"),
    [
        ((64, 1), np.float32, "expected two or more classes"),
        ((64, 10), np.int32, "dtype: expected a float, found int32"),
        ((64,), np.float32, "expected two or more widths"),
        ((64, 0, 10), np.float32, "at least 1"),
    ],
)
def test_a_net_that_could_not_learn_is_not_made(sizes, dtype, words):
    with pytest.raises(NnliteError, match=words):
        mlp(sizes, np.random.default_rng(0), dtype)
    with pytest.raises(NnliteError, match="expected two or more classes"):
        mlp((4, 3), np.random.default_rng(0), heads={"other": 1})
