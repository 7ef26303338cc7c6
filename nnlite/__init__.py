"""nnlite: a small neural-net engine whose backward pass reaches the inputs, and DataGrad on top of it.

Reading order: layers, losses, network (the Pass), penalties, datagrad. Everything a program needs is
importable from here; the command line is `nnlite`.
"""

__version__ = "0.1.0"

from nnlite.backend import get_xp, to_device, to_host
from nnlite.datagrad import Term, weighted_passes
from nnlite.errors import NnliteError
from nnlite.init import generator, he_normal
from nnlite.layers import Dense, ReLU
from nnlite.losses import kl_divergence, softmax_cross_entropy
from nnlite.network import Network, Pass, Tangent, mlp, stack
from nnlite.penalties import L1, L2, L2_NORM, LINF, Penalty, masked
from nnlite.sgd import sgd_step

__all__ = [
    "L1",
    "L2",
    "L2_NORM",
    "LINF",
    "Dense",
    "Network",
    "NnliteError",
    "Pass",
    "Penalty",
    "ReLU",
    "Tangent",
    "Term",
    "generator",
    "get_xp",
    "he_normal",
    "kl_divergence",
    "masked",
    "mlp",
    "sgd_step",
    "softmax_cross_entropy",
    "stack",
    "to_device",
    "to_host",
    "weighted_passes",
]
