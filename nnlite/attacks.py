"""Test noise, as in section 3 of the paper: one step of size phi along R's gradient at the input gradient.

R1 noise is phi sign(J), the fast gradient sign method; R2 noise is phi 2J. The paper does not clip to
[0, 1]. The direction does not depend on phi, so one backward pass serves every phi.
"""

from nnlite.backend import Array, per_model
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import Network
from nnlite.penalties import L1, L2, Penalty

NOISES: dict[str, Penalty] = {"r1": L1, "r2": L2}


def input_gradient(net: Network, x: Array, y: Array, loss: Loss = softmax_cross_entropy) -> Array:
    """Return J (..., N, D), each example's own dloss/dx at x (..., N, D); no weight gradient is formed."""
    return net.run(x, y, loss=loss).dx


def perturb(x: Array, direction: Array, phi: float | Array, *, clip: bool = False) -> Array:
    """Return x + phi direction, clipped to [0, 1] on request."""
    moved = x + per_model(phi, direction) * direction
    return moved.clip(0, 1) if clip else moved
