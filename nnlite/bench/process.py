"""A worker: a process of its own, with processors of its own, that does some work when it is asked to.

Libraries that bring a pool of threads each do not disturb one another so, and the settings of one do not reach the
others.
"""

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import threadpoolctl

from nnlite.backend import Array
from nnlite.bench.workload import Runner, Work
from nnlite.errors import NnliteError
from nnlite.storage.interrupts import deaf_children
from nnlite.training.memory import keep_freed_memory

# Read by OpenMP, OpenBLAS, MKL and XLA, each when it is loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


class Worker:
    """A process that holds the Runner which `build`, "module:function", makes of a Work and a number of threads.

    cpus: the processors it may use, one for each thread. Questions are "check" (what the short work leads to), "run",
    "result", and "time" (the mean seconds of n runs, after one that is not timed). NnliteError with `name` in it where
    the process fails.
    """

    def __init__(self, name: str, build: str, work: Work, cpus: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process would share the threads' locks
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, work, tuple(cpus)))
        with deaf_children():
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def ask(self, question: str, *values: int) -> Any:
        """Return the answer to a question."""
        self.send(question, *values)
        return self.answer()

    def send(self, question: str, *values: int) -> None:
        """Put a question, and do not wait for the answer."""
        try:
            self._pipe.send((question, values))
        except OSError:  # `answer` reads what it said before it ended
            return

    def answer(self) -> Any:
        """Wait for the answer to what was sent."""
        try:
            done, content = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            done, content = False, f"its process ended with code {self._process.exitcode}"
        if not done:
            raise NnliteError(f"{self.name}: {content}")
        return content


def _serve(pipe: Connection, build: str, work: Work, cpus: tuple[int, ...]) -> None:
    """Answer questions until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one that asks, which ends this one
    os.environ.update(dict.fromkeys(_THREADS, str(len(cpus))))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    keep_freed_memory()  # for everyone: the guides of other libraries, too, advise an allocator that does
    try:
        with threadpoolctl.threadpool_limits(len(cpus)):
            module, _, function = build.partition(":")
            make: Callable[[Work, int], Runner] = getattr(importlib.import_module(module), function)
            runner = make(work, len(cpus))
            answers: dict[str, Callable[..., Any]] = {
                "run": runner.run,
                "result": runner.result,
                "time": lambda n: _seconds(runner, n),
                "check": lambda: _short(runner if work.short() == work else make(work.short(), len(cpus)), work.kind),
            }
            while True:
                question, values = pipe.recv()
                pipe.send((True, answers[question](*values)))
    except EOFError:
        return
    except NnliteError as error:
        pipe.send((False, str(error)))
    except Exception as error:  # whatever it was, it belongs to the one that asks
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _short(runner: Runner, kind: str) -> list[Array]:
    runner.run(3 if kind == "step" else 1)
    return runner.result()


def _seconds(runner: Runner, n: int) -> float:
    runner.run(1)  # wakes the threads, and fetches back what others put out of the cache
    start = time.perf_counter()
    runner.run(n)
    return (time.perf_counter() - start) / n
