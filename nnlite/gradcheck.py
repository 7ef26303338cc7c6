"""Backprop against central differences: the check that the engine is built on, shipped with it.

Use float64 nets. A central difference is wrong where a ReLU changes side between its two points, so
`away_from_kinks` first moves the biases until every pre-activation keeps a distance from 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnlite.backend import Array
from nnlite.errors import NnliteError
from nnlite.layers import Dense, Layer, ReLU
from nnlite.losses import softmax_cross_entropy
from nnlite.network import MAIN, Labels, Network

STEP = 1e-4  # truncation grows as step^2, rounding as 1e-16/step; of 1e-5, 3e-5 and 1e-4 the best worst case
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """One array's comparison: its name, shape, the entries compared, and the relative error."""

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
    """Compare backprop with central differences for every parameter of `net` and for the input.

    net: float64, one model or a stack; x: (..., N, D) float64; y: (..., N), or the labels of each task by
    name, whose losses are then added. Arrays of more than `entries`
    entries are checked at that many, drawn by `seed`. Returns one Check for each array; NnliteError for
    a net or input that is not float64.
    """
    labels = y if isinstance(y, Mapping) else {MAIN: y}
    if net.dtype != np.float64 or x.dtype != np.float64:
        raise NnliteError(f"gradcheck: expected float64, found a net of {net.dtype} and x of {x.dtype}")
    rng = np.random.default_rng(seed)
    passes = [net.run(x, own, task=task) for task, own in labels.items()]
    compared: list[tuple[str, Callable[[Array], float], Array, Array]] = []
    for k, grad in enumerate(net.gradients([(1.0, once) for once in passes])):
        for name, analytic in grad.items():
            array = net.all_layers[k].parameters[name]
            compared.append((_name(net, k, name), partial(_mean_loss, net, k, name, x, labels), array, analytic))
    for once in passes:
        dx = once.dx if once.dx.shape == x.shape else once.dx.reshape(-1, *x.shape).sum(axis=0)
        own = {once.task: labels[once.task]}
        suffix = "" if len(passes) == 1 else f" ({once.task})"
        compared.append((f"input x{suffix}", partial(_loss, net, labels=own), x, dx))
    checks = []
    for name, function, array, analytic in compared:
        chosen = rng.choice(array.size, min(entries, array.size), replace=False)
        numeric = numerical_gradient(function, array, chosen, step)
        error = relative_error(analytic.reshape(-1)[chosen], numeric)
        checks.append(Check(name, array.shape, len(chosen), error))
    return checks


def numerical_gradient(
    function: Callable[[Array], float], array: Array, indices: Array | None = None, step: float = STEP
) -> Array:
    """Return (f(a + h) - f(a - h)) / 2h for the entries `indices` of the flattened `array`, all by default."""
    moved = array.copy()
    entries = moved.reshape(-1)
    chosen = np.arange(entries.size) if indices is None else indices
    slopes = np.empty(len(chosen))
    for slot, index in enumerate(chosen):
        centre = entries[index]
        entries[index] = centre + step
        above = function(moved)
        entries[index] = centre - step
        slopes[slot] = (above - function(moved)) / (2 * step)
        entries[index] = centre
    return slopes


def relative_error(a: Array, b: Array) -> float:
    """Return |a - b| / max(|a|, |b|) in the Euclidean norm; 0 where both are 0."""
    scale = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    return float(np.linalg.norm(a - b)) / scale if scale else 0.0


def away_from_kinks(net: Network, x: Array, margin: float = 1e-2) -> Network:
    """Return `net` with biases moved so that no pre-activation at x (..., N, D) lies within `margin` of 0.

    Each of N values rules out an open interval of shifts of width 2 margin, so one of the 2N + 1 shifts
    0, 2 margin, -2 margin, 4 margin, ... is always free.
    """
    counts = np.arange(x.shape[-2] * 2 + 1)
    shifts = 2 * margin * ((counts + 1) // 2) * np.where(counts % 2, 1, -1)
    layers: list[Layer] = []
    for layer, after in zip(net.layers, (*net.layers[1:], None), strict=True):
        if isinstance(layer, Dense) and isinstance(after, ReLU):
            z = layer.forward(x)
            tried = z + shifts.reshape(-1, *(1,) * z.ndim)
            blocked = (abs(tried) < margin).any(axis=-2)  # (shifts, ..., units)
            layer = Dense(layer.W, layer.b + shifts[blocked.argmin(axis=0)])
        layers.append(layer)
        x = layer.forward(x)
    return net.rebuild([*layers, *net.heads.values()])


def _name(net: Network, k: int, name: str) -> str:
    return f"layer {k} {name}" if k < len(net.layers) else f"head {list(net.heads)[k - len(net.layers)]} {name}"


def _loss(net: Network, x: Array, labels: Mapping[str, Array]) -> float:
    return float(sum(softmax_cross_entropy(net.logits(x, task), y)[0].sum() for task, y in labels.items()))


def _mean_loss(net: Network, k: int, name: str, x: Array, labels: Mapping[str, Array], array: Array) -> float:
    """Return the batch-mean loss, summed over a stack, with parameter `name` of layer k replaced by `array`."""
    layers = list(net.all_layers)
    layers[k] = type(layers[k])(**{**layers[k].parameters, name: array})
    return _loss(net.rebuild(layers), x, labels) / float(x.shape[-2])
