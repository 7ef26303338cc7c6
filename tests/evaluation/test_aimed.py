"""Attacks with an aim: towards a class, or from the predicted class; oracles are two classes, ART, and differences."""

from dataclasses import replace

import numpy as np
import pytest
from nets import biased_mlp

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, R2, Noise
from nnlite.backend import get_xp
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.evaluation.aimed import Aimed
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.gradcheck import numerical_gradient
from nnlite.lbfgs import LBFGS
from nnlite.losses import softmax_cross_entropy
from nnlite.network import stack
from nnlite.penalties import L2_NORM

pytestmark = pytest.mark.once

ABLE = [
    R1,
    R2,
    Noise(L2_NORM),
    PGD(steps=10, restarts=3),
    PGD("l2", steps=10, restarts=3),
    APGD(steps=10),
    APGD("l2", steps=10),
    LBFGS(),
    FMN(),
    FMN("l2"),
]
each = pytest.mark.parametrize("attack", ABLE, ids=lambda attack: f"{type(attack).__name__} {attack.norm}")


def rng():
    return np.random.default_rng(0)


@pytest.fixture
def few(trained):
    """A trained net, and 60 images that it gets right, with their labels."""
    data, net = trained
    x, y = data.test.batch(slice(0, 80))
    right = np.flatnonzero(net.predict(x) == y)[:60]
    return net, x[right], y[right]


@pytest.mark.parametrize(("noise", "step"), [(R1, np.sign), (R2, lambda j: 2 * j)])
def test_targeted_noise_is_a_step_down_the_loss_of_the_target(noise, step):
    net, x = biased_mlp([4, 6, 3], rng()), rng().random((5, 4))
    target = np.full(5, 2)
    slope = numerical_gradient(lambda at: float(softmax_cross_entropy(net.logits(at), target)[0].sum()), x)
    found = Aimed(noise, target=2).craft(net, x, np.array([0, 1, 0, 1, 0]), (0.0, 0.01), rng())
    assert (found.images[0] == x).all()
    np.testing.assert_allclose(found.images[1], x - 0.01 * step(slope.reshape(x.shape)), atol=1e-9)


@each
def test_of_two_classes_towards_the_one_is_away_from_the_other(attack):
    # up the loss of a class and down that of the other lead the same way; only R2's steps are of other lengths
    net, x = biased_mlp([6, 12, 2], rng()), rng().random((40, 6))
    y = net.predict(x)
    for target in (0, 1):
        rows = np.flatnonzero(y != target)
        away = attack.craft(net, x[rows], y[rows], (0.02, 0.3), rng())
        towards = Aimed(attack, target).craft(net, x[rows], y[rows], (0.02, 0.3), rng())
        for one, other in zip(away.images, towards.images, strict=True):
            if attack == R2:
                one, other = (np.sign(image - x[rows]) for image in (one, other))
            np.testing.assert_allclose(one, other, atol=1e-9)


@each
def test_images_are_led_to_the_target_and_those_of_it_stay(few, attack):
    net, x, y = few
    phi = 0.3 if attack.norm == "linf" else 3.0
    found = Aimed(attack, target=3).craft(net, x, y, (phi,), rng()).images[0]
    own = y == 3
    assert own.any()
    assert (found[own] == x[own]).all()
    reached, before = (net.predict(image[~own]) == 3 for image in (found, x))
    assert not before.any()
    assert reached.mean() > (0.2 if isinstance(attack, Noise) else 0.95)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_pgd_reaches_what_that_of_art_does(few, art, norm):
    from art.attacks.evasion import ProjectedGradientDescentNumpy

    from nnlite.interop.art import art_classifier

    net, x, y = few
    x, y, phi = x[y != 3], y[y != 3], 0.12 if norm == "linf" else 0.8
    ours = Aimed(PGD(norm, steps=40), target=3).craft(net, x, y, (phi,), rng()).images[0]
    step = {"norm": {"linf": np.inf, "l2": 2}[norm], "eps": phi, "eps_step": 2.5 * phi / 40, "max_iter": 40}
    toolbox = ProjectedGradientDescentNumpy(art_classifier(net), targeted=True, verbose=False, **step)
    theirs = toolbox.generate(x, np.full(len(x), 3))
    shares = [(net.predict(image) == 3).mean() for image in (ours, theirs)]
    assert 0.1 < shares[1] < 0.9
    assert shares[0] == pytest.approx(shares[1], abs=2 / len(x))


