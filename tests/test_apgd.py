"""Auto-PGD: against the paper's algorithm written out, the exact worst case of linear nets, and plain PGD."""

import math
from dataclasses import FrozenInstanceError
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import biased_mlp, cases

from nnlite import apgd
from nnlite.apgd import APGD, LOSSES, _checks, _looks
from nnlite.attacks import PGD
from nnlite.errors import NnliteError
from nnlite.evaluation.promises import check_crafted
from nnlite.inputs import UNIT
from nnlite.layers import Dense, ReLU
from nnlite.losses import softmax_cross_entropy
from nnlite.network import Network, stack, unstack

pytestmark = pytest.mark.once

seeds = st.integers(0, 2**16)


def rng():
    return np.random.default_rng(0)


def written_out(net, x, y, phi, steps):
    """Return what Algorithm 1 of Croce and Hein makes of one image x (D,), on the cross-entropy, pixels free.

    It begins at the image and keeps the point of the highest loss, as there.
    """

    def look(point):
        run = net.run(point[None], np.array([y]))
        return float(run.loss[0]), run.dx[0]

    def into_ball(point):
        return np.clip(point, x - phi, x + phi)

    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(round(shares[-1] - shares[-2] - 0.03, 10), 0.06))
    checkpoints = [math.ceil(round(share * steps, 8)) for share in shares]

    stride, point, previous = 2 * phi, x, x
    value, slope = look(x)
    best, best_value, best_slope = x, value, slope
    rises, since, halved, value_then = 0, 0, False, value
    for k in range(1, steps + 1):
        ahead = into_ball(point + stride * np.sign(slope))
        share = 0.75 if k > 1 else 1.0
        moved = into_ball(point + share * (ahead - point) + (1 - share) * (point - previous))
        previous, point = point, moved
        now, slope = look(point)
        rises, value = rises + (now > value), now
        if value > best_value:
            best, best_value, best_slope = point, value, slope
        if k in checkpoints:
            few = rises < 0.75 * (k - since)
            none = not halved and best_value == value_then
            halved, value_then, rises, since = few or none, best_value, 0, k
            if halved:
                stride, point, value, slope = stride / 2, best, best_value, best_slope
    return best, best_value


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=4), seeds, st.floats(0.01, 0.3), st.integers(1, 40))
def test_on_the_cross_entropy_it_is_the_papers_algorithm(sizes, seed, phi, steps):
    net, x = biased_mlp(sizes, np.random.default_rng(seed)), np.random.default_rng(seed + 1).random((6, sizes[0]))
    y = net.predict(x)
    image = APGD(steps=steps, restarts=1, losses=("ce",), clip=False).craft(net, x, y, (phi,), rng()).images[0]
    stands = net.predict(image) == y
    for k in np.flatnonzero(stands):
        _, highest = written_out(net, x[k], y[k], phi, steps)
        found, _ = softmax_cross_entropy(net.logits(image[k : k + 1]), y[k : k + 1])
        assert found[0] == pytest.approx(highest, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_where_nothing_falls_the_whole_search_is_the_papers(seed):
    """The first class is ahead by so much that no image falls: strides are halved, and points go back to the best."""
    net = biased_mlp([8, 12, 12, 4], np.random.default_rng(seed))
    last = net.layers[-1]
    net = net.rebuild([*net.layers[:-1], Dense(last.W, last.b + np.array([30, 0, 0, 0]))])
    x, y = np.random.default_rng(seed + 1).random((10, 8)), np.zeros(10, int)
    for phi, steps in ((0.1, 40), (0.5, 25), (1.0, 7)):
        image = APGD(steps=steps, restarts=1, losses=("ce",), clip=False).craft(net, x, y, (phi,), rng()).images[0]
        assert (net.predict(image) == y).all()
        for k in range(10):
            best, _ = written_out(net, x[k], y[k], phi, steps)
            np.testing.assert_allclose(image[k], best, rtol=0, atol=1e-9)


def test_it_looks_back_when_the_paper_does():
    assert sorted(_checks(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checks(1)) == [1]


def test_a_search_may_be_given_up_four_times():
    assert [_looks(steps) for steps in (70, 16, 1, 0)] == [[5, 9, 18, 35], [1, 2, 4, 8], [1], []]


def test_a_mixture_weighs_each_logit_up_or_down():
    drawn = []

    def uniform(low, high, shape):
        drawn.append((low, high, shape))
        return rng().uniform(low, high, shape)

    net, x = biased_mlp([5, 6, 3], rng()), rng().random((4, 5))
    APGD(steps=1, restarts=7).craft(net, x, net.predict(x), (0.1,), SimpleNamespace(uniform=uniform))
    assert drawn == [(-1, 1, (5, 4, 3))]  # for all starts but the image and its far side


def linear(classes, features, seed):
    draw = np.random.default_rng(seed)
    return Network((Dense(draw.standard_normal((features, classes)), 0.1 * draw.standard_normal(classes)),))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["linf", "l2"]), st.integers(2, 6), st.integers(2, 9), seeds, st.floats(0.01, 1))
