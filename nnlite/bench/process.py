"""A bench process: a process with processors of its own, which does some work when it is asked to.

So libraries whose pools of threads would disturb one another do not, and the settings of one do not reach the others.
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
from nnlite.bench.workload import Runner, Workload
from nnlite.errors import NnliteError
from nnlite.grid.pool import ignore_sigint_in_children
from nnlite.storage.memory import keep_freed_memory

# Read by OpenMP, OpenBLAS, MKL and XLA, each when it is loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


class BenchProcess:
    """A process that holds a Runner and answers questions about it; it ends with the `with` block.

    Questions are "check" (the result of the short work), "run", "result", and "time" (the mean seconds of n runs, after
    one that is not timed). NnliteError, with the name in it, where the process fails.

    Arguments:
        name: for errors.
        build: "module:function", where the function makes the Runner from a Workload and a number of threads.
        work: what the Runner does.
        cpus: the processors that the process may use, one for each thread.
    """

    def __init__(self, name: str, build: str, work: Workload, cpus: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process would inherit locks that threads hold
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, work, tuple(cpus)))
        try:
            with ignore_sigint_in_children():
                self._process.start()
        except BaseException:  # Ctrl-C waits for the end of this block, and the caller's `with` has not begun
            self.__exit__()
            raise
        theirs.close()  # so that the end of the process is the end of the pipe

    def __enter__(self) -> "BenchProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.pid is not None:  # it has started
            self._process.terminate()
            self._process.join()
        self._pipe.close()

    def ask(self, question: str, *values: int) -> Any:
        """Return the answer to a question."""
        self.send(question, *values)
        return self.answer()

    def send(self, question: str, *values: int) -> None:
        """Send a question without waiting for the answer."""
        try:
            self._pipe.send((question, values))
        except OSError:  # it has ended, and `answer` reads why
            return

    def answer(self) -> Any:
        """Wait for the answer to the question that was sent, and return it."""
        try:
            done, content = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            done, content = False, f"its process ended with code {self._process.exitcode}"
        if not done:
            raise NnliteError(f"{self.name}: {content}")
        return content


def _serve(pipe: Connection, build: str, work: Workload, cpus: tuple[int, ...]) -> None:
    """Answer questions until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    os.environ.update(dict.fromkeys(_THREADS, str(len(cpus))))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    keep_freed_memory()  # for all libraries alike: the guides of others also recommend an allocator that does so
    try:
        with threadpoolctl.threadpool_limits(len(cpus)):
            module, _, function = build.partition(":")
            make: Callable[[Workload, int], Runner] = getattr(importlib.import_module(module), function)
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
    except Exception as error:  # any error is the parent's to report
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _short(runner: Runner, kind: str) -> list[Array]:
    runner.run(3 if kind == "step" else 1)
    return runner.result()


def _seconds(runner: Runner, n: int) -> float:
    runner.run(1)  # wakes the threads, and brings back into the cache what other processes displaced
    start = time.perf_counter()
    runner.run(n)
    return (time.perf_counter() - start) / n
