"""The lock of a run: only one process at a time trains it and writes its folder.

The system takes the lock from a process that dies, so there is none to delete by hand. The library filelock was
weighed: with flock it does not say which process holds a lock, and it leaves its files behind.
"""

import functools
import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nnlite.errors import NnliteError
from nnlite.storage.files import beside, read_file, recover


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
    except BlockingIOError as error:
        raise NnliteError(
            f"run: {path} is being trained by another process (pid {_holder(name)}); "
            f"wait for it, or give this one another place"
        ) from error
    except OSError as error:
        raise NnliteError(f"runs: cannot write to {path.parent} ({error.strerror}); choose another --runs") from error
    try:
        with suppress(OSError):  # the disk may be full, and who holds the lock is only for the message
            os.truncate(number, 0)
            os.write(number, str(os.getpid()).encode())
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(number)


@contextmanager
def locks(paths: Collection[Path]) -> Iterator[None]:
    """Hold the lock of each of `paths`, or of none."""
    with ExitStack() as held:
        _allow_files(len(paths))
        for path in paths:
            held.enter_context(lock(path))
        yield


def recover_if_abandoned(path: Path) -> None:
    """Put `path` back where a process died while replacing it; one that is alive will do so itself."""
    if path.name and os.path.exists(beside(path, "old")) and not os.path.exists(path):  # False for a name too long
        with suppress(NnliteError), lock(path):
            recover(path)


def _take(name: Path) -> int:
    """Return the open lock file, locked; BlockingIOError where another process holds it."""
    import fcntl  # not on Windows

    while True:
        number = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # a stranger's link may lead anywhere
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(number).st_nlink:
                return number
        except BlockingIOError:
            os.close(number)
            raise
        except OSError as error:  # of a file system without locks
            _warn_of_no_locks(name.parent, error.strerror)
            return number
        os.close(number)  # its last holder had removed it: take a new one


def _holder(name: Path) -> str:
    """Return the number of the process that the lock file `name` names, or "unknown"."""
    with suppress(OSError):
        text = read_file(name, 20)
        if text.isdigit():
            return text.decode()
    return "unknown"


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
