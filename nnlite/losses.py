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

    The entry of the true class is formed as minus the sum of the others. In float32 p - 1 becomes
    exactly 0 once p rounds to 1, while the other entries stay correct; the input gradient then points
    the wrong way, and an attack looks weaker than it is (docs/float32.md).
    """
    xp = get_xp(logits, y)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    total = exp.sum(axis=-1, keepdims=True)
    true = y[..., None] == xp.arange(logits.shape[-1])
    loss = xp.log(total[..., 0]) - xp.where(true, shifted, 0).sum(axis=-1)
    others = xp.where(true, 0, exp / total)
    dlogits = xp.where(true, -others.sum(axis=-1, keepdims=True), others)
    return loss, dlogits
