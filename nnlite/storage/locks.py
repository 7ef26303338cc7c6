"""The lock of a run: only one process at a time trains it and writes its folder.

The system takes the lock from a process that dies, so there is none to delete by hand. The library filelock was
weighed: with flock it does not say which process holds a lock, and it leaves its files behind.
"""

import errno
import functools
import logging
import os
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nnlite.errors import NnliteError
from nnlite.storage.companions import beside, owners

ATTEMPTS = 10  # at a lock that is held: `remove_abandoned_locks` holds each for a moment
HELD: set[int] = set()  # the open files whose locks this process holds


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Be the only process that makes the run `path`; NnliteError where another one is, or nothing can be written.

    On Windows there is no lock.
    """
    if sys.platform == "win32":
        yield
        return
    name = beside(path, "lock")
    try:
        number = _take(name)
    except _HeldError as error:
        raise NnliteError(
            f"run: {path} is being trained by another process (pid {error}); "
            f"wait for it, or give this one another place"
        ) from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise NnliteError(
                f"run: {path} needs one more open file than the system allows; raise ulimit -n"
            ) from error
        if error.errno == errno.ELOOP:
            raise NnliteError(f"run: {name} is a link, and may lead anywhere; choose another --runs") from error
        raise NnliteError(f"runs: cannot write to {path.parent} ({error.strerror}); choose another --runs") from error
    try:
        with suppress(OSError):  # the disk may be full, and who holds the lock is only for the message
            os.truncate(number, 0)
            os.write(number, str(os.getpid()).encode())
        yield
    finally:
        if number in HELD:  # a forked child has closed it, and leaves the file to its parent
            with suppress(OSError):  # another user's, in a folder where each may remove only his own
                name.unlink(missing_ok=True)
            _let_go(number)


@contextmanager
def locks(paths: Collection[Path]) -> Iterator[dict[Path, ExitStack]]:
    """Hold the lock of each of `paths`, or of none; give them by path, so that each can be closed before the others."""
    with ExitStack() as held:
        _allow_files(len(paths))
        each = {path: held.enter_context(ExitStack()) for path in paths}
        for path, one in each.items():
            one.enter_context(lock(path))
        yield each


def remove_abandoned_locks(folder: Path) -> None:
    """Remove the lock files in `folder` that a killed process has left; nobody else would."""
    if sys.platform == "win32":
        return
    for path in owners(folder, "lock"):
        with suppress(OSError):  # a link, or one that is gone, or cannot be locked or removed
            number = os.open(name := beside(path, "lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(number).st_mode) and try_lock(number) and os.fstat(number).st_nlink:
                    name.unlink()  # where no link is left, the name is another lock's by now
            finally:
                os.close(number)


def try_lock(number: int) -> bool:
    """Lock an open file or folder until it is closed; False where another process has, OSError without locks."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _HeldError(Exception):
    """Another process holds the lock: its number."""


def _take(name: Path) -> int:
    """Return the open lock file, locked; _HeldError where another process holds it for longer than a look takes."""
    attempts = 0
    while True:
        with ExitStack() as stack:
            try:
                number = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # a link may lead anywhere
            except PermissionError:  # of another user, whose process may be long dead
                number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            stack.callback(_let_go, number)  # whatever happens: as long as it is open it may be locked
            try:
                ours = _is_ours(number, name.parent)
            except _HeldError:
                attempts += 1
                if attempts == ATTEMPTS:
                    raise
                time.sleep(0.01)
                continue
            if ours:
                HELD.add(number)
                stack.pop_all()
                return number


def _is_ours(number: int, folder: Path) -> bool:
    """Lock an open lock file; False where its last holder has removed it meanwhile, _HeldError where it has one."""
    try:
        taken = try_lock(number)
    except OSError as error:  # of a file system without locks
        _warn_of_no_locks(folder, error.strerror)
        return True
    status = os.fstat(number)
    if not taken:
        holder = os.read(number, 20) if stat.S_ISREG(status.st_mode) else b""
        raise _HeldError(holder.decode() if holder.isdigit() else "unknown")
    return status.st_nlink > 0


def _let_go(number: int) -> None:
    HELD.discard(number)
    os.close(number)


def _let_go_in_child() -> None:
    """Close the locks of the parent in a forked child, which would keep them when the parent has died."""
    while HELD:
        os.close(HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@functools.cache  # once for each folder: a grid may want a thousand locks
def _warn_of_no_locks(folder: Path, reason: str | None) -> None:
    logging.getLogger("nnlite").warning(
        "%s: files cannot be locked there (%s); do not train one run twice at the same time", folder, reason
    )


def _allow_files(count: int) -> None:
    """Ask the system to let this process have `count` more files open, as far as it may: mostly it is a few hundred."""
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY:
        wanted = now + count if most == resource.RLIM_INFINITY else min(now + count, most)
        with suppress(ValueError, OSError):  # what is too few, `lock` will say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