def test_the_smallest_noise_to_a_class_is_no_smaller_than_the_smallest_to_any(few):
    net, x, y = few
    for attack in (LBFGS(), FMN("l2")):
        free = attack.craft(net, x, y, (), rng())
        sizes = []
        for target in range(10):
            found = Aimed(attack, target).craft(net, x, y, (), rng())
            length = np.where(found.failed | (y == target), np.inf, np.linalg.norm(found.smallest - x, axis=-1))
            assert (net.predict(found.smallest) == target)[np.isfinite(length)].all()
            sizes.append(length)
        nearest = np.min(sizes, axis=0)
        assert np.median(nearest / np.linalg.norm(free.smallest - x, axis=-1)) == pytest.approx(1, abs=0.02)


def test_a_stack_gets_what_its_single_models_get():
    nets = [biased_mlp([6, 12, 4], np.random.default_rng(k)) for k in range(2)]
    x, y = rng().random((9, 6)), np.arange(9) % 4
    for attack in (R1, PGD(steps=5), APGD(steps=5), FMN()):  # L-BFGS solves a whole batch as one problem
        for predicted in (False, True):
            aimed = Aimed(attack, 1, predicted)
            together = aimed.craft(stack(nets), x, y, (0.2,), rng()).images[0]
            for k, net in enumerate(nets):
                np.testing.assert_allclose(together[k], aimed.craft(net, x, y, (0.2,), rng()).images[0], atol=1e-7)


@each
def test_predicted_labels_never_see_the_true_ones(few, attack):
    net, x, y = few
    wrong = (y + 1) % 10
    for target in (None, 3):
        aimed = Aimed(attack, target, predicted=True)
        one, other = (aimed.craft(net, x, labels, (0.1,), rng()).images[0] for labels in (y, wrong))
        assert (one == other).all()
        given = Aimed(attack, target).craft(net, x, net.predict(x), (0.1,), rng()).images[0]
        assert (one == given).all()
    assert (aimed.norm, aimed.clip) == (attack.norm, attack.clip)


def test_the_table_says_how_many_images_of_other_classes_read_as_the_target(trained):
    data, net = trained
    samples = data.test[:100]
    x, y = samples.batch(slice(None))
    attack = Aimed(PGD(steps=5), target=7)
    table = evaluate_attack(net, {"net": net}, samples, attack, (0.0, 0.2))
    others = y != 7
    for k, image in enumerate(attack.craft(net, x, y, (0.0, 0.2), rng()).images):
        predicted = net.predict(image)
        assert table.reached["net"][k] == 100 * (predicted[others] == 7).mean()
        assert table.accuracy["net"][k] == 100 * (predicted == y).mean()
    assert table.reached["net"][1] > table.reached["net"][0] + 20
    assert [row["reached"] for row in table.records()] == table.reached["net"].tolist()
    plain = evaluate_attack(net, {"net": net}, samples, PGD(steps=5), (0.0,))
    assert (plain.reached, "reached" in plain.records()[0]) == ({}, False)


def test_without_images_of_other_classes_there_is_nothing_to_reach(trained):
    data, net = trained
    samples = data.test[np.flatnonzero(data.test.labels == 2)]
    with pytest.raises(NnliteError, match="target: expected images of other classes than 2, found none"):
        evaluate_attack(net, {"net": net}, samples, Aimed(R1, target=2), (0.1,))


def test_a_target_that_is_none_is_refused(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 3))
    with pytest.raises(NnliteError, match="target: expected a class from 0 to 9, found 10"):
        Aimed(R1, target=10).craft(net, x, y, (0.1,), rng())
    with pytest.raises(NnliteError, match="target: expected an attack that can be targeted, found RandomSigns"):
        Aimed(RandomSigns(), target=1)
    assert get_xp(Aimed(RandomSigns(), predicted=True).craft(net, x, y, (0.1,), rng()).images[0]) is np
    assert replace(Aimed(R1, 1), target=2) == Aimed(R1, 2)
