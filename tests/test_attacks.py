from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases

from nnlite.apgd import APGD
from nnlite.attacks import (
    NOISES,
    PGD,
    R1,
    R2,
    Crafted,
    Noise,
    in_unit_ball,
    input_gradient,
    perturb,
)
from nnlite.attacks import project as into_ball
from nnlite.certify import is_proven
from nnlite.datasets import check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import BLOCK, PAPER_PHI, accuracy, evaluate_attack, first_of_each_class
from nnlite.evaluation.float32_trap import naive_softmax_cross_entropy
from nnlite.evaluation.promises import check_crafted
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.gradcheck import numerical_gradient
from nnlite.init import generator
from nnlite.inputs import UNIT
from nnlite.layers import Dense
from nnlite.losses import softmax_cross_entropy
from nnlite.network import Network, stack
from nnlite.penalties import L1, L2
from nnlite.training.loop import train
from nnlite.training.settings import Settings

SIZES = {"linf": lambda noise: abs(noise).max(axis=-1), "l2": lambda noise: np.sqrt((noise**2).sum(axis=-1))}


def rng():
    return np.random.default_rng(0)


# Noise


@settings(deadline=None, max_examples=30)
@given(cases(classes=st.integers(2, 9)), st.sampled_from(list(NOISES)), st.floats(0.001, 0.05))
def test_noise_is_a_step_along_the_penalty_s_gradient(case, noise, phi):
    net, x, y = case
    dx = input_gradient(net, x, y)
    crafted = NOISES[noise].craft(net, x, y, (0.0, phi), rng())
    assert (crafted.images[0] == x).all()
    step = np.sign(dx) if noise == "r1" else 2 * dx
    assert crafted.images[1] - x == pytest.approx(phi * step, abs=1e-15)
    assert crafted.zeros == (dx == 0).sum()


def test_the_input_gradient_is_that_of_each_example_alone():
    net = Network((Dense(np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2)),))
    x, y = np.array([[0.2, 0.4], [0.9, 0.1]]), np.array([0, 1])
    numeric = numerical_gradient(lambda a: float(softmax_cross_entropy(net.logits(a), y)[0].sum()), x)
    assert input_gradient(net, x, y).ravel() == pytest.approx(numeric, rel=1e-6)


def test_clipping_keeps_the_range_and_no_clipping_leaves_it():
    x, direction = np.array([[0.0, 1.0, 0.5]]), np.array([[-1.0, 1.0, 1.0]])
    assert perturb(x, direction, 0.1).tolist() == [[-0.1, 1.1, 0.6]]
    assert perturb(x, direction, 0.1, UNIT).tolist() == [[0.0, 1.0, 0.6]]


def test_random_signs_are_phi_or_minus_phi_until_one_fools(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 60))
    wrong = net.predict(x) != y
    few, many = (RandomSigns(tries, clip=False).craft(net, x, y, (0.3,), rng()).images[0] for tries in (1, 30))
    for image in (few, many):
        assert abs(image - x)[~wrong] == pytest.approx(0.3, abs=1e-6)
        assert (image == x)[wrong].all()
    fooled = [net.predict(image) != y for image in (few, many)]
    assert (many[fooled[0]] == few[fooled[0]]).all()
    assert fooled[1].sum() > fooled[0].sum()


# PGD


