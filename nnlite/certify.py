"""Certificates: what no noise within phi can do to a net of Dense and ReLU layers.

An attack shows a point of the box |delta_i| <= phi where the net is wrong; a certificate shows that there is none.
CROWN (Zhang et al. 2018, arXiv:1811.00866) encloses each ReLU between two lines, and carries a linear function of the
logits back through them to the pixels, where its least value is known. The lines need bounds of what each ReLU sees;
a backward pass from there gives those, layer after layer. Where that does not suffice, a ReLU is split into its two
halves, on each of which it is linear, and those again: branch and bound (Bunel et al. 2020, arXiv:1909.06588).

The bounds hold for the net in its own floating-point arithmetic. A Dense layer of fan-in p computes, in any order of
summation, x W + b to within (Higham 2002, section 3.1)

    delta = gamma (|x| |W| + |b|),    gamma = m / (1 - m),    m = (p + 1) u

with u the unit roundoff of the net's dtype. The float net is therefore an exact net with noise of at most delta on
each pre-activation, and a backward pass with coefficients a subtracts |a| delta on its way. Rounding in the float64 of
the certificate has the same form, and m counts it as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from nnlite.attacks import check_batch
from nnlite.backend import Array, get_xp, to_host
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box
from nnlite.layers import Dense, Layer, ReLU
from nnlite.network import Network, unstack

EPS, TINY = 2.0**-52, 2.0**-1022  # of float64: the gap above 1, and the smallest normal number
BLOCK = 128  # ReLUs in a backward pass: its coefficients stay in the cache, and wide nets need little memory

Range: TypeAlias = tuple[Array, Array]  # all x with low <= x <= high, each (width,)


def margins(
    net: Network,
    x: Array,
    y: Array,
    phi: float,
    *,
    clip: bool = True,
    allowance: bool = True,
    splits: int = 256,
    box: Box = UNIT,
) -> Array:
    """Return lower bounds of the margins z_y - z_t of the logits over all noise within phi, (..., N, C), in float64.

    The bound at t = y is inf. A head's own net is `Network(net.chain(task))`.

    Arguments:
        net: One model, or a stack; of Dense and ReLU layers only.
        x: The images, (..., N, D); within the box where clip is set.
        y: Labels (..., N).
        phi: The largest noise on a pixel, at least 0.
        clip: Whether noise keeps pixels within the box.
        allowance: Whether the bounds hold in the arithmetic of the net's dtype, for the net and for an attack that adds
            its noise there. If not, they hold for the exact net, up to their own rounding.
        splits: How many ReLUs may be split for one image, to raise bounds that are not above 0; 0 for CROWN alone.
        box: What pixels may be; arrays are rounded to the dtype of x, as an attack rounds them.

    NnliteError for another layer, a phi below 0 or not finite, images or labels that do not fit, and a net whose sums
    may leave the range or the precision of its dtype.
    """
    check_batch(net, x, y, box if clip else None)
    if not 0 <= phi < np.inf:
        raise NnliteError(f"phi: expected a finite number of at least 0, found {phi}")
    info, labels = np.finfo(net.dtype), to_host(y)
    net.check_labels(x, labels)  # on the host their values are seen, too
    # in float64, and with the columns of W contiguous
    models = [model.map(lambda array: array.astype(np.float64, order="F")) for model in unstack(net)]
    xp, u, limits = get_xp(x), float(info.eps) / 2 * allowance, box.like(x)
    x, stack, one_hot = x.astype(np.float64), net.stacked, xp.eye(net.sizes[-1])
    limits = limits.like(x)
    bounds = xp.zeros((*(stack or x.shape[:-2]), x.shape[-2], len(one_hot))) + np.inf
    reach = phi + 3 * u * (abs(x) + phi)  # roundings of x, of the noise, and of their sum
    low, high = (limits.clip(end) if clip else end for end in (x - reach, x + reach))
    for place in np.ndindex(bounds.shape[:-1]):
        image = place[-labels.ndim :]  # the models of a stack may share their images
        model, label = models[place[0] if stack else 0], int(labels[image])
        within, others = (low[image], high[image]), xp.flatnonzero(one_hot[label] == 0)
        steps = _steps(model.layers, within, info, allowance)
        bounds[(*place, others)] = _branch(within, steps, (one_hot[label] - one_hot)[others], splits)
    return bounds


def is_proven(net: Network, x: Array, y: Array, phi: float, **settings: Any) -> Array:
    """Return whether no noise within phi makes the net err, (..., N); arguments and errors are those of `margins`.

    False says nothing: the image may withstand all noise, and the bounds be too loose to show it.
    """
    return margins(net, x, y, phi, **settings).min(axis=-1) > 0


@dataclass(frozen=True, eq=False)
class _Affine:
    """A Dense layer on a box: y is WT x + b to within delta, with WT (out, in)."""

    WT: Array
    b: Array
    delta: Array

    def back(self, a: Array) -> tuple[Array, Array]:
        """Return a' (R, in) and c (R,) with a y >= a' x + c for each row of a (R, out)."""
        return a @ self.WT, a @ self.b - abs(a) @ self.delta


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """ReLUs on a box: lower x <= y <= upper x + offset, each (width,), or (R, width) with lines for each row of a."""

    lower: Array
    upper: Array
    offset: Array

    def back(self, a: Array) -> tuple[Array, Array]:
        """Return a' and c with a y >= a' x + c for each row of a: the lower line where a > 0, the upper elsewhere."""
        below = get_xp(a).minimum(a, 0)
        c = (below * self.offset).sum(axis=-1)
        below *= self.upper - self.lower
        below += a * self.lower
        return below, c

    def split(self, rows: Array, chosen: Array) -> "_Relaxed":
        """Return the lines of `rows` twice: with the ReLUs `chosen` (len(rows), width) on, and with them off."""
        xp, fixed = get_xp(chosen), ((self.lower, 1.0), (self.upper, 1.0), (self.offset, 0.0))
        pairs = ((line[rows] if line.ndim > 1 else line, on) for line, on in fixed)
        return _Relaxed(*(xp.concatenate([xp.where(chosen, to, line) for to in (on, 0.0)]) for line, on in pairs))


def _steps(chain: Sequence[Layer], box: Range, info: "np.finfo[Any]", allowance: bool) -> list[_Affine | _Relaxed]:
    """Return what each layer does to the box of one image; ReLUs that are off on all of it are left out."""
    xp, steps, (low, high) = get_xp(*box), cast(list[_Affine | _Relaxed], []), box
    kept: Array | slice = slice(None)  # what of low and high, which bound all inputs of a layer, is not left out
    for k, (layer, following) in enumerate(zip(chain, (*chain[1:], None), strict=True)):
        if type(layer) not in (Dense, ReLU):
            raise NnliteError(f"layer {k} ({type(layer).__name__}): has no relaxation; use Dense and ReLU layers alone")
        if isinstance(layer, Dense):
            (p, q), WT, b = layer.W.shape, layer.W.swapaxes(0, 1), layer.b
            magnitude = abs(WT)
            most = magnitude @ xp.maximum(abs(low), abs(high)) + abs(b)
            if not (2 * float(to_host(most.max())) < float(info.max) and (p + 1) * info.eps < 1):  # nor for a NaN
                raise NnliteError(f"layer {k}: sums may leave the range or precision of {info.dtype}; use float32")
            m = (p + 1) * float(info.eps) / 2 + (p + q + 8 * len(chain)) * EPS  # of the net, and twice our own
            delta = allowance * (m / (1 - m) * most + 2 * (p + 1) * float(info.tiny))
            centre, radius = WT @ (low / 2 + high / 2) + b, magnitude @ (high / 2 - low / 2) + delta
            low, high, WT, kept = centre - radius, centre + radius, WT[:, kept], slice(None)
            if isinstance(following, ReLU):
                unstable = xp.flatnonzero((low < 0) & (high > 0))
                for start in range(0, unstable.size if steps else 0, BLOCK):
                    rows = unstable[start : start + BLOCK]
                    least, _ = _least(box, steps, xp.concatenate([WT[rows], -WT[rows]]))
                    low[rows] = xp.maximum(low[rows], b[rows] - delta[rows] + least[: rows.size])
                    high[rows] = xp.minimum(high[rows], b[rows] + delta[rows] - least[rows.size :])
                kept = xp.flatnonzero(high > 0)
            steps.append(_Affine(WT[kept], b[kept], delta[kept]))
        else:
            up, down = high.clip(0, None), low.clip(None, 0)
            upper = up / xp.maximum(up - down, TINY)
            lines = ((high > -low).astype(np.float64), upper, -upper * down)
            steps.append(_Relaxed(*(line[kept] for line in lines)))
            low, high = low.clip(0, None), up
    return steps


def _branch(box: Range, steps: Sequence[_Affine | _Relaxed], a: Array, splits: int) -> Array:
    """Return lower bounds as `_least` does, those that are not above 0 raised by branch and bound.

    At the x where a bound is reached, a ReLU loses what its upper line lies above it. The one that loses most is split:
    where it is on, and where it is off, it is linear, and the lesser of the two bounds holds. A split of one on its
    lower line would gain nothing, as that is the line of one of the halves.
    """
    xp, (bounds, passed) = get_xp(a), _least(box, steps, a)
    if not 0 < xp.flatnonzero(bounds <= 0).size <= splits:
        return bounds
    x, losses = xp.where(passed[0] > 0, *box), [xp.zeros_like(a[:, :1])]  # the largest where no ReLU loses
    for step, after in zip(steps, passed[1:], strict=True):
        if isinstance(step, _Affine):
            x = x @ step.WT.swapaxes(0, 1) + step.b
        else:
            z, x = x, x.clip(0, None)
            losses.append(xp.minimum(after, 0) * (x - step.upper * z - step.offset))
    unit = xp.concatenate(losses, axis=-1).argmax(axis=-1)
    rows = xp.flatnonzero((bounds <= 0) & (unit > 0))
    halves, first = cast(list[_Affine | _Relaxed], []), 1
    for step in steps:
        if isinstance(step, _Relaxed):
            units = xp.arange(first, first + step.upper.shape[-1])
            step, first = step.split(rows, unit[rows, None] == units), first + units.size
        halves.append(step)
    found = _branch(box, halves, xp.concatenate([a[rows], a[rows]]), splits - rows.size)
    bounds[rows] = xp.maximum(bounds[rows], xp.minimum(found[: rows.size], found[rows.size :]))
    return bounds


def _least(box: Range, steps: Sequence[_Affine | _Relaxed], a: Array) -> tuple[Array, list[Array]]:
    """Return a lower bound of a y for each row of a (R, out), where y is what `steps` make of an x in the box.

    And the coefficients of x, and of what each step makes of it.
    """
    total, passed, (low, high) = cast(Array | float, 0.0), [a], box
    for step in reversed(steps):
        a, c = step.back(a)
        total = total + c
        passed.insert(0, a)
    return total + a @ (low / 2 + high / 2) - abs(a) @ (high / 2 - low / 2), passed
