"""Softmax cross-entropy on logits, one loss for each example.

A loss returns its value and its derivative together: (loss, dlogits). The derivative is that of the
example's own loss, not of a batch mean.
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
    classes = xp.arange(logits.shape[-1])
    true = y[..., None] == classes
    largest = logits.argmax(axis=-1)[..., None] == classes
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    rest = xp.where(largest, 0, exp).sum(axis=-1)
    loss = xp.log1p(rest) - xp.where(true, shifted, 0).sum(axis=-1)
    others = xp.where(true, 0, exp / (1 + rest[..., None]))
    dlogits = xp.where(true, -others.sum(axis=-1, keepdims=True), others)
    return loss, dlogits


def naive_softmax_cross_entropy(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return the same loss, and dlogits as it is mostly written, p - onehot, which float32 rounds away.

    Kept to show what that does to an attack (docs/float32.md); nothing trains with it.
    """
    xp = get_xp(logits, y)
    loss, _ = softmax_cross_entropy(logits, y)
    exp = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exp / exp.sum(axis=-1, keepdims=True)
    return loss, p - (y[..., None] == xp.arange(logits.shape[-1]))
