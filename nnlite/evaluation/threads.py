"""Threads: one for each product, and blocks of images side by side.

Threads of BLAS wait for one another after each product. Where other work keeps a processor busy, all of them wait for
the slowest, and a step takes many times as long; and a product in two threads rounds otherwise than in one. So BLAS is
held to one thread, and the processors are used by blocks of images instead, which need not wait: NumPy lets go of
Python's lock in a product. A block is the same work in any thread, so a figure has the same bits for any number of
threads.
"""

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import threadpoolctl

from nnlite.errors import NnliteError
from nnlite.storage import cgroups
from nnlite.storage.memory import keep_freed_memory

R = TypeVar("R")
OnShare: TypeAlias = Callable[[float], None]  # is told the share of a block that is done
OnProgress: TypeAlias = Callable[[float, int], None]  # is told how many images are done, and of how many

TICK = 0.1  # seconds between two looks at how far the blocks are
VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")

_limit: list[int] = []  # how many blocks at a time, where that was said
_in_block: ContextVar[bool] = ContextVar("in_block", default=False)  # a block has no blocks of its own side by side


def available_cpus() -> list[int]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processors() -> int:
    """Return how many processors this process can keep busy: those that it may use, as far as its container lets it."""
    return max(1, math.floor(min(len(available_cpus()), cgroups.processors())))


def limit_blocks(number: int) -> None:
    """Work on at most so many blocks at a time from now on, in this process."""
    _limit[:] = [number]


@contextmanager
def blocks_at_a_time(number: int) -> Iterator[None]:
    """Work on at most so many blocks at a time within the `with` block."""
    before = [*_limit]
    limit_blocks(number)
    try:
        yield
    finally:
        _limit[:] = before


@contextmanager
def one_blas_thread() -> Iterator[int]:
    """Hold NumPy's BLAS to one thread, and yield how many it has; afterwards it has as many as before.

    A limit of the user's own stays as it is: one in the environment (VARIABLES), or by threadpoolctl another number
    than that of all processors, which BLAS takes by default. A BLAS that threadpoolctl does not know is left alone.
    """
    blas = _blas("scipy.linalg" in sys.modules)
    now = max((one.num_threads for one in blas.lib_controllers), default=1)
    own = any(os.environ.get(name) for name in VARIABLES) or now not in (os.cpu_count(), len(available_cpus()))
    if now == 1 or own:
        yield now
        return
    with blas.limit(limits=1):
        yield 1


@cache
def _blas(with_scipy: bool) -> Any:
    """Return what limits each BLAS that is loaded; SciPy brings one of its own, maybe after the first call."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


class _StoppedError(Exception):
    """Ends a block whose result nobody waits for any more."""


def side_by_side(
    work: Callable[[int, OnShare], R],
    sizes: Sequence[int],
    on_progress: OnProgress = lambda done, total: None,
    *,
    alone: bool = False,
) -> Generator[R, None, None]:
    """Yield what `work` returns for each block, in their order, while others are worked on in other threads.

    An error, Ctrl-C, or the end of the iteration ends the blocks that are under way, when they next tell their share.

    Arguments:
        work: Is given the number of a block, and what to call with the share of it that is done, from 0 to 1.
        sizes: How many images each block has.
        on_progress: Called with how many images are done, and of how many; always in this thread.
        alone: Whether the blocks may not be worked on at the same time, as they share some state.
    """
    total, shares, told, stopped = sum(sizes), [0.0] * len(sizes), 0.0, False

    def tell() -> None:
        nonlocal told
        told = max(told, sum(share * size for share, size in zip(shares, sizes, strict=True)))
        on_progress(told, total)

    def do(block: int) -> R:
        def on_share(share: float) -> None:
            shares[block] = max(shares[block], min(1.0, share))
            if stopped:
                raise _StoppedError
            if count == 1:
                tell()

        found = work(block, on_share)
        shares[block] = 1.0
        return found

    def do_in_thread(block: int) -> R:
        _in_block.set(True)
        return do(block)

    keep_freed_memory()
    with one_blas_thread() as blas_threads:
        most = 1 if alone or _in_block.get() else min([len(sizes), *_limit])
        count = 1 if most == 1 else max(1, min(most, processors() // blas_threads))
        on_progress(0, total)
        if count == 1:
            for block in range(len(sizes)):
                yield do(block)
                tell()  # afterwards: an interrupt keeps what is finished
            return
        with ThreadPoolExecutor(count, "nnlite") as threads:
            blocks, under_way = iter(range(len(sizes))), deque[Future[R]]()

            def begin(number: int) -> None:
                for block in islice(blocks, number):
                    under_way.append(threads.submit(copy_context().run, do_in_thread, block))

            begin(count + 1)
            try:
                while under_way:
                    while not wait(islice(under_way, 1), TICK).done:
                        tell()
                    found = under_way.popleft().result()
                    begin(1)
                    yield found
                    tell()
            finally:
                stopped = True
                threads.shutdown(wait=False, cancel_futures=True)


def check_threads(threads: int) -> None:
    """Raise NnliteError for more threads than processors, which would only wait for one another."""
    if threads > processors():
        raise NnliteError(
            f"threads: expected at most {processors()}, one for each processor, found {threads}; take fewer"
        )
