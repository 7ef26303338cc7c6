"""The attack of Szegedy et al. 2013: the smallest noise r, in the L2 norm, that makes a net misclassify an image.

For a wrong class, the target, the noise minimises

    c |r|^2 + loss(x + r, target)    with x + r in the box of the data

by box-constrained L-BFGS (SciPy's L-BFGS-B) with the input gradient of the net. The larger c, the smaller r; so a
search finds the largest c whose minimiser is still classified as the target. Examples share no variables, so a whole
batch is solved as one problem in which each has its own c. Each part is divided by its c, which moves no minimiser;
otherwise one example of a large c would hold up all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from nnlite.attacks import Crafted, check_batch, check_settings
from nnlite.backend import Array, Number, get_xp, to_host
from nnlite.inputs import UNIT, Box
from nnlite.losses import runner_up
from nnlite.network import Network
from nnlite.penalties import L2_NORM

TOLERANCE = 0.25  # at the kinks of ReLU a gradient jumps: 0.02 to 0.17 are left at minimisers of the paper's net


@dataclass(frozen=True)
class LBFGS:
    """The attack of Szegedy et al.; the target is y if targeted, else the most likely wrong class. It draws nothing.

    searches is how many c are tried for each example, from c = 1 on, and iterations the limit for each of them.
    """

    searches: int = 10
    iterations: int = 50
    targeted: bool = False

    norm: ClassVar[str] = "l2"
    clip: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self, "searches", "iterations")

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return for each phi the nearest image that was found, where it is within phi of x, and x elsewhere.

        An image that fools the net already needs no noise. `failed` is true where no noise was found, and where the
        noise had not converged, so that it may be larger than necessary.
        """
        check_batch(net, x, y, box)
        xp = get_xp(x, y)
        logits = net.logits(x)
        target = xp.broadcast_to(y, logits.shape[:-1]) if self.targeted else runner_up(logits, y)
        nearest, converged = self._nearest(net, x, target, box)
        needed = (logits.argmax(axis=-1) == y) != self.targeted
        nearest = xp.where(needed[..., None], nearest, x)
        length = L2_NORM.value(nearest - x)
        images = [xp.where((length <= size)[..., None], nearest, x) for size in map(float, phi)]
        return Crafted(images, failed=needed & ~converged, smallest=nearest)

    def _nearest(self, net: Network, x: Array, target: Array, box: Box) -> tuple[Array, Array]:
        """Return the image of the largest c that worked, or x where none did, and whether it has converged.

        c goes up or down tenfold until it has worked and failed once, then to the geometric mean of the two. So it is
        larger each time that it works.
        """
        xp = get_xp(x, target)
        zero = xp.zeros(target.shape, x.dtype)
        c, worked, failed = zero + 1, zero, zero + np.inf
        nearest, converged = x, zero > 0
        for _ in range(self.searches):
            found, solved = minimise(net, x, target, c, self.iterations, box)
            works = net.predict(found) == target
            nearest = xp.where(works[..., None], found, nearest)
            converged = xp.where(works, solved, converged)
            worked, failed = xp.where(works, c, worked), xp.where(works, failed, c)
            c = xp.where(worked == 0, c / 10, xp.where(failed == np.inf, 10 * c, xp.sqrt(worked * failed)))
        return nearest, converged


def minimise(net: Network, x: Array, target: Array, c: Number, iterations: int, box: Box = UNIT) -> tuple[Array, Array]:
    """Return the minimiser x_hat of c |x_hat - x|^2 + loss(x_hat, target), (..., N, D), and where it has converged.

    An example has converged where the projected gradient of |r|^2 + loss / c is at most TOLERANCE times 2 |r|, with
    r = x_hat - x; if the loss is convex there, r is off by at most that share of its length. The net works in its own
    dtype, SciPy in float64.

    Arguments:
        net: One model, or a stack.
        x: (N, D) or (..., N, D), within the box, where x_hat stays, too.
        target: Classes (..., N), with the leading axis of a stack.
        c: A number above 0, or one for each example, (..., N).
        iterations: Of L-BFGS, at most.
        box: What pixels may be.
    """
    from scipy.optimize import Bounds, minimize  # slow to import, and only this needs it

    xp = get_xp(x, target)
    shape = (*target.shape, x.shape[-1])
    origin = np.broadcast_to(to_host(x).astype(np.float64), shape)
    weight = np.broadcast_to(c if isinstance(c, (int, float)) else to_host(c), target.shape)[..., None]

    low, high = (np.broadcast_to(end, shape).ravel() for end in vars(box.map(to_host)).values())

    def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        noise = point.reshape(shape) - origin
        at = net.backward(net.forward(xp.asarray(point.reshape(shape).astype(net.dtype))), target)
        value = float((noise * noise).sum() + (to_host(at.loss) / weight[..., 0]).sum())
        return value, (2 * noise + to_host(at.dx) / weight).ravel()

    limits = {"maxiter": iterations, "gtol": 0, "ftol": 1e-10}
    point = minimize(objective, origin.ravel(), method="L-BFGS-B", jac=True, bounds=Bounds(low, high), options=limits).x
    gradient = objective(point)[1]
    left, pull = (point - gradient).clip(low, high) - point, 2 * (point.reshape(shape) - origin)
    converged = L2_NORM.value(left.reshape(shape)) <= TOLERANCE * L2_NORM.value(pull)
    return xp.asarray(point.reshape(shape).astype(net.dtype)), xp.asarray(converged)