def test_it_breaks_just_the_images_of_a_linear_net_that_can_be_broken(norm, classes, features, seed, phi):
    """The least margin in the ball is known: z_y - z_t less phi times the dual norm of w_y - w_t."""
    net = linear(classes, features, seed)
    x = np.random.default_rng(seed + 1).random((20, features))
    y = net.predict(x)
    W, logits = net.layers[0].W, net.logits(x)
    dual = abs if norm == "linf" else np.square
    length = dual(W[:, y][:, :, None] - W[:, None, :]).sum(axis=0)  # (N, C)
    length = length if norm == "linf" else np.sqrt(length)
    own = np.arange(classes) == y[:, None]
    margins = np.where(own, np.inf, logits[np.arange(20), y][:, None] - logits - phi * length).min(axis=1)
    decided = abs(margins) > 1e-9
    for losses, options in ((("targets",), {}), (("margin", "targets"), {}), (("ce",), {"steps": 1, "restarts": 2})):
        attack = APGD(norm, **{"steps": 20, **options}, losses=losses, clip=False)
        image = attack.craft(net, x, y, (phi,), rng()).images[0]
        assert ((net.predict(image) != y) == (margins < 0))[decided].all()


def test_the_targets_include_the_class_that_is_likely_last():
    W, b = np.zeros((2, 4)), np.array([0.0, -1, -2, -5])
    W[0, 3] = 100  # within 0.1 the last class alone gets past the first, and the gradients of the others are 0
    attack = APGD(losses=("targets",), clip=False)
    (found,) = attack.craft(Network((Dense(W, b),)), np.zeros((1, 2)), np.array([0]), [0.1], rng()).images
    assert 100 * found[0, 0] - 5 > 0


class Counting(Dense):
    """A Dense layer that remembers of how many images it was asked."""

    def __init__(self, W, b):
        super().__init__(W, b)
        object.__setattr__(self, "rows", [])

    def forward(self, x):
        self.rows.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize(("fall", "left"), [(0, 8), (2, 8), (3, 5), (7, 1)])
def test_images_that_fell_are_dropped_where_more_than_a_quarter_did(fall, left):
    last = Counting(np.array([[0.0, 1]]), np.zeros(2))
    x = np.array([[-0.05]] * fall + [[-0.5]] * (8 - fall))  # the net errs above 0
    APGD(steps=9, restarts=1, losses=("ce",), clip=False).craft(Network((last,)), x, np.zeros(8, int), [0.1], rng())
    assert last.rows == [8] * 4 + [left] * 8  # the images, the gradient of a start, the start, a step, and eight more


def test_it_breaks_what_plain_pgd_leaves(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 250))
    left = {}
    for name, attack in {"pgd": PGD(restarts=3, clip=False), "apgd": APGD(steps=30, clip=False)}.items():
        images = attack.craft(net, x, y, (0.02, 0.04, 0.06), rng()).images
        left[name] = np.array([(net.predict(image) == y).sum() for image in images])
    assert (left["apgd"] <= left["pgd"]).all()
    assert left["apgd"].sum() < left["pgd"].sum()


def test_what_one_start_breaks_more_starts_break_too(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 200))
    few, more = (
        net.predict(APGD(steps=10, restarts=count, losses=("ce",)).craft(net, x, y, (0.07,), rng()).images[0]) != y
        for count in (1, 4)
    )
    assert (more | ~few).all()
    assert more.sum() > few.sum()


