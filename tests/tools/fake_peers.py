"""Contestants for tests of the benchmark; they are made by name, in a process of their own."""

import os

import numpy as np

from nnlite.bench.workload import Runner


def right(work, threads):
    """Add 1 to every array in each run."""
    return _adds(work, 1.0)


def wrong(work, threads):
    """Add 2 percent too much."""
    return _adds(work, 1.02)


def dies(work, threads):
    """End without a word when it is asked to run."""
    return Runner(lambda n: os._exit(7))


def fails(work, threads):
    """Raise while it is made."""
    raise ValueError("no such thing")


def about(work, threads):
    """Tell what it was given: the threads, the processors, the setting of OpenMP and its process."""
    given = [threads, len(os.sched_getaffinity(0)), int(os.environ["OMP_NUM_THREADS"]), os.getpid()]
    return Runner(lambda n: None, lambda: [np.array(given)])


def _adds(work, step):
    arrays = work.start()

    def run(n):
        for array in arrays:
            array += n * step

    return Runner(run, lambda: arrays)
