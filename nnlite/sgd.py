"""One step of training: the Update, and plain stochastic gradient descent, which alone changes the weights of a net.

A step is Eq. 4 as it is written: W -= lr sum_k c_k x_k^T delta_k. Each product is added to the weights by itself, so
that no gradient as large as the net is ever formed. `sgd_step` takes one that has been formed, for steps by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import cast

from numpy.random import Generator

from nnlite.backend import Array, Number, per_model
from nnlite.datagrad import Term, weighted_passes
from nnlite.layers import Gradients, add_gradients
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
    net: Network, x: Array, y: Labels, update: Update, rng: Generator | None = None, *, checked: bool = False
) -> Array:
    """Take one step of `update`, Eq. 1 with Eq. 4 in it, and return the clean losses (..., N) before it.

    A step that Ctrl-C or a lack of memory stops may have moved some layers and not others: go on from a copy.

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
    decay = update.on_weights and update.on_weights(net, clean, update.lr * update.lam)
    steps = net.summands([(-update.lr * weight, p) for weight, p in passes])
    for layer, summands, own in zip(net.all_layers, steps, decay or repeat({}), strict=False):
        if summands:  # none for a head without a loss, whose weights are not penalised either
            for name, slope in own.items():
                layer.parameters[name] -= slope
            for one in summands:
                add_gradients(layer, layer.parameters, *one)
    return clean.loss


def sgd_step(net: Network, grads: Gradients, lr: Number) -> None:
    """Take w <- w - lr dw for every parameter of `net`, as in Eq. 1; lr is a number, or one for each model, (S,)."""
    for layer, grad in zip(net.all_layers, grads, strict=True):
        for name, slope in grad.items():
            array = layer.parameters[name]
            array -= per_model(lr, array) * slope