@settings(deadline=None, max_examples=25)
@given(
    cases(),
    st.sampled_from(["linf", "l2"]),
    st.booleans(),
    st.integers(1, 2),
)
def test_it_keeps_its_promises(case, norm, clip, restarts):
    net, x, y = case
    x = x.clip(0, 1)
    phi = (0.0, 0.3, 0.1)
    attack = APGD(norm, 7, restarts, tuple(LOSSES), clip)
    crafted = attack.craft(net, x, y, phi, rng())
    check_crafted(attack, x, phi, crafted, UNIT)
    assert all(image.dtype == x.dtype for image in crafted.images)
    wrong = net.predict(x) != y
    noise = [image - x for image in crafted.images]
    assert all((np.broadcast_to(one, (*wrong.shape, x.shape[-1]))[wrong] == 0).all() for one in noise)  # none is needed


def test_the_sizes_may_come_in_any_order_and_the_larger_ball_never_holds_less(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 200))
    attack, sizes = APGD(steps=10), (0.08, 0.0, 0.02, 0.05)
    crafted = dict(zip(sizes, attack.craft(net, x, y, sizes, rng()).images, strict=True))
    again = attack.craft(net, x, y, sorted(sizes), rng()).images
    assert all((crafted[size] == image).all() for size, image in zip(sorted(sizes), again, strict=True))
    stands = [net.predict(crafted[size]) == y for size in sorted(sizes)]
    assert all((larger <= smaller).all() for smaller, larger in pairwise(stands))
    assert 0 < stands[-1].sum() < stands[0].sum()


@settings(deadline=None, max_examples=20)
@given(cases(), st.integers(1, 2))
def test_a_stack_is_attacked_as_its_nets_are_one_by_one(case, restarts):
    net, x, y = case
    attack = APGD(steps=8, restarts=restarts)
    together = attack.craft(net, x, y, (0.02, 0.2), rng()).images
    if together[0].ndim == 2:
        return
    for k, one in enumerate(unstack(net)):
        own = (x[k], y[k]) if x.ndim == 3 else (x, y)
        starts = SimpleNamespace(uniform=lambda *args, k=k: rng().uniform(-1, 1, x.shape)[k if x.ndim == 3 else ...])
        alone = attack.craft(one, *own, (0.02, 0.2), starts).images
        for both, single in zip(together, alone, strict=True):
            # not the points: where a pixel does nothing, the sign of its derivative is that of a rounding
            ours, theirs = one.run(both[k], own[1]), one.run(single, own[1])
            assert (ours.logits.argmax(axis=-1) == theirs.logits.argmax(axis=-1)).all()
            stands = ours.logits.argmax(axis=-1) == own[1]
            assert ours.loss[stands] == pytest.approx(theirs.loss[stands], rel=1e-6, abs=1e-9)


