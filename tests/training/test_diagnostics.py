"""What a training warns of at its end: label leaking, and validation accuracy that fell."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.training.diagnostics import _chance, diagnose
from nnlite.training.loop import Epoch
from nnlite.training.run_folder import Results, Run
from nnlite.training.settings import Settings


def run(test=90.0, under_noise=(89.0, 88.0, 60.0, 40.0), validation=(90.0,)):
    """Return a run with these figures; there is no net."""
    history = [Epoch(number, 0.1, accuracy, 1.0) for number, accuracy in enumerate(validation, 1)]
    best = max(history, key=lambda epoch: (epoch.validation, epoch.epoch))
    results = Results("finished", best.epoch, best.validation, test, PAPER_PHI, (test, *under_noise))
    return Run(Path("runs/digits/mine"), Settings(), history, results, None, None)


def data(test=10_000, validation=10_000):
    return SimpleNamespace(test=range(test), validation=range(validation))


def test_a_usual_training_gives_no_reason():
    assert diagnose(run(validation=(50.0, 80.0, 90.0, 89.0)), data()) == []


def test_noise_that_helps_is_label_leaking():
    (warning,) = diagnose(run(68.69, (61.29, 58.07, 83.64, 97.98)), data())
    for words in (
        "label leaking (Kurakin et al. 2017): test accuracy rises from 68.69 % to 97.98 %",
        "own R1 noise of phi 0.1,",
        "one-step noise then says nothing about robustness; use nnlite audit runs/digits/mine",
    ):
        assert words in warning


def test_the_worst_leak_is_named_at_whatever_phi():
    (warning,) = diagnose(run(50.0, (50.0, 80.0, 70.0, 10.0)), data())
    assert "80.00 % under the net's own R1 noise of phi 0.01," in warning


# two standard errors of a difference near 50 %: 2 sqrt(2 * 0.5 * 0.5 / N), which is 1.41 points for 10,000 images
@pytest.mark.parametrize(
    ("images", "rise", "warns"), [(10_000, 1.3, False), (10_000, 1.5, True), (100, 13, False), (100, 15, True)]
)
def test_a_rise_counts_from_two_standard_errors_on(images, rise, warns):
    found = diagnose(run(50.0, (50.0 + rise, 0.0, 0.0, 0.0)), data(test=images))
    assert [("label leaking" in warning) for warning in found] == [True] * warns


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.97])
def test_two_accuracies_of_equal_nets_rarely_differ_by_more_than_chance(accuracy):
    """All pairs of binomial counts, each with its probability."""
    images = 200
    counts = np.arange(images + 1)
    odds = scipy.stats.binom.pmf(counts, images, accuracy)
    rate = sum(
        odds[low] * odds[high]
        for low in counts
        for high in counts[low:]
        if 100 * (high - low) / images > _chance(100 * low / images, 100 * high / images, images)
    )
    assert 0.015 < rate < 0.03  # a normal number lies beyond two standard errors on one side in 2.3 % of cases


def test_without_an_error_there_is_no_leak():
    assert diagnose(run(100.0, (100.0,) * 4, (100.0,)), data()) == []


def test_a_fall_is_told_with_what_is_kept():
    (warning,) = diagnose(run(validation=(60.0, 71.0, 55.0, 41.0)), data())
    assert warning == (
        "validation accuracy fell from 71.00 % in epoch 2 to 41.00 % in the last epoch, 4; the net of epoch 2 is kept"
    )


@pytest.mark.parametrize(
    ("validation", "warns"),
    [
        ([90.0] * 9 + [84.9], True),
        ([90.0] * 9 + [85.1], False),
        ([90.0] * 18 + [80.0, 80.0], True),
        ([90.0] * 18 + [89.0, 80.0], False),  # of twenty epochs the last two count, so one bad epoch is none
        ([90.0] * 18 + [80.0, 89.0], False),
        ([90.0], False),
    ],
)
def test_the_last_tenth_of_the_epochs_decides(validation, warns):
    assert len(diagnose(run(validation=validation), data())) == warns


def test_a_fall_on_few_images_may_be_chance():
    fell = run(validation=[60.0] * 9 + [50.0])
    assert diagnose(fell, data(validation=100)) == []
    assert len(diagnose(fell, data(validation=1000))) == 1


def test_both_are_told():
    assert len(diagnose(run(41.0, (41.0, 41.0, 80.0, 97.0), (71.0, 41.0)), data())) == 2
