"""The names that `nnlite` gives, and where each of them is: read by type checkers, and by `nnlite/__init__.py`."""

from . import (
    apgd,
    attacks,
    backend,
    blas,
    certify,
    datagrad,
    errors,
    gradcheck,
    init,
    inputs,
    layers,
    lbfgs,
    losses,
    methods,
    network,
    penalties,
    sgd,
)
from .backend import get_xp, to_device, to_host
from .datagrad import Objective, Term, objectives, weighted_passes
from .errors import NnliteError
from .init import generator, he_normal
from .layers import Dense, Layer, ReLU
from .losses import Loss, free_kl_divergence, kl_divergence, softmax_cross_entropy
from .network import Activations, Network, Pass, Tangent, mlp, stack, unstack
from .penalties import L1, L2, L2_NORM, LINF, Penalty, masked
from .sgd import Update, sgd_step, train_step

__all__ = [
    "L1",
    "L2",
    "L2_NORM",
    "LINF",
    "Activations",
    "Dense",
    "Layer",
    "Loss",
    "Network",
    "NnliteError",
    "Objective",
    "Pass",
    "Penalty",
    "ReLU",
    "Tangent",
    "Term",
    "Update",
    "free_kl_divergence",
    "generator",
    "get_xp",
    "he_normal",
    "kl_divergence",
    "masked",
    "mlp",
    "objectives",
    "sgd_step",
    "softmax_cross_entropy",
    "stack",
    "to_device",
    "to_host",
    "train_step",
    "unstack",
    "weighted_passes",
]

__version__: str
