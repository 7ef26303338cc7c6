"""The outcome of a training: a net that is no better than a guess is told from one that has learned."""

import math

import numpy as np
import pytest
import scipy.special

from nnlite.datasets.samples import Samples, check_samples
from nnlite.init import generator
from nnlite.layers import Dense
from nnlite.network import Network, mlp
from nnlite.training.loop import Epoch
from nnlite.training.outcome import went_nowhere

X = np.eye(4, dtype=np.float32)


def net(logits):
    """Return a net that gives these logits (4, C) for the four unit vectors."""
    W = np.asarray(logits, np.float32)
    return Network((Dense(W, np.zeros(W.shape[1], np.float32)),))


def outcome(logits, labels=(0, 1, 2, 0), loss=9.0):
    """Return what is said of a net with these logits, whose epoch had this loss."""
    return went_nowhere(net(logits), Epoch(1, loss, 50.0, 1.0), check_samples(X, np.array(labels)))


RIGHT = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0]])


def test_a_net_that_is_right_is_told_nothing():
    assert outcome(RIGHT) == ""


def test_one_class_for_all_images_is_named():
    assert outcome([[0, 1, 0]] * 4) == "the net predicts class 1 for every validation image"
    assert outcome([[0, 1, 0]] * 4, labels=(1, 1, 1, 1)) == ""  # they are all of that class


@pytest.mark.parametrize("scale", [1.0, 10.0, 3e37])
def test_a_loss_above_that_of_a_guess_is_told(scale):
    logits = scale * RIGHT[[1, 2, 0, 1]]  # always wrong
    said = outcome(logits)
    expected = -scipy.special.log_softmax(logits.astype(np.float64), axis=-1)[range(4), (0, 1, 2, 0)].mean()
    assert expected > math.log(3)
    if scale < 3e37:
        assert said == f"the loss of {expected:,.4f} on the validation images is above that of a guess, 1.0986"
    assert "above that of a guess" in said


def test_both_losses_count():
    wrong = RIGHT[[1, 2, 0, 1]]
    assert outcome(wrong, loss=math.log(3) - 1e-6) == ""  # on the training images it is better
    assert outcome(wrong, loss=math.log(3) + 1e-6) != ""


@pytest.mark.parametrize(("above", "told"), [(-1e-3, False), (1e-3, True)])
def test_the_bound_is_log_c(above, told):
    """With the logit t of the true class and 0 of the two others the loss is log(1 + 2 exp(-t))."""
    t = -math.log((3 * math.exp(above) - 1) / 2)
    logits = t * np.eye(3)[[0, 1, 2, 0]] + 1e-4 * np.eye(3)[[1, 2, 0, 1]] * (t > 0)
    assert bool(outcome(logits)) == told


def test_an_untrained_net_of_many_blocks_is_told(digits):
    many: Samples = digits.train
    untrained = mlp((64, 32, 10), generator(0, "weights")).map(lambda array: 5 * array)
    assert len(many) > 1000
    loss = -scipy.special.log_softmax(untrained.logits(many.batch(slice(None))[0]), axis=-1)
    mean = loss[np.arange(len(many)), many.labels].mean()
    assert went_nowhere(untrained, Epoch(1, 9.0, 10.0, 1.0), many).startswith(f"the loss of {mean:,.4f} on")
