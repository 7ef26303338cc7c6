"""A pool of processes, with one BLAS thread each: they use the cores better than the threads of one matrix product do.

A task is a function with its arguments, and may call `report_progress` while it runs. The pool is that of
concurrent.futures. What is added by hand is missing there, and joblib with its loky pool was weighed and has no channel
for progress either: tasks report while they run, Ctrl-C is left to the parent, and no process outlives its parent.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias

import threadpoolctl

from nnlite.errors import NnliteError
from nnlite.evaluation.threads import limit_blocks, processors
from nnlite.storage.interrupts import defer_sigint

Task: TypeAlias = tuple[Any, ...]  # (function, *arguments); both must be importable where the task runs
OnProgress: TypeAlias = Callable[[int, Any], None]  # takes the index of a task, and what it reports


class Executor(Protocol):
    """What runs tasks: `run_in_pool` or `run_on_cluster` with its options bound, or a function of the user's own."""

    def __call__(self, tasks: Sequence[Task], on_progress: OnProgress = ...) -> Iterator[tuple[int, Any]]:
        """Run `tasks` and yield (index, result) of each as it ends, in any order.

        `on_progress` is called in between, with what running tasks report.
        """


_listener: ContextVar[Callable[[Any], None]] = ContextVar("_listener", default=lambda progress: None)


def report_progress(progress: Any) -> None:
    """Send `progress` to the process that waits for the running task; outside a task this does nothing."""
    _listener.get()(progress)


def run_task(task: Task, listener: Callable[[Any], None]) -> Any:
    """Run a task and return its result; `listener` is called with what the task reports."""
    before = _listener.set(listener)
    try:
        return task[0](*task[1:])
    finally:
        _listener.reset(before)


def default_processes(device: str) -> int:
    """Return how many processes train at the same time by default: one per core, and a single one on a GPU.

    Cores count as far as a container lets its processes use them.
    """
    return 1 if device == "gpu" else processors()


def run_in_pool(
    tasks: Sequence[Task], on_progress: OnProgress = lambda index, progress: None, *, processes: int, threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """Run tasks in a pool of `processes` and yield (index, result) of each as it ends, in any order.

    Each process has `threads` BLAS threads.

    NnliteError where a process is killed; what a task raises is raised here.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    limit = 61 if sys.platform == "win32" else processes  # Windows cannot wait for more
    executor = ProcessPoolExecutor(
        min(processes, limit, len(tasks)), context, initializer=_start, initargs=(reports, threads)
    )
    others = multiprocessing.active_children()
    children: list[Any] = []
    ended: SimpleQueue[Future[Any]] = SimpleQueue()  # to wait for all of ten thousand would look at each, each time
    try:
        with ignore_sigint_in_children():
            futures = {executor.submit(_run, index, task): index for index, task in enumerate(tasks)}
            children = [child for child in multiprocessing.active_children() if child not in others]
        for future in futures:
            future.add_done_callback(ended.put)
        while futures:
            done = None
            with suppress(Empty):
                done = ended.get(timeout=0.2)
            if any(child.exitcode for child in children):
                _end(executor, children)
            while not reports.empty():
                on_progress(*reports.get())
            if done:
                yield futures.pop(done), done.result()
    except BaseException as error:
        _end(executor, children)
        executor.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise NnliteError(
                f"a process was killed, perhaps for lack of memory; finished runs are kept: repeat the call "
                f"with fewer --jobs than {processes} or a smaller --stack"
            ) from error
        raise
    executor.shutdown()  # waits: a process that is still starting would miss the queue that it is to share


def _end(executor: ProcessPoolExecutor, children: Sequence[Any]) -> None:
    """End all processes, also where one of them died while it sent a result, for whose end the executor waits for ever.

    The end comes when nobody can write to their pipe any longer: each of them can, and so can this process, though it
    never does.
    """
    for child in children:
        child.terminate()
    with suppress(AttributeError, OSError):  # another Python may keep it elsewhere
        executor._result_queue._writer.close()  # type: ignore[attr-defined]


@contextmanager
def ignore_sigint_in_children() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, even while they import what they need.

    A terminal sends it to all of them, but their parent ends them, and has one thing to say instead of many. The parent
    gets it, and SIGTERM, at the end of the block: a child whose start is cut off prints a traceback. On Windows, which
    has no such mask, children get it until they have told the system otherwise.
    """
    with defer_sigint("Interrupted while processes were starting."):
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # which would take the mask away when it is started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child has the mask of its parent
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_reports: Any = None  # in a process of the pool: the queue to its parent


def _run(index: int, task: Task) -> Any:
    return run_task(task, lambda progress: _reports.put((index, progress)))


def _start(reports: Any, threads: int) -> None:
    """Leave Ctrl-C to the parent, which ends its children; end when the parent is killed; and use so many threads.

    They are those of BLAS, and blocks of images come one at a time: the other processors have processes of their own.
    """
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(threads)
    limit_blocks(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