@settings(deadline=None, max_examples=60)
@given(
    cases(classes=st.integers(2, 9)),
    st.builds(PGD, norm=st.sampled_from(["linf", "l2"]), steps=st.integers(1, 6), restarts=st.integers(1, 3)),
    st.floats(0.01, 2),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
def test_pgd_stays_in_the_ball_and_in_the_range(case, pgd, phi, clip, dtype):
    net, x, y = case.net.astype(dtype), case.x.astype(dtype), case.y
    pgd = replace(pgd, clip=clip)
    clean, image = pgd.craft(net, x, y, (0.0, phi), rng()).images
    assert (clean == x).all()
    assert image.dtype == dtype
    assert image.shape == net.logits(x).shape[:-1] + x.shape[-1:]
    slack = 16 * np.finfo(dtype).eps
    assert SIZES[pgd.norm](image - x).max() <= phi * (1 + slack) + slack
    if clip:
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_point_of_the_ball_is_nearer_than_the_projection(norm):
    x = rng().random((50, 4))
    points = x + rng().normal(scale=0.2, size=(50, 4))
    nearest = into_ball(points, x, 0.3, norm)
    inside = SIZES[norm](points - x) <= 0.3
    assert inside.any()
    assert nearest[inside] == pytest.approx(points[inside], abs=1e-15)
    for other in rng().uniform(-0.3, 0.3, (500, 50, 4)):
        other *= np.minimum(1, 0.3 / SIZES[norm](other))[:, None]
        assert (SIZES["l2"](points - nearest) <= SIZES["l2"](points - (x + other)) + 1e-12).all()


def test_what_lies_beyond_the_range_does_not_use_up_the_radius():
    x, point = np.array([[0.95, 0.5], [0.05, 0.5]]), np.array([[5.0, 0.6], [-5.0, 0.6]])
    assert into_ball(point, x, 0.3, "l2", UNIT) == pytest.approx(np.array([[1.0, 0.6], [0.0, 0.6]]))


def test_what_an_attack_does_that_is_told_nothing():
    assert PGD() == PGD("linf", steps=40, restarts=1, stride=None, clip=True)
    assert RandomSigns() == RandomSigns(tries=1, clip=True)
    assert Noise(L1) == Noise(L1, clip=False, loss=softmax_cross_entropy)


def test_an_image_for_each_phi_no_less():
    x = np.full((1, 4), 0.3)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        check_crafted(Fake(0.1), x, (0.1, 0.2), Fake(0.1).craft(None, x, None, (0.1,), None), UNIT)


def test_of_end_points_with_one_loss_the_first_is_kept():
    net, x = Network((Dense(np.zeros((3, 2)), np.array([1.0, 0.0])),)), rng().random((5, 3))
    assert (PGD(restarts=3).craft(net, x, np.zeros(5, int), (0.1,), rng()).images[0] == x).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("clip", [False, True])
def test_projecting_writes_where_it_is_told_and_nowhere_else(norm, clip):
    x, point = rng().random((5, 4)), rng().normal(size=(5, 4))
    before = x.copy(), point.copy()
    expected = into_ball(point, x, 0.3, norm, UNIT if clip else None)
    assert (x == before[0]).all()
    assert (point == before[1]).all()
    assert into_ball(point, x, 0.3, norm, UNIT if clip else None, out=point) is point
    assert (point == expected).all()


@settings(deadline=None, max_examples=30)
@given(cases(classes=st.integers(2, 9)), st.floats(0.01, 0.3), st.booleans())
def test_one_whole_step_from_the_image_is_r1_noise(case, phi, clip):
    net, x, y = case
    once = PGD(steps=1, stride=1.0, clip=clip).craft(net, x, y, (phi,), rng()).images[0]
    assert once == pytest.approx(Noise(L1, clip).craft(net, x, y, (phi,), rng()).images[0], abs=1e-15)


@pytest.mark.parametrize("clip", [False, True])
def test_pgd_finds_the_worst_case_of_a_linear_model(clip):
    # With two classes dloss/dx points along W_other - W_true wherever x is, and the worst point is known.
    W = rng().normal(size=(6, 2))
    net, x, y = Network((Dense(W, np.zeros(2)),)), rng().random((20, 6)), rng().integers(0, 2, 20)
    away = W.T[1 - y] - W.T[y]
    image = PGD(clip=clip).craft(net, x, y, (0.2,), rng()).images[0]
    worst = x + 0.2 * np.sign(away)
    assert image == pytest.approx(worst.clip(0, 1) if clip else worst, abs=1e-12)
    image = PGD("l2", clip=False).craft(net, x, y, (0.2,), rng()).images[0]
    assert image == pytest.approx(x + 0.2 * away / SIZES["l2"](away)[:, None], abs=1e-12)


def test_clipped_pgd_in_l2_is_the_worst_of_many_points():
    W = rng().normal(size=(3, 2))
    net, x, y = Network((Dense(W, np.zeros(2)),)), rng().random((10, 3)), rng().integers(0, 2, 10)
    crafted = PGD("l2", steps=1000, stride=0.01).craft(net, x, y, (0.4,), rng()).images[0]
    loss = softmax_cross_entropy(net.logits(crafted), y)[0]
    others = into_ball(x + rng().uniform(-0.4, 0.4, (20000, 10, 3)), x, 0.4, "l2", UNIT)
    best = softmax_cross_entropy(net.logits(others), np.broadcast_to(y, (20000, 10)))[0].max(axis=0)
    assert (loss >= best - 1e-3).all()


@pytest.mark.parametrize(("norm", "phi"), [("linf", 0.05), ("l2", 0.6)])
def test_more_steps_are_stronger_than_one_and_more_restarts_never_weaker(trained, norm, phi):
    data, net = trained
    stands = {
        effort: evaluate_attack(net, {"net": net}, data.test, PGD(norm, *effort), (phi,)).correct["net"]
        for effort in [(1, 1), (1, 2), (1, 8), (20, 1)]
    }
    assert stands[20, 1].sum() < stands[1, 1].sum()
    assert stands[1, 8].sum() < stands[1, 1].sum()
    assert not (stands[1, 2] & ~stands[1, 1]).any()
    assert not (stands[1, 8] & ~stands[1, 2]).any()


def test_a_restart_is_kept_only_where_it_is_better(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 100))
    loss, fooled = [], []
    for restarts in (1, 2, 4, 8):
        image = PGD(steps=2, restarts=restarts).craft(net, x, y, (0.03,), rng()).images[0]
        run = net.run(image, y)
        loss.append(run.loss)
        fooled.append(run.logits.argmax(axis=-1) != y)
    for fewer in range(3):
        stands = ~fooled[fewer + 1]
        assert (loss[fewer + 1][stands] >= loss[fewer][stands]).all()
        assert (loss[fewer + 1][fooled[fewer]] == loss[fewer][fooled[fewer]]).all()
    assert (loss[3] > loss[0]).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(20000, 3), (2, 10000, 3)])
