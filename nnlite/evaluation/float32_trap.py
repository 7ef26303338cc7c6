"""The float32 trap: cross-entropy with the logit error p - onehot, which makes an attack look weaker than it is.

Kept to show what that does (docs/float32.md), and since the paper's figures look like it; nothing trains with it.
"""

from nnlite.backend import Array, get_xp
from nnlite.losses import Loss, softmax_cross_entropy, softmax_tangent


def _naive(logits: Array, y: Array) -> tuple[Array, Array]:
    xp = get_xp(logits, y)
    loss, _ = softmax_cross_entropy(logits, y)
    exp = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exp / exp.sum(axis=-1, keepdims=True)
    return loss, p - (y[..., None] == xp.arange(logits.shape[-1]))


naive_softmax_cross_entropy = Loss("naive softmax cross-entropy", _naive, softmax_tangent)
"""The loss of nnlite, and dlogits as it is mostly written, softmax(logits) - onehot(y), which float32 rounds away."""
