"""The outcome of a training: whether it led anywhere, and what to try where it did not."""

import math

import numpy as np

from nnlite.backend import to_host
from nnlite.datagrad import objectives
from nnlite.datasets.samples import Samples
from nnlite.evaluation.accuracy import BLOCK
from nnlite.losses import softmax_cross_entropy
from nnlite.network import Network
from nnlite.training.loop import Epoch
from nnlite.training.settings import Settings

# finished by its epochs or its patience, stopped by Ctrl-C, a loss that is no longer finite, or a net that is no better
# than a guess
STATUSES = ("finished", "interrupted", "diverged", "failed")


def went_nowhere(net: Network, best: Epoch, validation: Samples) -> str:
    """Return why a trained net is no better than a guess, in words, or "" where it is better.

    It predicts one class for all validation images, though they are of several; or its mean loss, that of its epoch and
    that on the validation images, is above log C, which is the loss of equal probabilities for each of C classes. Both
    losses count, because one alone may mislead: an epoch begins with an untrained net, and a net that is nearly always
    correct may be too sure of its few errors.

    Arguments:
        net: That of the best epoch, on the device of `validation`.
        best: That epoch.
        validation: The images that chose it.
    """
    predicted, total = set(), 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # the logits of such a net may be too large for a loss
        for start in range(0, len(validation), BLOCK):
            x, y = validation.batch(slice(start, start + BLOCK), net.dtype)
            logits = net.logits(x)
            predicted |= set(to_host(logits.argmax(axis=-1)).tolist())
            total += float(to_host(softmax_cross_entropy(logits, y)[0].sum()))
    loss, guess = total / len(validation), math.log(net.sizes[-1])
    if len(predicted) == 1 and len(np.unique(to_host(validation.labels))) > 1:
        return f"the net predicts class {predicted.pop()} for every validation image"
    if best.loss > guess and not loss <= guess:
        return f"the loss of {loss:,.4f} on the validation images is above that of a guess, {guess:.4f}"
    return ""


def advice(settings: Settings) -> str:
    """Return what to try where a training has diverged, or led nowhere."""
    words = f"Try a smaller learning rate, such as --lr {settings.lr / 10:g}"
    if objectives(settings.terms)[0].weight < 0:
        words += ", or a lambda below phi: the clean gradient has a negative weight here"
    return words
