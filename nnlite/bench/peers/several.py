"""Several models, by any library that can train one: one after another, or each in a process of its own."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from nnlite.backend import Array
from nnlite.bench.process import Worker
from nnlite.bench.workload import Runner, Work
from nnlite.grid.pool import available_cpus

Build: TypeAlias = Callable[[Work, int], Runner]


def in_turn(build: Build) -> Build:
    """Return a build that gives each model all threads, one model after another."""

    def build_all(work: Work, threads: int) -> Runner:
        runners = [build(work.alone(k), threads) for k in range(len(work.models))]

        def run(n: int) -> None:
            for runner in runners:
                runner.run(n)

        return Runner(run, lambda: _together([runner.result() for runner in runners]))

    return build_all


def processes(build: str) -> Build:
    """Return a build that gives each model a process of one thread, on the processors in turn."""

    def build_all(work: Work, threads: int) -> Runner:
        cpus = available_cpus()
        workers = [
            Worker(f"model {k + 1}", build, work.alone(k), cpus[k % threads : k % threads + 1])
            for k in range(len(work.models))
        ]

        def run(n: int) -> None:
            for worker in workers:
                worker.send("run", n)
            for worker in workers:
                worker.answer()

        return Runner(run, lambda: _together([worker.ask("result") for worker in workers]))

    return build_all


def _together(results: Sequence[list[Array]]) -> list[Array]:
    return [np.stack(arrays) for arrays in zip(*results, strict=True)]
