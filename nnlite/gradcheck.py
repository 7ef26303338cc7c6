"""Backprop against central differences: the check that the engine is built on, shipped with it.

Use float64 nets. A central difference is wrong where a ReLU changes side between its two points, so
`away_from_kinks` first moves the biases until every pre-activation keeps a distance from 0. A trained net is not to be
moved: `check_penalty`, for DataGrad's exact update, holds its ReLUs on their side instead.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from nnlite.backend import Array
from nnlite.datagrad import Term, weighted_passes
from nnlite.errors import NnliteError
from nnlite.layers import Dense, Gradients, Layer, Parameters, is_piecewise_linear, with_parameters
from nnlite.losses import softmax_cross_entropy
from nnlite.network import MAIN, Activations, Labels, Network
from nnlite.penalties import Penalty

STEP = 1e-4  # truncation grows as step^4, rounding as 1e-16/step; and no ReLU may change side
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """The comparison of one array: its name, its shape, how many entries were compared, and the relative error."""

    name: str
    shape: tuple[int, ...]
    entries: int
    error: float

    @property
    def passed(self) -> bool:
        """Whether the relative error is below TOLERANCE; NaN fails."""
        return self.error < TOLERANCE


def check_network(
    net: Network, x: Array, y: Labels, *, entries: int = 100, seed: int = 0, step: float = STEP
) -> list[Check]:
    """Compare backprop with central differences for each parameter of `net` and for the input, a Check for each array.

    The error is relative to no less than 1e-5 of the loss: below that, the rounding of the loss hides the slope.
    NnliteError for a net or an input that is not float64.

    Arguments:
        net: One model or a stack, in float64.
        x: (..., N, D), in float64.
        y: Labels (..., N), or those of each task by name, whose losses are then added.
        entries: How many entries of a larger array are compared.
        seed: Draws these entries.
        step: Of the differences.
    """
    labels = y if isinstance(y, Mapping) else {MAIN: y}
    expect_float64(net, x)
    rng = np.random.default_rng(seed)
    passes = [net.run(x, own, task=task) for task, own in labels.items()]

    def check(name: str, function: Callable[[Array], float], array: Array, analytic: Array) -> Check:
        chosen = rng.choice(array.size, min(entries, array.size), replace=False)
        numeric = numerical_gradient(function, array, chosen, step)
        error = relative_error(analytic.reshape(-1)[chosen], numeric, 1e-5 * function(array))
        return Check(name, array.shape, len(chosen), error)

    def mean_loss(changed: Network) -> float:
        return _loss(changed, x, labels) / float(x.shape[-2])

    checks = [check(*one) for one in _by_parameter(net, mean_loss, net.gradients([(1.0, once) for once in passes]))]
    for once in passes:
        dx = once.dx.reshape(-1, *x.shape).sum(axis=0)  # over the models of a stack that share x
        suffix = "" if len(passes) == 1 else f" ({once.task})"
        checks.append(check(f"input x{suffix}", partial(_loss, net, labels={once.task: labels[once.task]}), x, dx))
    return checks


def check_penalty(
    net: Network, x: Array, y: Array, penalty: Penalty, *, directions: int = 3, seed: int = 0, step: float = 1e-3
) -> list[Check]:
    """Compare a penalty's exact update, the weight gradient of the batch mean of R(J), with central differences.

    The derivative is that of the smooth piece that the net is on, and the differences stay on it: no ReLU changes side
    (`with_gates_held`), and a piecewise linear penalty goes on as y . J, with y = dR/dJ, where an entry of J changes
    sign or another becomes the largest. (L2_NORM has a tip at J = 0 that cannot be avoided; a net of one or two inputs
    may meet it.) Each array moves along random directions, since most entries of a trained net's update are too small
    to be checked one at a time. The error is relative to no less than 1e-4 R: below that, the rounding of R hides the
    slope.
    NnliteError for a net or an input that is not float64.

    Arguments:
        net: One model or a stack, in float64.
        x: (..., N, D), in float64.
        y: Labels (..., N).
        penalty: R.
        directions: How many directions of length 1 for each array.
        seed: Draws them.
        step: Of the differences.
    """
    expect_float64(net, x)
    rng = np.random.default_rng(seed)
    clean = net.run(x, y)
    still = with_gates_held(net, clean.activations)
    held = penalty.gradient(clean.dx)
    least = 1e-4 * float(penalty.value(clean.dx).mean(axis=-1).sum())

    def mean_penalty(changed: Network) -> float:
        dx = changed.run(x, y).dx
        values = penalty.value(dx)
        if penalty.piecewise_linear:
            values = np.where((penalty.gradient(dx) == held).all(axis=-1), values, (held * dx).sum(axis=-1))
        return float(values.mean(axis=-1).sum())

    def check(name: str, function: Callable[[Array], float], array: Array, exact: Array) -> Check:
        ways = rng.standard_normal((directions, exact.size))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)

        def along(amounts: Array) -> float:
            return function(array + (amounts @ ways).reshape(array.shape))

        numeric = numerical_gradient(along, np.zeros(directions), step=step)
        return Check(name, exact.shape, directions, relative_error(ways @ exact.reshape(-1), numeric, least))

    return [check(*one) for one in _by_parameter(still, mean_penalty, penalty_gradient(net, x, y, penalty))]


@dataclass(frozen=True, eq=False)
class Held:
    """A piecewise linear activation that stays on the piece that it is on at `seen`, whatever it is given."""

    layer: Any
    seen: Array
    parameters: ClassVar[Parameters] = {}

    def forward(self, x: Array) -> Array:
        """Return the value at x of the linear piece at `seen`."""
        return self.layer.forward(self.seen) + self.layer.tangent(self.seen, x - self.seen)

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dx at `seen`."""
        return self.layer.backward(self.seen, dy)


