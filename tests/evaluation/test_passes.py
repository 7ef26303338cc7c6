"""Progress within a block of images, told by the passes of the net that crafts."""

import numpy as np
import pytest

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.passes import counted, most_passes
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.evaluation.threads import blocks_at_a_time
from nnlite.lbfgs import LBFGS

PHI = (0.0, 0.05, 0.1)


def told_by(attack, trained, block=20):
    """Return the table of an attack on 50 images with progress, and the number of images done at each call."""
    data, net = trained
    calls = []
    with blocks_at_a_time(1):
        table = evaluate_attack(
            net, {"net": net}, data.test[:50], attack, PHI, block=block, on_progress=lambda *call: calls.append(call)
        )
    assert {total for _, total in calls} == {50}
    return table, [done for done, _ in calls]


@pytest.mark.parametrize("attack", [R1, PGD(steps=4), PGD("l2", 3, 2), APGD(steps=5), FMN(steps=10), RandomSigns(3)])
def test_it_rises_within_each_block_and_is_right_at_its_ends(trained, attack):
    table, done = told_by(attack, trained)
    assert done == sorted(done)
    assert {0, 20, 40, 50} <= set(done)
    for start in (0, 20, 40):
        assert len([one for one in done if start < one <= start + 20]) >= (1 if attack == R1 else 3)
    data, net = trained
    plain = evaluate_attack(net, {"net": net}, data.test[:50], attack, PHI, block=20)
    assert (table.correct["net"] == plain.correct["net"]).all()  # to count changes nothing


def test_each_step_moves_it_by_an_equal_share(trained):
    _, done = told_by(PGD(steps=4), trained)
    # a forward run for each step, one for the end, at each of two phi; the first block knows of 3 x 4 at most
    assert done[1:9] == pytest.approx([20 * k / 12 for k in range(1, 9)])
    passes = done.index(20) - 1
    second = done[passes + 2 : passes + 4]
    assert second == pytest.approx([20 + 20 * k / passes for k in (1, 2)])  # each later one what the one before took


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        (R1, 3),
        (PGD(steps=40, restarts=5), 3 * 40 * 5),
        (APGD(steps=70, restarts=4, losses=("ce", "targets")), 3 * 70 * (4 + 9)),
        (APGD(steps=70, losses=("targets",)), 3 * 70 * 9),
        (FMN(steps=100), 3 * 100),
        (LBFGS(10, 50), 3 * 10 * 50),
        (RandomSigns(20), 3 * 20),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_most_passes_are_those_of_the_attacks_own_numbers(attack, most):
    assert most_passes(attack, 3, 10) == most


def test_the_attacks_of_art_say_how_many_passes_they_take(art):
    from nnlite.interop.art import ArtAttack

    assert most_passes(ArtAttack("square", queries=50), 3, 10) == 3 * 50
    assert most_passes(ArtAttack("deepfool"), 3, 10) == 3 * 50


def test_nets_made_of_a_counted_one_count_too(trained):
    _, net = trained
    calls = []
    made = counted(net, lambda: calls.append(1)).astype(np.float64).copy()
    x = np.zeros((2, 64))
    made.predict(x)
    made.run(x, np.array([0, 1]))
    assert len(calls) == 2
    assert repr(made) == repr(net.astype(np.float64))
