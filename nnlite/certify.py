"""Certificates: what no noise within phi can do to a net of Dense and ReLU layers.

An attack shows a point of the box |delta_i| <= phi where the net is wrong; a certificate shows that there is none.
CROWN (Zhang et al. 2018, arXiv:1811.00866) encloses each ReLU between two lines, and carries a linear function of the
logits back through them to the pixels, where its least value is known. The lines need bounds of what each ReLU sees;
a backward pass from there gives those, layer after layer.

The bounds hold for the net in its own floating-point arithmetic. A Dense layer of fan-in p computes, in any order of
summation, x W + b to within (Higham 2002, section 3.1)

    delta = gamma (|x| |W| + |b|),    gamma = m / (1 - m),    m = (p + 1) u

with u the unit roundoff of the net's dtype. The float net is therefore an exact net with noise of at most delta on
each pre-activation, and a backward pass with coefficients a subtracts |a| delta on its way. Rounding in the float64 of
the certificate has the same form, and m counts it as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from nnlite.backend import Array, get_xp, to_host
from nnlite.errors import NnliteError
from nnlite.layers import Dense, Layer, ReLU
from nnlite.network import MAIN, Network, unstack

BLOCK = 1 << 21  # bytes of coefficients in a backward pass: they stay in the cache, and wide nets need little memory
EPS, TINY = 2.0**-52, 2.0**-1022  # of float64: the gap above 1, and the smallest normal number


def margins(
    net: Network, x: Array, y: Array, phi: float, *, task: str = MAIN, clip: bool = True, allowance: bool = True
) -> Array:
    """Return lower bounds of the margins z_y - z_t of the logits over all noise within phi, (..., N, C), in float64.

    The bound at t = y is inf.

    Arguments:
        net: One model, or a stack; of Dense and ReLU layers only.
        x: The images, (..., N, D); within [0, 1] where clip is set.
        y: Labels (..., N).
        phi: The largest noise on a pixel, at least 0.
        task: MAIN, or the name of a head.
        clip: Whether noise keeps pixels within [0, 1].
        allowance: Whether the bounds hold in the arithmetic of the net's dtype, for the net and for an attack that adds
            its noise there. If not, they hold for the exact net, up to their own rounding.

    NnliteError for another layer, a phi below 0 or not finite, images or labels that do not fit, and a net whose sums
    may leave the range or the precision of its dtype.
    """
    _check(net, x, y, phi, task, clip)
    info, labels = np.finfo(net.dtype) if allowance else None, to_host(y)
    # in float64, and with the columns of W contiguous
    models = [model.map(lambda array: array.astype(np.float64, order="F")).chain(task) for model in unstack(net)]
    x, u = x.astype(np.float64), float(info.eps) / 2 if info else 0.0
    reach = phi + 3 * u * (abs(x) + phi)  # roundings of x, of the noise, and of their sum
    low, high = (end.clip(0, 1) if clip else end for end in (x - reach, x + reach))
    stack = cast(Dense, net.layers[-1]).W.shape[:-2]
    bounds = get_xp(x).zeros((*(stack or x.shape[:-2]), x.shape[-2], cast(Dense, models[0][-1]).b.size))
    for place in np.ndindex(bounds.shape[:-1]):
        image = place[-labels.ndim :]  # the models of a stack may share their images
        label = int(labels[image])
        bounds[place] = _margins(models[place[0] if stack else 0], _Box(low[image], high[image]), label, info)
        bounds[(*place, label)] = np.inf
    return bounds


def is_proven(
    net: Network, x: Array, y: Array, phi: float, *, task: str = MAIN, clip: bool = True, allowance: bool = True
) -> Array:
    """Return whether no noise within phi makes the net err, (..., N); see `margins`.

    False says nothing: the image may withstand all noise, and the bounds be too loose to show it.
    """
    return margins(net, x, y, phi, task=task, clip=clip, allowance=allowance).min(axis=-1) > 0


@dataclass(frozen=True, eq=False)
class _Box:
    """All x with low <= x <= high, each (width,)."""

    low: Array
    high: Array

    @property
    def centre(self) -> Array:
        return self.low / 2 + self.high / 2

    @property
    def radius(self) -> Array:
        return self.high / 2 - self.low / 2


@dataclass(frozen=True, eq=False)
class _Affine:
    """A Dense layer on a box: y is WT x + b to within delta, with WT (out, in)."""

    WT: Array
    b: Array
    delta: Array

    def __getitem__(self, rows: Array) -> "_Affine":
        return _Affine(self.WT[rows], self.b[rows], self.delta[rows])

    def back(self, a: Array) -> tuple[Array, Array]:
        """Return a' (R, in) and c (R,) with a y >= a' x + c for each row of a (R, out)."""
        return a @ self.WT, a @ self.b - abs(a) @ self.delta


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """ReLUs on a box: lower x <= y <= upper x + offset, each (width,)."""

    lower: Array
    upper: Array
    offset: Array

    def back(self, a: Array) -> tuple[Array, Array]:
        """Return a' and c with a y >= a' x + c for each row of a: the lower line where a > 0, the upper elsewhere."""
        below = get_xp(a).minimum(a, 0)
        c = below @ self.offset
        below *= self.upper - self.lower
        below += a * self.lower
        return below, c


def _margins(chain: Sequence[Layer], box: _Box, label: int, info: "np.finfo[np.floating] | None") -> Array:
    """Return lower bounds of z_label - z_t over the box of one image, (C,)."""
    xp, seen, steps = get_xp(box.low), box, cast(list[_Affine | _Relaxed], [])
    kept: Array | slice = slice(None)  # which inputs the box that is seen has; the others are 0
    for layer, following in zip(chain, (*chain[1:], None), strict=True):
        if isinstance(layer, Dense):
            WT, gamma, tiny = layer.W.swapaxes(0, 1)[:, kept], *_rounding(layer, len(chain), info)
            magnitude, farthest = abs(WT), xp.maximum(abs(seen.low), abs(seen.high))
            step = _Affine(WT, layer.b, gamma * (magnitude @ farthest + abs(layer.b)) + tiny)
            centre, radius = WT @ seen.centre + step.b, magnitude @ seen.radius + step.delta
            seen, kept = _Box(centre - radius, centre + radius), slice(None)
            if isinstance(following, ReLU):
                if steps:
                    _tighten(seen, step, steps, box)
                kept = on = xp.flatnonzero(seen.high > 0)  # a ReLU that is off on the whole box is left out
                step, seen = step[on], _Box(seen.low[on], seen.high[on])
            steps.append(step)
        else:
            up, down = seen.high.clip(0, None), seen.low.clip(None, 0)
            upper = up / xp.maximum(up - down, TINY)
            steps.append(_Relaxed((seen.high > -seen.low).astype(np.float64), upper, -upper * down))
            seen = _Box(seen.low.clip(0, None), up)
    one_hot = xp.eye(seen.low.size)
    return _least(box, steps, one_hot[label] - one_hot)


def _tighten(seen: _Box, step: _Affine, steps: Sequence[_Affine | _Relaxed], box: _Box) -> None:
    """Narrow what `step` gives after `steps`, in place, for the ReLUs that may switch: by a pass back to the box."""
    xp = get_xp(box.low)
    unstable = xp.flatnonzero((seen.low < 0) & (seen.high > 0))
    count = max(1, BLOCK // (16 * max(box.low.size, *step.WT.shape)))
    for start in range(0, unstable.size, count):
        index = unstable[start : start + count]
        some = step[index]
        least = _least(box, steps, xp.concatenate([some.WT, -some.WT]))
        seen.low[index] = xp.maximum(seen.low[index], some.b + least[: index.size] - some.delta)
        seen.high[index] = xp.minimum(seen.high[index], some.b - least[index.size :] + some.delta)


def _least(box: _Box, steps: Sequence[_Affine | _Relaxed], a: Array) -> Array:
    """Return a lower bound of a y for each row of a (R, out), where y is what `steps` make of an x in the box."""
    total: Array | float = 0.0
    for step in reversed(steps):
        a, c = step.back(a)
        total = total + c
    return total + a @ box.centre - abs(a) @ box.radius


def _rounding(layer: Dense, depth: int, info: "np.finfo[np.floating] | None") -> tuple[float, float]:
    """Return gamma, and an absolute term for underflow, of a layer in a chain of `depth`; 0 for an exact net."""
    p, q = layer.W.shape
    if info is None:
        return 0.0, 0.0
    m = (p + 1) * float(info.eps) / 2 + (p + q + 8 * depth) * EPS  # of the net, and twice our own
    return m / (1 - m), 2 * (p + 1) * float(info.tiny)


def _check(net: Network, x: Array, y: Array, phi: float, task: str, clip: bool) -> None:
    """Raise NnliteError for what `margins` refuses."""
    if not 0 <= phi < np.inf:
        raise NnliteError(f"phi: expected a finite number of at least 0, found {phi}")
    stack = cast(Dense, net.layers[-1]).W.shape[:-2]
    if x.ndim < 2 or x.shape[-1] != net.sizes[0] or (stack and x.shape[:-2] not in ((), stack)):
        raise NnliteError(f"x: expected images (N, {net.sizes[0]}), or stacked as the net is, found {x.shape}")
    if clip and x.size and not 0 <= float(to_host(x.min())) <= float(to_host(x.max())) <= 1:
        raise NnliteError("x: expected pixels within [0, 1]; scale them, or let noise go beyond with clip=False")
    chain, labels = net.chain(task), to_host(y)
    classes, info = cast(Dense, chain[-1]).b.shape[-1], np.finfo(net.dtype)
    if labels.shape != x.shape[:-1] or labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < classes)).all():
        found = f"{labels.dtype} {labels.shape}"
        raise NnliteError(f"y: expected integers {x.shape[:-1]} from 0 to {classes - 1}, found {found}")
    largest = float(to_host(abs(x).max())) + phi if x.size else phi
    for name, layer in zip(net.layer_names, chain, strict=False):
        if (kind := type(layer)) not in (Dense, ReLU):
            raise NnliteError(f"{name} ({kind.__name__}): has no relaxation; certify nets of Dense and ReLU layers")
        if isinstance(layer, Dense):
            W, p = layer.W.astype(np.float64), layer.W.shape[-2]
            largest = float(to_host((abs(W).sum(axis=-2) * largest + abs(layer.b)).max()))
            if not (2 * largest < float(info.max) and (p + 1) * info.eps < 1):  # a NaN is not below either
                what = f"sums of {p} products may leave the range or the precision of {net.dtype}"
                raise NnliteError(f"{name}: {what}; certify a net that is finite and in float32")
