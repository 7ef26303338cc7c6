"""Predictions: the probability of each class, for rows whose labels nobody knows."""

import numpy as np
import numpy.typing as npt

from nnlite.evaluation.accuracy import BLOCK, FloatArray
from nnlite.network import Network


def probabilities(net: Network, x: npt.NDArray[np.floating]) -> FloatArray:
    """Return the softmax of the logits of one net, (N, C) in float64, for rows x (N, D) in [0, 1] on the host.

    The class that `Network.predict` returns has the largest one.
    """
    return softmax(logits(net, x))


def logits(net: Network, x: npt.NDArray[np.floating]) -> FloatArray:
    """Return the logits of one net, (N, C) in float64 but computed in its own dtype, for rows x (N, D) on the host."""
    blocks = (net.logits(x[start : start + BLOCK].astype(net.dtype)) for start in range(0, len(x), BLOCK))
    return np.concatenate([block.astype(np.float64) for block in blocks])


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities (N, C) that logits (N, C) mean."""
    import scipy.special

    found: FloatArray = scipy.special.softmax(logits, axis=-1)
    return found