def test_random_starts_fill_the_ball_evenly(norm, shape):
    starts = in_unit_ball(norm, np.empty(shape), rng()).reshape(-1, 3)
    share = [0.1, 0.5, 0.9, 1.0]
    assert np.quantile(SIZES[norm](starts), share) == pytest.approx(np.cbrt(share), abs=0.01)  # volume grows so
    assert starts.mean(axis=0) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_restart_begins_within_the_ball_not_on_its_surface(norm):
    net, x = biased_mlp([3, 2], rng()), np.full((1000, 3), 0.5)
    still = PGD(norm, steps=1, stride=1e-9, restarts=2, clip=False)
    noise = SIZES[norm](still.craft(net, x, net.predict(x), (0.01,), rng()).images[0] - x)
    moved = noise > 1e-6  # half of the random starts have a lower loss than the image itself
    assert moved.mean() == pytest.approx(0.5, abs=0.05)
    assert np.median(noise[moved]) == pytest.approx(0.01 * np.cbrt(0.5), abs=0.0005)


def test_the_seed_decides_the_random_starts(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 50))
    made = PGD(steps=1, restarts=3)
    first, again, other = (made.craft(net, x, y, (0.05,), np.random.default_rng(k)).images[0] for k in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("made", [PGD(steps=4, restarts=3), PGD("l2", steps=4, restarts=3), RandomSigns(3)])
def test_a_stack_gets_the_noise_of_its_single_models(made):
    nets = [biased_mlp([6, 8, 3], np.random.default_rng(seed)) for seed in range(3)]
    x, y = rng().random((30, 6)), rng().integers(0, 3, 30)
    together = made.craft(stack(nets), x, y, (0.1, 0.3), rng()).images
    for k, net in enumerate(nets):
        for all_of_them, alone in zip(together, made.craft(net, x, y, (0.1, 0.3), rng()).images, strict=True):
            assert all_of_them[k] == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("made", [R1, R2, PGD(steps=2, restarts=2), PGD("l2", steps=2), APGD(steps=3), RandomSigns()])
def test_no_attack_forms_a_weight_gradient(trained, monkeypatch, made):
    data, net = trained

    def add_gradients(*_):
        raise AssertionError("an attack formed a weight gradient")

    monkeypatch.setattr(Dense, "add_gradients", add_gradients)
    evaluate_attack(net, {"net": net}, data.test[:50], made, (0.1,))


def test_no_certificate_forms_a_weight_gradient(trained, monkeypatch):
    data, net = trained
    monkeypatch.setattr(Dense, "add_gradients", None)
    assert is_proven(net, *data.test.batch(slice(0, 5), net.dtype), 0.001).any()


def test_a_step_is_two_and_a_half_times_phi_over_all_steps_if_not_given():
    assert PGD(steps=40).share == 0.0625
    assert PGD(steps=40, stride=0.3).share == 0.3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "l1"}, "norm: expected one of linf, l2, found 'l1'"),
        ({"steps": 0}, "steps: expected an integer of at least 1, found 0"),
        ({"restarts": -1}, "restarts: expected an integer of at least 1, found -1"),
        ({"steps": 2.0}, "steps: expected an integer of at least 1, found 2.0"),
        ({"stride": 0.0}, "stride: expected a finite number above 0, found 0.0"),
        ({"stride": -0.1}, "stride: expected a finite number above 0, found -0.1"),
        ({"stride": np.inf}, "stride: expected a finite number above 0, found inf"),
        ({"stride": float("inf")}, "stride: expected a finite number above 0, found inf"),
        ({"stride": float("nan")}, "stride: expected a finite number above 0, found nan"),
    ],
)
def test_pgd_refuses_what_it_cannot_do(options, words):
    with pytest.raises(NnliteError) as error:
        PGD(**options)
    assert words in str(error.value)


