"""How far DataGrad's finite difference is from the derivative that it stands for, that of Eq. 3, for each step phi."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, brief
from nnlite.errors import NnliteError
from nnlite.gradcheck import expect_float64, penalty_gradient, with_gates_held
from nnlite.layers import Parameters, ReLU
from nnlite.network import Network
from nnlite.penalties import Penalty

PHI = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Convergence:
    """How far the finite difference of Eq. 4 is from the derivative that it stands for, one figure for each phi.

    An error is |difference - derivative| / |derivative| over all parameters as one vector, the derivative in float64.

    Arguments:
        phi: The steps, rising.
        float64: The error of the difference in float64.
        float32: The same in float32.
        cosine: The cosine of the angle between the difference and the derivative, in float64.
        held: The error in float64 where no ReLU changes side: at x + phi y, too, each is held as it is at x. The
            derivative is the same, so this is the curvature of the softmax alone.
        smooth: The error in float64 for the net without its ReLUs, whose derivative is another.
        flips: How many ReLUs change side between x and x + phi y.
        relus: Of how many, one for each unit and example.
        exact32: The error of the exact derivative in float32.
    """

    phi: tuple[float, ...]
    float64: FloatArray
    float32: FloatArray
    cosine: FloatArray
    held: FloatArray
    smooth: FloatArray
    flips: npt.NDArray[np.int64]
    relus: int
    exact32: float
    __repr__ = brief()

    @property
    def share(self) -> FloatArray:
        """The share of ReLUs that change side, 0 where there are none."""
        return self.flips / max(self.relus, 1)

    def slope(self, errors: FloatArray) -> FloatArray:
        """Return the slope of log error over log phi from each phi to the next, one figure less; converging means 1."""
        return np.diff(np.log(errors)) / np.diff(np.log(self.phi))


def convergence(
    net: Network,
    x: Array,
    y: Array,
    penalty: Penalty,
    phi: Sequence[float] = PHI,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Convergence:
    """Compare the finite difference with the exact derivative of the batch mean of R(J), at each of `phi`, in order.

    net: one model in float64 whose numbers float32 can hold, such as a trained one; so with x (N, D). y: (N,).
    on_progress: called with how many differences are done, and of how many, before each of them.
    NnliteError for another type, a phi outside [1e-7, 1], or a derivative that is 0 or not finite.
    """
    expect_float64(net, x)
    steps = tuple(sorted({*map(float, phi)}))
    if not steps or not all(PHI[0] <= step <= 1 for step in steps):  # a smaller one moves no white pixel in float32
        found = ", ".join(f"{step:g}" for step in steps) or "none"
        raise NnliteError(f"phi: expected steps from {PHI[0]:g} to 1, the whole range of a pixel, found {found}")
    smooth = Network(tuple(layer for layer in net.layers if not isinstance(layer, ReLU)), net.heads)
    net32, x32 = net.astype(np.float32), x.astype(np.float32)
    exact, exact_smooth = (_flat(penalty_gradient(each, x, y, penalty)) for each in (net, smooth))
    done = itertools.count()

    def compared(of: Network, at: Array, reference: FloatArray) -> FloatArray:
        """Return errors and cosines, (2, phi)."""
        found = []
        for step in steps:
            on_progress(next(done), 4 * len(steps))
            found.append(_compare(_flat(penalty_gradient(of, at, y, penalty, step)), reference))
        return np.array(found).T

    clean = net.run(x, y)
    direction = penalty.gradient(clean.dx)
    before = _sides(net, clean.inputs)
    float64, cosine = compared(net, x, exact)
    return Convergence(
        steps,
        float64=float64,
        float32=compared(net32, x32, exact)[0],
        cosine=cosine,
        held=compared(with_gates_held(net, clean.activations), x, exact)[0],
        smooth=compared(smooth, x, exact_smooth)[0],
        flips=np.array(
            [int((_sides(net, net.forward(x + step * direction).inputs) != before).sum()) for step in steps]
        ),
        relus=before.size,
        exact32=_compare(_flat(penalty_gradient(net32, x32, y, penalty)), exact)[0],
    )


def _sides(net: Network, inputs: Sequence[Array]) -> Array:
    """Return, for what each layer saw, which ReLUs are on: all units of all examples in one row."""
    seen = [(z > 0).ravel() for layer, z in zip(net.layers, inputs, strict=True) if isinstance(layer, ReLU)]
    return np.concatenate(seen) if seen else np.zeros(0, bool)


def _flat(grads: Iterable[Parameters]) -> FloatArray:
    return np.concatenate([array.ravel() for grad in grads for array in grad.values()], dtype=np.float64)


def _compare(found: FloatArray, exact: FloatArray) -> tuple[float, float]:
    """Return |found - exact| / |exact|, which has no upper bound as that of `relative_error` has, and the cosine."""
    scale = float(np.linalg.norm(exact))
    if not 0 < scale < math.inf:
        raise NnliteError(f"penalty: expected a derivative other than 0, found one of length {scale:g}; take other x")
    cosine = float(found @ exact) / scale / (float(np.linalg.norm(found)) or 1.0)
    return float(np.linalg.norm(found - exact)) / scale, cosine