def test_an_image_is_attacked_as_it_is_alone(trained):
    data, net = trained
    x, y = data.test.batch(slice(0, 40), np.float64)
    net, attack = net.astype(np.float64), APGD(steps=15, restarts=2, clip=False)
    together = attack.craft(net, x, y, (0.06,), rng()).images[0]
    alone = [attack.craft(net, x[k : k + 1], y[k : k + 1], (0.06,), rng()).images[0][0] for k in range(40)]
    assert 5 < (net.predict(together) != y).sum() < 35
    assert together == pytest.approx(np.array(alone), abs=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_stack_is_given_the_points_of_its_nets(norm):
    nets = [biased_mlp([6, 8, 3], np.random.default_rng(seed)) for seed in range(3)]
    x, y = rng().random((30, 6)), rng().integers(0, 3, 30)
    attack = APGD(norm, steps=12, losses=tuple(LOSSES))
    together = attack.craft(stack(nets), x, y, (0.05, 0.3), rng()).images
    for k, net in enumerate(nets):
        for both, single in zip(together, attack.craft(net, x, y, (0.05, 0.3), rng()).images, strict=True):
            assert both[k] == pytest.approx(single, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "l1"}, "norm: expected one of"),
        ({"steps": 0}, "steps: expected"),
        ({"restarts": True}, "restarts: expected"),
        ({"losses": ()}, "losses: expected one or more of ce, margin, targets"),
        ({"losses": ("dlr",)}, "losses: expected"),
    ],
)
def test_what_it_cannot_do_is_refused(options, words):
    with pytest.raises(NnliteError, match=words):
        APGD(**options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_two_classes_to_leave_one_is_to_reach_the_other(norm):
    net, x, y = biased_mlp([6, 20, 2], rng()), rng().random((40, 6)), np.arange(40) % 2
    leave, reach = (APGD(norm, 12, 2, tuple(LOSSES), targeted=targeted) for targeted in (False, True))
    for left, reached in zip(
        leave.craft(net, x, y, (0.02, 0.1), rng()).images,
        reach.craft(net, x, 1 - y, (0.02, 0.1), rng()).images,
        strict=True,
    ):
        assert left == pytest.approx(reached, abs=1e-9)
        assert 0 < (net.predict(left) != y).sum() < 40


def test_the_second_start_lies_against_the_gradient_that_misleads():
    # z1 - z0 = x / 10 - 1 + 10 relu(-x - 1/2) rises to the right at 0, where it stays below 0, and is 3.9 at -1
    first = Dense(np.array([[1.0, -1.0, -1.0]]), np.array([0.0, 0.0, -0.5]))
    last = Dense(np.array([[0, 0.1], [0, -0.1], [0, 10.0]]), np.array([0, -1.0]))
    net, x, y = Network((first, ReLU(), last)), np.full((1, 1), 1e-9), np.array([0])
    right, left = (APGD(restarts=starts, clip=False).craft(net, x, y, (1.0,), rng()).images[0] for starts in (1, 2))
    assert net.predict(right) == 0
    assert net.predict(left) == 1


def test_an_attack_is_a_value():
    with pytest.raises(FrozenInstanceError):
        APGD().steps = 3


def asked_of(net, x, y, **options):
    """Return how many images the last layer of a net was asked of in each pass of a search in a ball of 0.1."""
    APGD(**options, clip=False).craft(net, x, y, [0.1], rng())
    return net.layers[-1].rows


def test_a_search_without_hope_is_given_up():
    last = Counting(np.array([[0.0, 1]]), np.zeros(2))
    x, y = np.full((8, 1), -0.5), np.zeros(8, int)  # the net errs above 0, which is out of reach
    seen = asked_of(Network((last,)), x, y, steps=32, restarts=5)
    # the images; each start: its gradient, and what is there; 32 steps; 2 of two on one loss and of one on the other
    assert seen == [8] * (1 + 2 * 3 + 32 + 32) + [16] * (2 + 2) + [8] * (2 + 2)


def test_what_is_given_up_would_have_found_next_to_nothing(trained, monkeypatch):
    data, net = trained
    x, y = data.test.batch(slice(0, 200))
    left, passes = [], []
    for hope in (1e30, apgd.HOPE):
        monkeypatch.setattr(apgd, "HOPE", hope)
        last = Counting(net.layers[-1].W, net.layers[-1].b)
        chain = net.rebuild([*net.layers[:-1], last])
        (image,) = APGD(restarts=20, clip=False).craft(chain, x, y, (0.05,), rng()).images
        left.append((chain.predict(image) == y).sum())
        passes.append(sum(last.rows))
    assert left[0] <= left[1] <= left[0] + 1
    assert passes[1] < 0.5 * passes[0]


def test_searches_side_by_side_find_what_they_find_one_after_another(trained, monkeypatch):
    data, net = trained
    net, (x, y) = net.astype(np.float64), data.test.batch(slice(0, 60), np.float64)
    attack, found = APGD(steps=12, restarts=12, losses=tuple(LOSSES), clip=False), []
    for at_once in (1, 200):
        monkeypatch.setattr(apgd, "AT_ONCE", at_once)
        found.append(attack.craft(net, x, y, (0.03, 0.06), rng()).images)
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-12)
        assert 0 < (net.predict(one) != y).sum() < 60


@pytest.mark.parametrize("losses", [("targets",), ("ce", "margin")])
def test_the_first_search_with_each_loss_and_that_towards_each_class_go_on_to_their_ends(losses):
    last = Counting(np.array([[0.0, 1, 0.5]]), np.zeros(3))
    x, y = np.full((4, 1), -0.5), np.zeros(4, int)
    seen = asked_of(Network((last,)), x, y, steps=16, restarts=2, losses=losses)
    towards = 0 if losses == ("targets",) else 2 * 2
    assert sum(seen) == 4 * (1 + towards + 2 * (2 + 16))
