"""One step of training: the Update, and plain stochastic gradient descent, which alone changes an array in place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from nnlite.backend import Array, Number, per_model
from nnlite.datagrad import Term, weighted_passes
from nnlite.layers import Gradients
from nnlite.methods import WeightPenalty
from nnlite.network import Labels, Network, Pass


@dataclass(frozen=True, eq=False)
class Update:
    """What a step does; its numbers are one for each model where it serves a stack, (S,).

    Arguments:
        lr: The learning rate.
        terms: Those of Eq. 1.
        gamma: The weight of each auxiliary task's loss (Eq. 6).
        on_weights: The penalty on the weights, or None.
        lam: The weight of that penalty.
    """

    lr: Number
    terms: tuple[Term, ...] = ()
    gamma: Mapping[str, Number] = field(default_factory=dict)
    on_weights: WeightPenalty | None = None
    lam: Number = 0.0


def train_step(
    net: Network, x: Array, y: Labels, update: Update, rng: np.random.Generator | None = None, *, checked: bool = False
) -> Array:
    """Take one step of `update` and return the clean losses (..., N) before it.

    Arguments:
        net: One model, or a stack; its arrays change.
        x: The batch, (..., N, D).
        y: Its labels (..., N), or those of each task by name.
        update: What to do.
        rng: For methods whose noise begins at random.
        checked: As `weighted_passes` takes it.
    """
    passes = weighted_passes(net, x, y, update.terms, gamma=update.gamma, rng=rng, checked=checked)
    clean = cast(Pass, passes[0][1])
    steps: Gradients = net.gradients([(update.lr * weight, p) for weight, p in passes])
    if update.on_weights is not None:
        steps = update.on_weights(steps, net, clean, update.lr * update.lam)
    sgd_step(net, steps)
    return clean.loss


def sgd_step(net: Network, grads: Gradients, lr: Number | None = None) -> None:
    """Take w <- w - lr dw for every parameter of `net`, the SGD of Eq. 1.

    lr is a number, or one for each model, (S,). Without lr it is in `grads` already. They are linear in the weights of
    the passes, so lr can stand there, and one sweep less goes over arrays as large as the net.
    """
    for layer, grad in zip(net.all_layers, grads, strict=True):
        for name, slope in grad.items():
            array = layer.parameters[name]
            array -= slope if lr is None else per_model(lr, array) * slope
