"""nnlite: a small neural-net engine whose backward pass reaches the inputs, and DataGrad on top of it.

Reading order: layers, losses, network (the Pass), penalties, datagrad. Everything a program needs is
importable from here; the command line is `nnlite`.
"""

__version__ = "0.2.0"

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

from nnlite.backend import get_xp, to_device, to_host
from nnlite.datagrad import Objective, Term, objectives, weighted_passes
from nnlite.errors import NnliteError
from nnlite.init import generator, he_normal
from nnlite.layers import Dense, Layer, ReLU
from nnlite.losses import Loss, free_kl_divergence, kl_divergence, softmax_cross_entropy
from nnlite.network import Activations, Network, Pass, Tangent, mlp, stack, unstack
from nnlite.penalties import L1, L2, L2_NORM, LINF, Penalty, masked
from nnlite.sgd import Update, sgd_step, train_step

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

_CLONE = os.path.dirname(os.path.dirname(__file__))


class _InClone:
    """Finds nnlite.cli and nnlite.data in a clone, where cli/ and data/ lie beside this folder; a wheel has them in it.

    Python started in a clone takes this folder for nnlite, whether nnlite is installed or not. With the clone in
    `__path__` it would find the two as well, but tests/, docs/ and the user's runs/ with them, as nnlite.runs.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return where the module `name` is, or None for a module that is neither of the two."""
        return PathFinder.find_spec(name, [_CLONE]) if name in ("nnlite.cli", "nnlite.data") else None


if os.path.isfile(os.path.join(_CLONE, "setup.cfg")):  # only a clone has it there
    sys.meta_path.append(_InClone)
