"""Processes of one thread each: they use the cores of a machine better than the threads of one matrix product do.

A task is a function with its arguments, and may `report` to whoever waits for it while it is under way.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

import threadpoolctl

from nnlite.errors import NnliteError
from nnlite.storage.interrupts import deaf_children

Task: TypeAlias = tuple[Any, ...]  # (function, *arguments); both must be importable where it runs

OnReport: TypeAlias = Callable[[int, Any], None]


class Workers(Protocol):
    """Whoever carries out tasks: yields (index, result) of each as they end, in any order.

    What a task reports comes to `on_report`, with the task's index, in the meantime.
    """

    def __call__(self, tasks: Sequence[Task], on_report: OnReport = ...) -> Iterator[tuple[int, Any]]:
        """Carry out `tasks`."""


_way: ContextVar[Callable[[Any], None]] = ContextVar("_way", default=lambda what: None)


def report(what: Any) -> None:
    """Tell `what` to whoever waits for the task that calls this; outside a task nobody hears it."""
    _way.get()(what)


def call(task: Task, tell: Callable[[Any], None]) -> Any:
    """Carry out a task whose reports go to `tell`."""
    before = _way.set(tell)
    try:
        return task[0](*task[1:])
    finally:
        _way.reset(before)


def in_processes(
    tasks: Sequence[Task], on_report: OnReport = lambda index, what: None, *, jobs: int
) -> Iterator[tuple[int, Any]]:
    """Carry out tasks in `jobs` processes, as Workers do; NnliteError where a process is killed."""
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    most = 61 if sys.platform == "win32" else jobs  # more it cannot wait for there
    executor = ProcessPoolExecutor(min(jobs, most, len(tasks)), context, initializer=_start, initargs=(reports,))
    try:
        with deaf_children():
            futures = {executor.submit(_call, index, task): index for index, task in enumerate(tasks)}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            while not reports.empty():
                on_report(*reports.get())
            for future in done:
                yield futures[future], future.result()
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.terminate()
        executor.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise NnliteError(
                f"a process was killed, perhaps for lack of memory; what is finished is kept: call again, "
                f"with fewer --jobs than {jobs} or a smaller --stack"
            ) from error
        raise
    executor.shutdown()  # waits: a worker that is still starting would miss what it was to share


_reports: Any = None  # a worker's way to its parent


def _call(index: int, task: Task) -> Any:
    return call(task, lambda what: _reports.put((index, what)))


def _start(reports: Any) -> None:
    """Leave Ctrl-C to the parent, which ends its workers; end with it where it is killed; and use one thread."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
