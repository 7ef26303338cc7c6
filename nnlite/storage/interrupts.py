"""Ctrl-C, where it must wait, or must not be heard at all."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back(words: str) -> Iterator[None]:
    """Hold Ctrl-C back, and raise it with these words at the end of the block; only the main thread hears it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt(words)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Have processes that are started within never hear Ctrl-C, not even while they import what they need.

    A terminal sends it to all of them. Whoever started them ends them, and has one thing to say instead of many. On
    Windows, which has no such mask, they hear it until they have told the system otherwise.
    """
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
