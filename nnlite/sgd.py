"""Plain stochastic gradient descent, and the only place in nnlite that changes an array in place."""

from collections.abc import Iterable

from nnlite.backend import Array, per_model
from nnlite.layers import Parameters
from nnlite.network import Network


def sgd_step(net: Network, grads: Iterable[Parameters], lr: float | Array | None = None) -> None:
    """Take w <- w - lr dw for every parameter of `net`; lr is a number, or one for each model, (S,).

    Without lr it is in `grads` already. They are linear in the weights of the passes, so lr can stand there, and one
    sweep less goes over arrays as large as the net.
    """
    for layer, grad in zip(net.all_layers, grads, strict=True):
        for name, slope in grad.items():
            array = layer.parameters[name]
            array -= slope if lr is None else per_model(lr, array) * slope
