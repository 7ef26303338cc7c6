"""Plain stochastic gradient descent, and the only place in nnlite that changes an array in place."""

from nnlite.backend import Array, per_model
from nnlite.layers import Parameters
from nnlite.network import Network


def sgd_step(net: Network, grads: list[Parameters], lr: float | Array) -> None:
    """Take w <- w - lr dw for every parameter of `net`; lr is a number, or one for each model, (S,)."""
    for layer, grad in zip(net.all_layers, grads, strict=True):
        for name, slope in grad.items():
            array = layer.parameters[name]
            array -= per_model(lr, array) * slope
