"""Exercise 4, solved."""

import numpy as np


def softmax(logits):
    """Return the probabilities, (N, C)."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def naive(logits, y):
    """Return p - onehot(y): once p has rounded to 1, the true class's entry is exactly 0."""
    return softmax(logits) - np.eye(logits.shape[1], dtype=logits.dtype)[y]


def careful(logits, y):
    """Return the same, the true class's entry as minus the sum of the others."""
    true = np.arange(logits.shape[1]) == y[:, None]
    others = np.where(true, 0, softmax(logits))
    return np.where(true, -others.sum(axis=1, keepdims=True), others)


def loss(logits, y):
    """Return -log p of the true class, (N,), so that an error can stand beside it in a Loss."""
    return np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + (
        logits.max(axis=1) - np.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    )
