"""The fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827): the nearest misclassified image, in few passes.

PGD is given a radius; here the radius follows the border between two classes. Each step goes up the margin z_t - z_y
of the likeliest wrong class t, and is projected into the ball. Where the point is misclassified the ball shrinks by the
share gamma, elsewhere it grows by it; before the first misclassified point it grows at least to where the margin, taken
as linear, would be 0. Strides and gamma fall along half a cosine, so that the point settles at the border.

Two things differ from the paper. There the first balls end at the linear estimate, and points may approach the border
from within and never cross it; here gamma is added. And there no ball is wider than the best noise is long. But a point
is moved into the box of the data after the projection, which shortens its noise: the ball that makes the best noise may
be wider.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nnlite.attacks import NORMS, Crafted, check_batch, check_settings, project
from nnlite.backend import Array, get_xp
from nnlite.inputs import UNIT, Box
from nnlite.losses import margin
from nnlite.network import Network
from nnlite.penalties import L1, L2_NORM

DUALS = {"linf": L1.value, "l2": L2_NORM.value}  # of a gradient: how far the margin can rise within a ball of radius 1
STRIDES = 1.0, 0.01  # alpha of the paper: the first and the last, in the L2 norm
GAMMA = 0.05


@dataclass(frozen=True)
class FMN:
    """The fast minimum-norm attack. It draws nothing.

    Arguments:
        norm: What is to be small, "linf" or "l2".
        steps: How many points are looked at; the first is the image itself.
        clip: Whether pixels stay within the box of the data.
        targeted: Whether the net is to predict y, not to leave it: then the margin is z_y - z_t, of the likeliest t.
    """

    norm: str = "linf"
    steps: int = 100
    clip: bool = True
    targeted: bool = False

    def __post_init__(self) -> None:
        check_settings(self, "steps")

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return for each phi the nearest image that was found, where it is within phi of x, and x elsewhere.

        An image that fools the net already needs no noise. `failed` is true where none that does was found.
        """
        limits, xp = check_batch(net, x, y, box if self.clip else None), get_xp(x, y)
        nearest, length = self._nearest(net, x, y, limits)
        images = [xp.where(length <= size, nearest, x) for size in map(float, phi)]
        return Crafted(images, failed=length[..., 0] == np.inf, smallest=nearest)

    def _nearest(self, net: Network, x: Array, y: Array, box: Box | None) -> tuple[Array, Array]:
        """Return the nearest image (..., N, D) that fools the net, and its distance (..., N, 1); x and inf for none."""
        xp, measure, dual = get_xp(x, y), NORMS[self.norm], DUALS[self.norm]
        models = net.predict(x).shape
        point = nearest = xp.broadcast_to(x, (*models, x.shape[-1]))
        radius = xp.zeros((*models, 1), x.dtype)
        length = radius + np.inf
        for step in range(self.steps):
            fall = (1 + math.cos(math.pi * step / self.steps)) / 2
            seen, size = net.backward(net.forward(point), y, loss=margin), measure(point - x)[..., None]
            fooled = ((seen.logits.argmax(axis=-1) == y) == self.targeted)[..., None]
            rise, height = (-seen.dx, -seen.loss) if self.targeted else (seen.dx, seen.loss)
            closer = fooled & (size < length)
            nearest, length = xp.where(closer, point, nearest), xp.where(closer, size, length)

            slope = dual(rise)[..., None]
            border = size - height[..., None] / xp.where(slope > 0, slope, np.inf)
            wider = (1 + GAMMA * fall) * xp.where(length == np.inf, xp.maximum(radius, border), radius)
            radius = xp.where(fooled, (1 - GAMMA * fall) * radius, wider)
            stride = STRIDES[1] + (STRIDES[0] - STRIDES[1]) * fall
            point = project(point + stride * L2_NORM.gradient(rise), x, radius, self.norm)
            point = point if box is None else box.clip(point)
        return nearest, length