def with_gates_held(net: Network, at: Activations) -> Network:
    """Return `net`, for the rows of one forward run, with each piecewise linear activation held as it is there."""

    def held(layer: Layer, seen: Array) -> Layer:
        return Held(layer, seen) if is_piecewise_linear(layer) and not layer.parameters else layer

    return net.rebuild([*map(held, net.layers, at.inputs), *net.heads.values()])


def numerical_gradient(
    function: Callable[[Array], float], array: Array, indices: Array | None = None, step: float = STEP
) -> Array:
    """Return df/da by central differences for the entries `indices` of the flattened `array`, all by default.

    Two differences, over 2h and 4h with h = `step`, have errors in the ratio 1 to 4, which cancel (Richardson's
    extrapolation). A loss may curve a thousand times as much as it rises; then one of them alone has not six digits.
    """
    moved = array.copy()
    entries = moved.reshape(-1)
    chosen = range(entries.size) if indices is None else indices

    def rise(index: int, width: float) -> float:
        centre = entries[index]
        entries[index] = centre + width
        above = function(moved)
        entries[index] = centre - width
        below = function(moved)
        entries[index] = centre
        return above - below

    return np.array([(8 * rise(index, step) - rise(index, 2 * step)) / (12 * step) for index in chosen])


def relative_error(a: Array, b: Array, least: float = 0.0) -> float:
    """Return |a - b| / max(|a|, |b|, least) in the Euclidean norm; 0 where all are 0."""
    scale = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)), least)
    return float(np.linalg.norm(a - b)) / scale if scale else 0.0


def away_from_kinks(net: Network, x: Array, margin: float = 1e-2) -> Network:
    """Return `net` with biases moved so that no pre-activation at x (..., N, D) lies within `margin` of 0.

    Each of the N values at a unit rules out an open interval of shifts, 2 margin wide, so one of the 2N + 1 shifts
    0, 2 margin, -2 margin, 4 margin, ... is always free.
    """
    counts = np.arange(x.shape[-2] * 2 + 1)
    shifts = 2 * margin * ((counts + 1) // 2) * np.where(counts % 2, 1, -1)
    layers: list[Layer] = []
    for layer, after in zip(net.layers, (*net.layers[1:], None), strict=True):
        if isinstance(layer, Dense) and after and not after.parameters:
            z = layer.forward(x)
            tried = z + shifts.reshape(-1, *(1,) * z.ndim)
            blocked = (abs(tried) < margin).any(axis=-2)  # (shifts, ..., units)
            layer = with_parameters(layer, {"b": layer.b + shifts[blocked.argmin(axis=0)]})
        layers.append(layer)
        x = layer.forward(x)
    return net.rebuild([*layers, *net.heads.values()])


def penalty_gradient(
    net: Network, x: Array, y: Array, penalty: Penalty, phi: float | None = None
) -> Iterator[Parameters]:
    """Return the weight gradient of the batch mean of R(J): by a finite step phi, or exactly without one (Eq. 3)."""
    return net.gradients(weighted_passes(net, x, y, [Term(penalty, 1.0, phi)], lam0=0.0))


def expect_float64(net: Network, x: Array) -> None:
    """Raise NnliteError unless both are in float64."""
    if net.dtype != np.float64 or x.dtype != np.float64:
        raise NnliteError(f"gradcheck: expected float64, found a net of {net.dtype} and x of {x.dtype}")


def _loss(net: Network, x: Array, labels: Mapping[str, Array]) -> float:
    return float(sum(softmax_cross_entropy(net.logits(x, task), y)[0].sum() for task, y in labels.items()))


def _by_parameter(
    net: Network, value: Callable[[Network], float], gradients: Gradients
) -> Iterator[tuple[str, Callable[[Array], float], Array, Array]]:
    """Yield for each parameter its name, the value of the net as a function of it, itself, and its gradient."""
    layers = net.all_layers

    def replaced(k: int, name: str, array: Array) -> float:
        changed = with_parameters(layers[k], {name: array})
        return value(net.rebuild([*layers[:k], changed, *layers[k + 1 :]]))

    for k, own in enumerate(gradients):
        for name, gradient in own.items():
            yield f"{net.layer_names[k]} {name}", partial(replaced, k, name), layers[k].parameters[name], gradient
