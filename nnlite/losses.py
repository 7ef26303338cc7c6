"""Losses on logits, one for each example: softmax cross-entropy, the KL divergence of VAT, and margins for attacks.

A loss is a value: called, it returns its value and its derivative together, (loss, dlogits); and it has its second
derivative, which the exact gradient of DataGrad needs. The derivatives are those of the example's own loss, not of a
batch mean. In the first two dlogits is softmax(logits) minus something that does not depend on the logits, so they
share one second derivative. A margin is linear in the logits but for kinks: nobody trains on it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnlite.backend import Array, get_xp


@dataclass(frozen=True)
class Loss:
    """A loss by name, called as loss(logits, y) -> (loss (..., N), dlogits (..., N, C)) for logits (..., N, C).

    Arguments:
        name: For people.
        function: What is called; y are integer labels (N,) or (..., N).
        tangent: (logits, y, change) -> how dlogits moves when the logits move along `change`, (..., N, C): the second
            derivative times `change`. None where it is not known; such a loss has no exact gradient.
        own_target: Whether y is the net's own clean output, logits (..., N, C), and not labels.
    """

    name: str
    function: Callable[[Array, Array], tuple[Array, Array]]
    tangent: Callable[[Array, Array, Array], Array] | None = None
    own_target: bool = False

    def __call__(self, logits: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss and its derivative at the logits."""
        return self.function(logits, y)


def softmax_tangent(logits: Array, y: Array, change: Array) -> Array:
    """Return how dlogits moves when the logits (..., N, C) move along `change`: q (change - q . change).

    This is the second derivative of either loss times `change`; y does not matter. As in the first derivative, the
    entry of the largest logit is minus the sum of the others, and changes are taken relative to it.
    """
    xp = get_xp(logits, change)
    largest, _, exp, rest = _beside_largest(logits)
    q = exp / (1 + rest)
    relative = change - xp.where(largest, change, 0).sum(axis=-1, keepdims=True)
    others = xp.where(largest, 0, q * (relative - (q * relative).sum(axis=-1, keepdims=True)))
    return xp.where(largest, -others.sum(axis=-1, keepdims=True), others)


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
    others = xp.where(true, 0, exp / (1 + rest))
    dlogits = xp.where(true, -others.sum(axis=-1, keepdims=True), others)
    return loss, dlogits


def _kl_divergence(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return loss = KL(p || q) and dlogits = q - p, with q = softmax(logits), and p = softmax(target) held fixed.

    The loss of virtual adversarial training (Miyato et al. 2015), where the target is the net's own clean logits: there
    both are exactly 0. No digits are lost where both are sure, as above.
    """
    xp = get_xp(logits, target)
    likeliest, shifted_p, _, rest_p = _beside_largest(target)
    _, shifted_q, _, rest_q = _beside_largest(logits)
    log_p, log_q = shifted_p - xp.log1p(rest_p), shifted_q - xp.log1p(rest_q)
    p = xp.exp(log_p)
    others = xp.where(likeliest, 0, xp.exp(log_q) - p)
    return (p * (log_p - log_q)).sum(axis=-1), xp.where(likeliest, -others.sum(axis=-1, keepdims=True), others)


def _margin(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return loss = z_t - z_y and its derivative, where t is the likeliest wrong class."""
    xp = get_xp(logits, y)
    t = xp.where(y[..., None] == xp.arange(logits.shape[-1]), -np.inf, logits).argmax(axis=-1)
    return _targeted_margin(logits, xp.stack(xp.broadcast_arrays(y, t), axis=-1))


def _targeted_margin(logits: Array, classes: Array) -> tuple[Array, Array]:
    """Return loss = z_t - z_y and its derivative, for pairs (y, t) of classes (..., N, 2)."""
    xp = get_xp(logits, classes)
    true, target = (classes[..., k, None] == xp.arange(logits.shape[-1]) for k in (0, 1))
    dlogits = target.astype(logits.dtype) - true
    return (dlogits * logits).sum(axis=-1), dlogits


def _beside_largest(logits: Array) -> tuple[Array, Array, Array, Array]:
    """Return where the largest logit is, the logits less it, their exponentials, and the sum of the others', (..., 1).

    softmax is exp / (1 + rest), and log softmax is shifted - log1p(rest): the rest of a sure example keeps its digits.
    """
    xp = get_xp(logits)
    largest = logits.argmax(axis=-1)[..., None] == xp.arange(logits.shape[-1])
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    return largest, shifted, exp, xp.where(largest, 0, exp).sum(axis=-1, keepdims=True)


softmax_cross_entropy = Loss("softmax cross-entropy", _softmax_cross_entropy, softmax_tangent)
kl_divergence = Loss("KL divergence", _kl_divergence, softmax_tangent, own_target=True)
margin = Loss("margin", _margin)
targeted_margin = Loss("targeted margin", _targeted_margin)
