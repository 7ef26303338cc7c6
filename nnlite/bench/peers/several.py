"""Several models by any library that can train one: one after another, or each in a process of its own."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from nnlite.backend import Array
from nnlite.bench.process import BenchProcess
from nnlite.bench.workload import Runner, Workload
from nnlite.evaluation.threads import available_cpus

Build: TypeAlias = Callable[[Workload, int], Runner]


def in_turn(build: Build) -> Build:
    """Return a build that runs one model after another, each with all threads."""

    def build_all(work: Workload, threads: int) -> Runner:
        runners = [build(work.alone(k), threads) for k in range(len(work.models))]

        def run(n: int) -> None:
            for runner in runners:
                runner.run(n)

        return Runner(run, lambda: _together([runner.result() for runner in runners]))

    return build_all


def in_processes(build: str) -> Build:
    """Return a build that runs each model in a process of one thread, on the processors in turn."""

    def build_all(work: Workload, threads: int) -> Runner:
        cpus = available_cpus()
        processes = [
            BenchProcess(f"model {k + 1}", build, work.alone(k), cpus[k % threads : k % threads + 1])
            for k in range(len(work.models))
        ]

        def run(n: int) -> None:
            for process in processes:
                process.send("run", n)
            for process in processes:
                process.answer()

        return Runner(run, lambda: _together([process.ask("result") for process in processes]))

    return build_all


def _together(results: Sequence[list[Array]]) -> list[Array]:
    return [np.stack(arrays) for arrays in zip(*results, strict=True)]
