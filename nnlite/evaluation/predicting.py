"""Predictions: the probability of each class, for rows whose labels nobody knows."""

import numpy as np
import numpy.typing as npt

from nnlite.evaluation.accuracy import BLOCK, FloatArray
from nnlite.network import Network


def probabilities(net: Network, x: npt.NDArray[np.floating]) -> FloatArray:
    """Return the softmax of the logits of one net, (N, C) in float64, for rows x (N, D) in [0, 1] on the host.

    The class that `Network.predict` returns has the largest one.
    """
    import scipy.special

    blocks = (net.logits(x[start : start + BLOCK].astype(net.dtype)) for start in range(0, len(x), BLOCK))
    return np.concatenate([scipy.special.softmax(logits.astype(np.float64), axis=-1) for logits in blocks])
