"""Penalties R and their gradients dR/da.

DataGrad applies R to each example's own input gradient; dR/dJ there is the adversarial direction y of Eq. 3. The
classical penalties apply the same R to the weights.

L1, L2_NORM and LINF are the norms dual to the L-infinity, L2 and L1 balls: R(J) is how far the linearised loss can rise
within a ball of radius 1, and dR/dJ is the step that takes it there (Lyu et al. 2015).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnlite.backend import Array, Number, get_xp, per_model, to_host
from nnlite.errors import NnliteError
from nnlite.layers import Gradients, Layer, is_piecewise_linear
from nnlite.network import Network, Pass


@dataclass(frozen=True)
class Penalty:
    """R of the paper, and y = dR/da of Eq. 2, by name.

    Arguments:
        name: For people.
        value: (..., N, D) -> (..., N), one number for each row.
        gradient: dR/da, of the shape of a.
        piecewise_linear: Whether the gradient is constant but for kinks, so that R(a) = a . dR/da between them.
        ball: The norm in which no gradient is longer than 1, "linf", "l2" or "l1", so that a step phi along it stays
            within a ball of radius phi; None where its size follows a.
    """

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    piecewise_linear: bool = False
    ball: str | None = None


def _sum_of_sizes(a: Array) -> Array:
    return abs(a).sum(axis=-1)


def _sign(a: Array) -> Array:
    return get_xp(a).sign(a)


def _length(a: Array) -> Array:
    """Return the Euclidean length of each row, scaled first, since the squares of tiny gradients would be 0."""
    xp = get_xp(a)
    largest = abs(a).max(axis=-1, keepdims=True)
    scale = xp.where(largest > 0, largest, 1)
    scaled = a / scale
    return scale[..., 0] * xp.sqrt((scaled * scaled).sum(axis=-1))


def _unit(a: Array) -> Array:
    length = _length(a)[..., None]
    return a / get_xp(a).where(length > 0, length, 1)


def _sign_of_largest(a: Array) -> Array:
    xp = get_xp(a)
    largest = abs(a).argmax(axis=-1)[..., None] == xp.arange(a.shape[-1])
    return xp.where(largest, xp.sign(a), 0)


def _sum_of_squares(a: Array) -> Array:
    return (a * a).sum(axis=-1)


def _twice(a: Array) -> Array:
    return 2 * a


def _largest(a: Array) -> Array:
    return abs(a).max(axis=-1)


#: R1 = sum |a_s|, dR1/da = sign(a), with sign(0) = 0. Its direction is that of the fast gradient sign method.
L1 = Penalty("l1", _sum_of_sizes, _sign, piecewise_linear=True, ball="linf")

#: R2 = sum a_s^2, dR2/da = 2 a, as in step 2 of the paper's section 2.1.
L2 = Penalty("l2", _sum_of_squares, _twice)

#: R = |a|_2, dR/da = a / |a|_2, and 0 where a is 0.
L2_NORM = Penalty("l2norm", _length, _unit, ball="l2")

#: R = max |a_s|, dR/da = sign(a_s) at the first of the largest entries, and 0 elsewhere.
LINF = Penalty("linf", _largest, _sign_of_largest, piecewise_linear=True, ball="l1")

PENALTIES = {penalty.name: penalty for penalty in (L1, L2, L2_NORM, LINF)}


def masked(penalty: Penalty, mask: Array) -> Penalty:
    """Return the penalty R(mask * a): features of weight 0 are free, and the direction leaves them as they are.

    mask is (D,), finite and at least 0, on a GPU a CuPy array; its weights also scale the step, feature by feature.
    NnliteError for another mask, and where the features are not D.
    """
    host = to_host(mask)
    if host.ndim != 1 or not ((host >= 0) & (host < np.inf)).all():
        found = f"shape {host.shape}" if host.ndim != 1 else f"weights from {host.min()} to {host.max()}"
        raise NnliteError(f"mask: expected one finite weight of at least 0 for each feature, found {found}")
    value, gradient = (partial(function, penalty, mask) for function in (_masked_value, _masked_gradient))
    ball = penalty.ball if host.max() <= 1 else None
    return Penalty(f"masked {penalty.name}", value, gradient, penalty.piecewise_linear, ball)


def _masked_value(penalty: Penalty, mask: Array, a: Array) -> Array:
    return penalty.value(_weights(mask, a) * a)


def _masked_gradient(penalty: Penalty, mask: Array, a: Array) -> Array:
    weights = _weights(mask, a)
    return weights * penalty.gradient(weights * a)


def _weights(mask: Array, a: Array) -> Array:
    if a.shape[-1] != len(mask):
        raise NnliteError(f"mask: expected {a.shape[-1]} weights, one for each feature, found {len(mask)}")
    return mask.astype(a.dtype)


def weight_penalty(penalty: Penalty, net: Network, clean: Pass, lam: Number) -> Gradients:
    """Yield the gradient of lam R(W) / N for each of `net.all_layers`, {"W": (..., in, out)}; {} for one without W.

    The paper's lambda stands beside the sum of the losses in a batch, so beside their mean it is lam / N: with lambda
    itself there, the paper's L1 row at 0.1 would be dead.

    Arguments:
        penalty: R.
        net: One model, or a stack.
        clean: The pass over the N examples.
        lam: lambda, or one for each model, (S,).
    """
    for layer in net.all_layers:
        W = layer.parameters.get("W")
        if W is None:
            yield {}
            continue
        slope = penalty.gradient(W)
        slope *= per_model(lam / clean.loss.shape[-1], W)  # in place: it is our own, and as large as the layer
        yield {"W": slope}


def contractive_penalty(net: Network, clean: Pass, lam: Number) -> Gradients:
    """Yield the gradient of lam sum_j |dh_j/dh_(j-1)|^2 for each of `net.all_layers` (Gu and Rigazio 2014).

    h_j are the outputs of the hidden layers, and the logits. The Frobenius norm of each layer's Jacobian is squared for
    each example, and averaged. A ReLU's derivative is 1 or 0, so the penalty is lam |W_i|^2 for each active unit i: in
    the mean, weight decay by the share of examples that activate it. The same holds for any piecewise linear
    activation; NnliteError for another one.

    The logits of all tasks are the last layer's output, whose Jacobian is the heads' weights side by side: each head
    pays lam |W|^2, as the trunk below them pays once.

    Arguments:
        net: One model, or a stack.
        clean: The pass that is averaged over.
        lam: lambda, or one for each model, (S,).
    """
    slopes = [_mean_squared_slope(after, z) for after, z in zip(net.layers[1:], clean.inputs[1:], strict=True)]
    weights = [*slopes, *[1.0] * (1 + len(net.heads))]
    for layer, slope in zip(net.all_layers, weights, strict=True):
        W = layer.parameters.get("W")
        yield {} if W is None else {"W": W * (per_model(2 * lam, W) * slope)}


def _mean_squared_slope(layer: Layer, z: Array) -> Number:
    """Return the batch mean (..., 1, width) of an activation's squared derivative at z (..., N, width); 1 for none."""
    if layer.parameters:
        return 1.0
    if not is_piecewise_linear(layer):
        raise NnliteError(f"gu-rigazio: expected piecewise linear activations, such as ReLU, found {layer!r}")
    slope = layer.backward(z, get_xp(z).ones_like(z))
    return (slope * slope).mean(axis=-2)[..., None, :]
