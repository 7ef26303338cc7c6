"""scikit-learn: plain training by MLPClassifier.partial_fit, which goes once over its samples, in batches."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from nnlite.backend import Array
from nnlite.bench.workload import CLASSES, FEATURES, Runner, Workload
from nnlite.network import MAIN


def partial_fit(work: Workload, threads: int) -> Runner:
    """Return the Runner of one model without a penalty: a step is a partial_fit of a batch, an epoch of all images."""
    settings, (x, labels) = work.settings, work.batch()
    y = labels[MAIN]
    if work.kind == "epoch":
        order = np.concatenate(work.order())
        x, y = x[order], y[order]
    model = MLPClassifier(
        settings.hidden,
        solver="sgd",
        alpha=0,
        momentum=0,
        learning_rate_init=settings.lr,
        batch_size=settings.batch_size,
        shuffle=False,
    )
    # It takes no weights to start from: a first call makes the arrays, which are then overwritten.
    size = settings.batch_size
    model.partial_fit(np.zeros((size, FEATURES), np.float32), np.zeros(size, int), classes=np.arange(CLASSES))
    for array, start in zip(_parameters(model), work.weights(), strict=True):
        array[...] = start

    def run(n: int) -> None:
        for _ in range(n):
            model.partial_fit(x, y)

    return Runner(run, lambda: [array.copy() for array in _parameters(model)])


def _parameters(model: MLPClassifier) -> list[Array]:
    return [array for layer in zip(model.coefs_, model.intercepts_, strict=True) for array in layer]