# What comes out is checked


@dataclass(frozen=True)
class Fake:
    """An attack that makes x + noise at every phi, and says what it is told to say."""

    noise: float
    norm: str | None = "linf"
    clip: bool = False
    failed: tuple[bool, ...] | None = None
    smallest: int = 0  # so many examples get noise in `smallest`

    def craft(self, net, x, y, phi, rng, box=None):
        image = x + self.noise
        return Crafted(
            [image] * len(phi),
            failed=None if self.failed is None else np.array(self.failed),
            smallest=np.concatenate([image[: self.smallest], x[self.smallest :]]) if self.smallest else None,
        )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Fake(0.11), "expected a norm of 0.1"),
        (Fake(0.06, "l2"), "expected a norm of 0.1"),  # 0.06 on each of four pixels is 0.12 long
        (Fake(0.09, clip=True), "expected pixels within [0, 1]"),
        (Fake(-0.09, clip=True), "expected pixels within [0, 1]"),
        (Fake(np.nan), "found nan"),
        (Fake(np.inf, None), "found inf"),
    ],
)
def test_noise_beyond_its_promise_is_an_error(made, words):
    x = np.array([[0.0, 1.0, 0.5, 0.5]])
    with pytest.raises(AssertionError) as error:
        check_crafted(made, x, (0.1,), made.craft(None, x, None, (0.1,), None), UNIT)
    assert words in str(error.value)
    net = biased_mlp([4, 2], rng())
    with pytest.raises(AssertionError):
        evaluate_attack(net, {"net": net}, check_samples(x, np.array([0])), made, (0.1,))
    with pytest.raises(AssertionError):
        first_of_each_class(net, {"net": net}, check_samples(x, np.array([0])), made, (0.1,))


