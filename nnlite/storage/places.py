"""Places: hidden folders in which one process writes what is not whole yet.

A process holds the lock of its place; the system takes it from one that dies. So the next process that needs a place in
the same folder knows what is left of a dead one, and removes it.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnlite.storage.locks import HELD, try_lock

PREFIX, SUFFIX = ".nnlite-", ".new"
NAME = re.compile(r"\.nnlite-[a-z0-9_]{8}\.new")  # as tempfile makes them


@contextmanager
def new_place(folder: Path) -> Iterator[Path]:
    """Give an empty folder of a new name in `folder`, which is removed at the end, or by the next call after a kill."""
    remove_abandoned_places(folder)
    place, number = _make(folder)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if number in HELD:
            HELD.remove(number)
            os.close(number)


def remove_abandoned_places(folder: Path) -> None:
    """Remove the places in `folder` of processes that died; those of a system without locks stay."""
    if sys.platform == "win32":  # which has none
        return
    for path in folder.iterdir():
        if NAME.fullmatch(path.name):
            with suppress(OSError):  # a link or a file, or one that another process removes
                number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if try_lock(number):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(number)


def _make(folder: Path) -> tuple[Path, int]:
    """Return a new place, and the number of its open folder, locked where the system can."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=folder))
        if sys.platform == "win32":
            return place, -1
        with suppress(FileNotFoundError):  # another process saw it before it had its lock
            number, ours = os.open(place, os.O_RDONLY | os.O_DIRECTORY), True
            with suppress(OSError):  # a file system without locks
                ours = try_lock(number)  # False where that process is about to remove it
            if ours and os.path.exists(place):
                HELD.add(number)
                return place, number
            os.close(number)
