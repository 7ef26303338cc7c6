"""Penalties R and their gradients dR/da.

DataGrad applies R to each example's own input gradient; dR/dJ there is the adversarial direction y of
Eq. 3. The classical penalties apply the same R to the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nnlite.backend import Array, get_xp, per_model
from nnlite.layers import Dense, Parameters
from nnlite.network import Network


@dataclass(frozen=True)
class Penalty:
    """R by name: `value` (..., N, D) -> (..., N), one for each row; `gradient` keeps the shape."""

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


def _sign(a: Array) -> Array:
    sign: Array = get_xp(a).sign(a)
    return sign


L1 = Penalty("l1", value=lambda a: abs(a).sum(axis=-1), gradient=_sign)
"""R1 = sum |a_s|, dR1/da = sign(a), with sign(0) = 0. Its direction is that of the fast gradient sign method."""

L2 = Penalty("l2", value=lambda a: (a * a).sum(axis=-1), gradient=lambda a: 2 * a)
"""R2 = sum a_s^2, dR2/da = 2 a, as in step 2 of the paper's section 2.1."""


def add_weight_penalty(
    grads: list[Parameters], net: Network, penalty: Penalty, lam: float | Array, examples: int
) -> list[Parameters]:
    """Return `grads` plus the gradient of lam R(W) / examples for each weight matrix; biases are free.

    The batch loss is a mean over `examples`. The paper's lambda stands beside the batch sum, so its share
    of the mean is lam / examples: with lambda beside the mean, the paper's L1 row at 0.1 would be dead.
    """
    return [
        {**grad, "W": grad["W"] + per_model(lam / examples, layer.W) * penalty.gradient(layer.W)}
        if isinstance(layer, Dense) and grad
        else grad
        for layer, grad in zip(net.all_layers, grads, strict=True)
    ]