@pytest.mark.parametrize("made", [Fake(0.1), Fake(0.05, "l2"), Fake(7.0, None), Fake(0.1, clip=True)])
def test_noise_within_its_promise_passes(made):
    x = np.full((1, 4), 0.3, np.float32)
    check_crafted(made, x, (0.1,), made.craft(None, x, None, (0.1,), None), UNIT)


def test_the_slack_is_16_roundings_of_phi_and_of_the_pixels():
    x, phi, eps = np.zeros((1, 4)), 4.0, np.finfo(np.float64).eps
    for noise, passes in ((phi + 80 * eps, True), (phi + 84 * eps, False)):
        made = Fake(noise)
        if passes:
            check_crafted(made, x, (phi,), made.craft(None, x, None, (phi,), None), UNIT)
        else:
            with pytest.raises(AssertionError, match="expected a norm of 4 at most"):
                check_crafted(made, x, (phi,), made.craft(None, x, None, (phi,), None), UNIT)


# The table


@pytest.mark.parametrize(
    "made", [R1, R2, Noise(L1, clip=True), Noise(L2, clip=True), PGD(steps=1), APGD(steps=1), RandomSigns()]
)
def test_phi_0_is_the_clean_accuracy_bit_for_bit(trained, made):
    data, net = trained
    table = evaluate_attack(net, {"net": net}, data.test, made, (0.0,))
    assert table.accuracy["net"][0] == accuracy(net, data.test)


def test_accuracy_falls_with_phi_and_an_own_attack_hurts_most(trained):
    data, net = trained
    other = train(Settings(hidden=(64, 64), epochs=15, seed=1), data).net
    table = evaluate_attack(net, {"net": net, "other": other}, data.test, R1, PAPER_PHI)
    own, foreign = table.accuracy["net"], table.accuracy["other"]
    assert (np.diff(own) <= 0).all()
    assert own[-1] < foreign[-1] < foreign[0]


def test_the_table_says_which_examples_stand_and_each_block_draws_from_its_own_generator(trained):
    data, net = trained
    made, phi = PGD(steps=1, restarts=2), (0.0, 0.05)
    table = evaluate_attack(net, {"net": net}, data.test, made, phi, seed=3)
    assert len(data.test) > BLOCK
    expected = []
    for start in range(0, len(data.test), BLOCK):
        x, y = data.test.batch(slice(start, start + BLOCK))
        images = made.craft(net, x, y, phi, generator(3, "attack", start)).images
        expected.append([net.predict(image) == y for image in images])
    expected = np.concatenate(expected, axis=-1)
    assert (table.correct["net"] == expected).all()
    assert table.accuracy["net"].tolist() == [100 * stands.sum() / len(data.test) for stands in expected]
    assert (evaluate_attack(net, {"net": net}, data.test, made, phi, seed=4).correct["net"] != expected).any()


def test_a_stack_of_victims_and_adversaries_equals_its_models(trained):
    data, net = trained
    other = train(Settings(hidden=(64, 64), epochs=3, seed=1), data).net
    pair = stack([net, other])
    assert accuracy(pair, data.test).tolist() == [accuracy(net, data.test), accuracy(other, data.test)]
    for made in (R1, PGD(steps=3)):
        tables = evaluate_attack(pair, {"pair": pair, "net": net}, data.test, made)
        assert tables.correct["net"].shape == (5, 2, len(data.test))
        for k, one in enumerate((net, other)):
            alone = evaluate_attack(one, {"one": one, "net": net}, data.test, made)
            assert tables.accuracy["pair"][:, k] == pytest.approx(alone.accuracy["one"], abs=0.21)
            assert tables.accuracy["net"][:, k] == pytest.approx(alone.accuracy["net"], abs=0.21)


