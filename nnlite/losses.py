"""Losses on logits, one for each example: softmax cross-entropy, the KL divergences of VAT and TRADES, margins.

A loss is a value: called, it returns its value and its derivative together, (loss, dlogits); and it has its second
derivative, which the exact gradient of DataGrad needs. The derivatives are those of the example's own loss, not of a
batch mean. For all but the margins dlogits is softmax(logits) minus something that does not depend on the logits, so
they share one second derivative. A margin is linear in the logits but for kinks, and attacks alone climb it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nnlite.backend import Array, get_xp
from nnlite.inputs import check_labels


@dataclass(frozen=True)
class Loss:
    """A loss by name, called as loss(logits, y) -> (loss (..., N), dlogits (..., N, C)) for logits (..., N, C).

    Arguments:
        name: For people.
        function: What is called; y are integer labels (N,) or (..., N).
        tangent: (logits, y, change) -> how dlogits moves when the logits move along `change`, (..., N, C): the second
            derivative times `change`. None where it is not known; such a loss has no exact gradient.
        own_target: Whether y is the net's own clean output, logits (..., N, C), and not labels.
        of_target: The same loss as a function of that target, called as of_target(target, logits), where the gradient
            goes through the clean output as well. None where the target is held fixed.
        check: (y, shape, classes) -> None; raises NnliteError for a y that does not fit images of this shape, (..., N),
            and so many classes. None for a loss of any y.
    """

    name: str
    function: Callable[[Array, Array], tuple[Array, Array]]
    tangent: Callable[[Array, Array, Array], Array] | None = None
    own_target: bool = False
    of_target: "Loss | None" = None
    check: Callable[[Array, tuple[int, ...], int], None] | None = None

    def __call__(self, logits: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss and its derivative at the logits; NnliteError where `check` refuses y."""
        if self.check is not None:
            self.check(y, logits.shape[:-1], logits.shape[-1])
        return self.function(logits, y)


def softmax_tangent(logits: Array, y: Array, change: Array) -> Array:
    """Return how dlogits moves when the logits (..., N, C) move along `change`: q (change - q . change).

    This is the second derivative of each loss times `change`; y does not matter. As in the first derivative, the
    entry of the largest logit is minus the sum of the others, and changes are taken relative to it.
    """
    xp = get_xp(logits, change)
    largest, _, exp, rest = _beside_largest(logits)
    q = exp / (1 + rest)
    relative = change - xp.where(largest, change, 0).sum(axis=-1, keepdims=True)
    return _summing_to_0(q * (relative - (q * relative).sum(axis=-1, keepdims=True)), largest)


def runner_up(logits: Array, y: Array) -> Array:
    """Return the most likely wrong class (..., N), given logits (..., N, C) and labels y (N,) or (..., N)."""
    xp = get_xp(logits, y)
    return xp.where(y[..., None] == xp.arange(logits.shape[-1]), -np.inf, logits).argmax(axis=-1)


def _softmax_cross_entropy(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return loss = -log softmax(logits)[y], L of the paper, and dlogits = softmax(logits) - onehot(y).

    Two cancellations are avoided. The true class's entry of dlogits is minus the sum of the others: in float32 p - 1
    becomes exactly 0 once p rounds to 1, while the other entries stay correct; the input gradient then points the
    wrong way, and an attack looks weaker than it is (docs/float32.md). And the loss is log1p of what the largest logit
    leaves to the others, so a confident loss keeps its digits.
    """
    xp = get_xp(logits, y)
    true = y[..., None] == xp.arange(logits.shape[-1])
    _, shifted, exp, rest = _beside_largest(logits)
    loss = xp.log1p(rest[..., 0]) - xp.where(true, shifted, 0).sum(axis=-1)
    return loss, _summing_to_0(exp / (1 + rest), true)


def _kl_divergence(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return loss = KL(p || q) and dlogits = q - p, with q = softmax(logits), and p = softmax(target) held fixed.

    The loss of virtual adversarial training (Miyato et al. 2015), where the target is the net's own clean logits: there
    both are exactly 0. No digits are lost where both are sure, as above.
    """
    xp = get_xp(logits, target)
    likeliest, log_p = _log_softmax(target)
    _, log_q = _log_softmax(logits)
    p = xp.exp(log_p)
    return (p * (log_p - log_q)).sum(axis=-1), _summing_to_0(xp.exp(log_q) - p, likeliest)


def _kl_of_target(target: Array, logits: Array) -> tuple[Array, Array]:
    """Return loss = KL(p || q) and dtarget = p (log p - log q - loss), with q held fixed: p and q are those above."""
    xp = get_xp(target, logits)
    likeliest, log_p = _log_softmax(target)
    p, ratio = xp.exp(log_p), log_p - _log_softmax(logits)[1]
    loss = (p * ratio).sum(axis=-1)
    return loss, _summing_to_0(p * (ratio - loss[..., None]), likeliest)


def _log_softmax(logits: Array) -> tuple[Array, Array]:
    """Return where the largest logit is, and log softmax of the logits."""
    largest, shifted, _, rest = _beside_largest(logits)
    return largest, shifted - get_xp(logits).log1p(rest)


def _summing_to_0(error: Array, at: Array) -> Array:
    """Return the errors (..., N, C) with the entry `at` as minus the sum of the others, whatever it was."""
    xp = get_xp(error, at)
    others = xp.where(at, 0, error)
    return xp.where(at, -others.sum(axis=-1, keepdims=True), others)


def _margin(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return loss = z_t - z_y and its derivative, where t is the likeliest wrong class."""
    xp, t = get_xp(logits, y), runner_up(logits, y)
    return _targeted_margin(logits, xp.stack(xp.broadcast_arrays(y, t), axis=-1))


def _targeted_margin(logits: Array, classes: Array) -> tuple[Array, Array]:
    """Return loss = z_t - z_y and its derivative, for pairs (y, t) of classes (..., N, 2)."""
    xp = get_xp(logits, classes)
    true, target = (classes[..., k, None] == xp.arange(logits.shape[-1]) for k in (0, 1))
    dlogits = target.astype(logits.dtype) - true
    return (dlogits * logits).sum(axis=-1), dlogits


def _check_pairs(y: Array, shape: tuple[int, ...], classes: int) -> None:
    for k in (0, 1):
        check_labels(y[..., k], shape, classes)


def _beside_largest(logits: Array) -> tuple[Array, Array, Array, Array]:
    """Return where the largest logit is, the logits less it, their exponentials, and the sum of the others', (..., 1).

    softmax is exp / (1 + rest), and log softmax is shifted - log1p(rest): the rest of a sure example keeps its digits.
    """
    xp = get_xp(logits)
    largest = logits.argmax(axis=-1)[..., None] == xp.arange(logits.shape[-1])
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    return largest, shifted, exp, xp.where(largest, 0, exp).sum(axis=-1, keepdims=True)


softmax_cross_entropy = Loss("softmax cross-entropy", _softmax_cross_entropy, softmax_tangent, check=check_labels)
kl_divergence = Loss("KL divergence", _kl_divergence, softmax_tangent, own_target=True)
margin = Loss("margin", _margin, check=check_labels)
targeted_margin = Loss("targeted margin", _targeted_margin, check=_check_pairs)
#: The loss of TRADES (Zhang et al. 2019): the same divergence, whose gradient goes through p as well as through q.
free_kl_divergence = replace(
    kl_divergence, name="KL divergence, target free", of_target=Loss("KL divergence, of its target", _kl_of_target)
)
