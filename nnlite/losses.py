"""Losses on logits, one for each example: softmax cross-entropy, and the KL divergence of VAT.

A loss returns its value and its derivative together: (loss, dlogits). The derivative is that of the
example's own loss, not of a batch mean. In both it is softmax(logits) minus something that does not depend on the
logits, so they share one second derivative, `softmax_tangent`.
"""

from collections.abc import Callable
from typing import TypeAlias

from nnlite.backend import Array, get_xp

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def softmax_cross_entropy(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return loss (..., N) = -log softmax(logits)[y] and dlogits (..., N, C) = softmax(logits) - onehot(y).

    logits: (..., N, C); y: integer labels (N,) or (..., N).

    Two cancellations are avoided. The true class's entry of dlogits is minus the sum of the others: in
    float32 p - 1 becomes exactly 0 once p rounds to 1, while the other entries stay correct; the input
    gradient then points the wrong way, and an attack looks weaker than it is (docs/float32.md). And the
    loss is log1p of what the largest logit leaves to the others, so a confident loss keeps its digits.
    """
    xp = get_xp(logits, y)
    true = y[..., None] == xp.arange(logits.shape[-1])
    _, shifted, exp, rest = _beside_largest(logits)
    loss = xp.log1p(rest[..., 0]) - xp.where(true, shifted, 0).sum(axis=-1)
    others = xp.where(true, 0, exp / (1 + rest))
    dlogits = xp.where(true, -others.sum(axis=-1, keepdims=True), others)
    return loss, dlogits


def kl_divergence(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return loss (..., N) = KL(p || q) and dlogits (..., N, C) = q - p, with q = softmax(logits).

    target: logits (..., N, C) whose softmax is p, held fixed. Where `target` is `logits` both are exactly 0. The
    loss of virtual adversarial training (Miyato et al. 2015). No digits are lost where both are sure, as above.
    """
    xp = get_xp(logits, target)
    likeliest, shifted_p, _, rest_p = _beside_largest(target)
    _, shifted_q, _, rest_q = _beside_largest(logits)
    log_p, log_q = shifted_p - xp.log1p(rest_p), shifted_q - xp.log1p(rest_q)
    p = xp.exp(log_p)
    others = xp.where(likeliest, 0, xp.exp(log_q) - p)
    return (p * (log_p - log_q)).sum(axis=-1), xp.where(likeliest, -others.sum(axis=-1, keepdims=True), others)


def softmax_tangent(logits: Array, change: Array) -> Array:
    """Return how dlogits moves when the logits (..., N, C) move along `change`: q (change - q . change).

    This is the second derivative of either loss times `change`; the labels do not matter. As in the first derivative,
    the entry of the largest logit is minus the sum of the others, and changes are taken relative to it.
    """
    xp = get_xp(logits, change)
    largest, _, exp, rest = _beside_largest(logits)
    q = exp / (1 + rest)
    relative = change - xp.where(largest, change, 0).sum(axis=-1, keepdims=True)
    others = xp.where(largest, 0, q * (relative - (q * relative).sum(axis=-1, keepdims=True)))
    moved: Array = xp.where(largest, -others.sum(axis=-1, keepdims=True), others)
    return moved


def naive_softmax_cross_entropy(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return the same loss, and dlogits as it is mostly written, p - onehot, which float32 rounds away.

    Kept to show what that does to an attack (docs/float32.md); nothing trains with it.
    """
    xp = get_xp(logits, y)
    loss, _ = softmax_cross_entropy(logits, y)
    exp = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exp / exp.sum(axis=-1, keepdims=True)
    return loss, p - (y[..., None] == xp.arange(logits.shape[-1]))


def _beside_largest(logits: Array) -> tuple[Array, Array, Array, Array]:
    """Return where the largest logit is, the logits less it, their exponentials, and the sum of the others', (..., 1).

    softmax is exp / (1 + rest), and log softmax is shifted - log1p(rest): the rest of a sure example keeps its digits.
    """
    xp = get_xp(logits)
    largest = logits.argmax(axis=-1)[..., None] == xp.arange(logits.shape[-1])
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    return largest, shifted, exp, xp.where(largest, 0, exp).sum(axis=-1, keepdims=True)