def test_the_share_of_zero_gradients_is_counted_by_the_noise_that_looks(trained):
    data, _ = trained
    weights = np.random.default_rng(0).normal(size=(64, 10))
    weights[:16] = 0  # a quarter of the pixels is ignored, and so has no gradient
    net = Network((Dense(weights, np.zeros(10)),))
    for crafting in (net, stack([net, net])):
        assert evaluate_attack(crafting, {"net": net}, data.test, R1).zero_share == 0.25
    assert evaluate_attack(net, {"net": net}, data.test, PGD(steps=1), (0.1,)).zero_share is None


def test_failures_and_the_size_of_the_smallest_noise_are_told():
    samples = check_samples(np.full((3, 4), 0.5), np.array([0, 1, 1]))
    net = biased_mlp([4, 2], rng())
    table = evaluate_attack(net, {"net": net}, samples, Fake(0.1, failed=(True, False, True), smallest=1), (0.1,))
    assert table.failed == 2
    assert table.lengths == {"l2": pytest.approx(0.2), "linf": pytest.approx(0.1)}
    table = evaluate_attack(net, {"net": net}, samples, Fake(0.0, failed=(True, True, True), smallest=3), (0.1,))
    assert np.isnan(table.lengths["l2"])  # nothing was found, so there is no median
    table = evaluate_attack(net, {"net": net}, samples, R1)
    assert table.failed is None
    assert table.lengths == {}


def test_nets_that_do_not_know_all_classes_are_refused(trained):
    data, net = trained
    small = Network((Dense(np.zeros((64, 7), np.float32), np.zeros(7, np.float32)),))
    words = "y: expected classes from 0 to 6, found 0 to 9"
    for call in (evaluate_attack, first_of_each_class):
        with pytest.raises(NnliteError, match=f"adversary: {words}"):
            call(small, {"net": net}, data.test, R1)
        with pytest.raises(NnliteError, match=f"small: {words}"):
            call(net, {"net": net, "small": small}, data.test, R1)


@pytest.mark.parametrize("phi", [(), (-0.1,), (0.1, float("nan")), (float("inf"),)])
def test_a_phi_that_is_no_size_is_refused(trained, phi):
    data, net = trained
    for call in (evaluate_attack, first_of_each_class):
        with pytest.raises(NnliteError, match="phi: expected"):
            call(net, {"net": net}, data.test, R1, phi)


def test_float32_attacks_a_confident_net_as_float64_does(trained):
    data, net = trained
    # ten times the logits predict the same, and are as sure as a net that was trained for long
    last = net.layers[-1]
    sure = Network((*net.layers[:-1], Dense(10 * last.W, 10 * last.b)))
    exact = sure.astype(np.float64)
    single = evaluate_attack(sure, {"sure": sure}, data.test, R1).accuracy["sure"]
    double = evaluate_attack(exact, {"sure": exact}, data.test, R1).accuracy["sure"]
    assert single == pytest.approx(double, abs=0.3)
    naive = Noise(L1, loss=naive_softmax_cross_entropy)
    trap = evaluate_attack(sure, {"sure": sure}, data.test, naive).accuracy["sure"]
    assert trap[-1] > double[-1] + 5  # the attack only looks weaker


def test_the_first_image_of_each_class_is_shown(trained):
    data, net = trained
    shown = first_of_each_class(net, {"net": net}, data.test, R1, (0.0, 0.1))
    assert shown.labels.tolist() == list(range(10))
    assert shown.images.shape == (10, 2, 64)
    first_seven = data.test.labels.tolist().index(7)
    x, _ = data.test.batch(slice(first_seven, first_seven + 1))
    assert (shown.images[7, 0] == x[0]).all()
    assert abs(shown.images[7, 1] - x[0]).max() == pytest.approx(0.1)
    assert (shown.predictions["net"][:, 0] == net.predict(shown.images[:, 0])).all()
