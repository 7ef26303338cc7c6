"""Predictions: the probability of each class for new rows, and how they do where the rows have labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlite.backend import brief
from nnlite.evaluation.accuracy import FloatArray, IntArray, blocks_of, length, percent
from nnlite.evaluation.threads import OnShare, side_by_side
from nnlite.network import Network


@dataclass(frozen=True, eq=False)
class Scores:
    """How predictions do on rows whose labels are known.

    Arguments:
        labels: Which class each row is of, (N,).
        predicted: Which class it was taken for, (N,).
    """

    labels: IntArray
    predicted: IntArray
    __repr__ = brief("accuracy", "balanced")

    @property
    def accuracy(self) -> float:
        """The percentage of the rows that are predicted correctly."""
        return float(percent(self.labels == self.predicted))

    @property
    def by_class(self) -> dict[int, tuple[int, float]]:
        """Of each class among the rows, how many it has, and its recall: the percentage of them taken for it."""
        counts = {int(label): self.predicted[self.labels == label] for label in np.unique(self.labels)}
        return {label: (len(taken), float(percent(taken == label))) for label, taken in counts.items()}

    @property
    def balanced(self) -> float:
        """The balanced accuracy: the mean recall of the classes among the rows, whatever their size."""
        return float(np.mean([recall for _, recall in self.by_class.values()]))


def probabilities(net: Network, x: npt.NDArray[np.floating]) -> FloatArray:
    """Return the softmax of the logits of one net, (N, C) in float64, for rows x (N, D) in [0, 1] on the host.

    The class that `Network.predict` returns has the largest one.
    """
    return softmax(logits(net, x))


def logits(net: Network, x: npt.NDArray[np.floating]) -> FloatArray:
    """Return the logits of one net, (N, C) in float64 but computed in its own dtype, for rows x (N, D) on the host."""
    blocks = blocks_of(len(x))

    def work(number: int, _: OnShare) -> FloatArray:
        return net.logits(x[blocks[number]].astype(net.dtype)).astype(np.float64)

    return np.concatenate([*side_by_side(work, [*map(length, blocks)])])


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities (N, C) that logits (N, C) mean."""
    import scipy.special

    found: FloatArray = scipy.special.softmax(logits, axis=-1)
    return found
