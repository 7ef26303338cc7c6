"""Time fits of the estimator beside the same training by the library's loop, and beside scikit-learn's own net.

    python tests/tools/estimator_times.py [rounds]

trains the paper's net in turns, on 2,000 random rows of 784 features, for two epochs of batches of 100, in one BLAS
thread. It prints the median seconds of the processor, which do not count what else the machine does, and the median and
the quartiles of the ratio to the loop within a round.
"""

import sys
import time
import warnings

import numpy as np
import threadpoolctl
from sklearn.neural_network import MLPClassifier

from nnlite.datasets import Dataset, check_samples
from nnlite.interop.sklearn import DataGradClassifier
from nnlite.training import Settings, train

ROWS, FEATURES, CLASSES, EPOCHS = 2_000, 784, 10, 2
METHODS = {"Rect": {}, "DataGrad-L1": {"reg": "dgl1", "lam": 0.01, "phi": 0.1}}


def contestants():
    """Return what is timed, by the name of its method and its own."""
    rng = np.random.default_rng(0)
    X, y = rng.random((ROWS, FEATURES), np.float32), rng.integers(0, CLASSES, ROWS)
    samples = check_samples(X, y)
    data = Dataset("random", samples, samples[:1], samples[:1], (FEATURES,), CLASSES)
    plain = {"solver": "sgd", "alpha": 0, "momentum": 0, "learning_rate_init": Settings.lr, "max_iter": EPOCHS}
    other = MLPClassifier(Settings.hidden, batch_size=Settings.batch_size, **plain)
    found = {}
    for name, method in METHODS.items():
        settings, estimator = Settings(epochs=EPOCHS, **method), DataGradClassifier(epochs=EPOCHS, **method)
        found[name, "nnlite's loop"] = lambda settings=settings: train(settings, data)
        found[name, "DataGradClassifier"] = lambda estimator=estimator: estimator.fit(X, y)
    return found | {("Rect", "MLPClassifier"): lambda: other.fit(X, y)}


def main(rounds=10):
    runs = contestants()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    print("| method | | s | x the loop (quartiles) |\n| --- | --- | ---: | ---: |")
    for (method, name), own in seconds.items():
        low, middle, high = np.quantile(np.divide(own, seconds[method, "nnlite's loop"]), (0.25, 0.5, 0.75))
        print(f"| {method} | {name} | {np.median(own):.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
    with threadpoolctl.threadpool_limits(1):
        main(*map(int, sys.argv[1:]))
