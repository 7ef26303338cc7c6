"""Memory: how much of it a file may claim, how much there is, and keeping what was freed.

A file that claims more than the budget is refused before anything is allocated: it may come from a stranger, and its
size, holes in it included, and the settings that explain that size are the stranger's as well.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from nnlite.errors import NnliteError
from nnlite.storage import cgroups
from nnlite.storage.refusals import RefusedError

VARIABLE = "NNLITE_MEMORY"
BUDGET = 100_000_000  # bytes; a checkpoint of the paper's net has 15 million
UNPACKED = 16  # what the user's own data may hold of each byte that is really on the disk; text and images pack less
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the numbers of glibc's malloc.h
_FILES = {  # of the limit and of what is used, by the controller that /proc/self/cgroup names: none in version 2
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def keep_freed_memory() -> None:
    """Tell the C library (glibc only) to keep freed blocks of up to 32 MB instead of returning them.

    A training step, and one of an attack, frees arrays of a few MB and asks for them again at once; handed back to the
    system, each comes zeroed, page by page, which cost a third of a DataGrad step at the paper's shape. What a step
    costs beside its matrix products, nnlite bench step prints. Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def budget() -> int:
    """Return how many bytes the arrays of one file may take: what NNLITE_MEMORY says, such as 2GB, or BUDGET."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return BUDGET
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([A-Z]{0,2})", text.upper())
    if not found or found[2] not in UNITS:
        raise NnliteError(f"{VARIABLE}: expected a size such as 500MB or 2GB, found {text!r}; set it anew, or unset it")
    return int(float(found[1]) * UNITS[found[2]])


def expect_budget(path: Path, size: int) -> None:
    """Raise RefusedError where `size` bytes are more than the file `path` may claim."""
    _expect(path, size, budget())


def expect_data_budget(path: Path, size: int) -> None:
    """Do the same for the user's own data, which may be large, but not by a claim alone: what is on the disk counts."""
    _expect(path, size, data_budget(path))


def data_budget(path: Path) -> int:
    """Return how many bytes the user's own data in the file `path` may take."""
    on_disk = getattr(os.stat(path), "st_blocks", 0) * 512
    return max(budget(), UNPACKED * on_disk)


def _expect(path: Path, size: int, allowed: int) -> None:
    free = available()
    if size > allowed:
        raise RefusedError(
            f"{path}: it claims {in_words(size)} of memory, and {in_words(allowed)} are allowed to one file; "
            f"if you trust it, set {VARIABLE}={-(-size // 10**6) + 1}MB"
        )
    if size > free:
        raise RefusedError(f"{path}: it needs {in_words(size)} of memory, and {in_words(free)} are free")


def available() -> int:
    """Return the bytes that this process can ask for without swapping: what the machine, or its container, has left."""
    limits = [int(psutil.virtual_memory().available), *_left_in_cgroups(), *_left_of_address_space()]
    return max(0, min(limits))


def _left_in_cgroups() -> Iterator[int]:
    """Yield what is left to the cgroups of this process, of either version; a container is one of them."""
    for controller, folder in cgroups.folders(*_FILES):
        limit, now = (cgroups.read(folder / name) for name in _FILES[controller])
        if limit.isdigit() and now.isdigit():
            # pages of files that nobody uses are given back
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", cgroups.read(folder / "memory.stat"), re.MULTILINE)
            yield int(limit) - int(now) + (int(cached[1]) if cached else 0)


def _left_of_address_space() -> Iterator[int]:
    """Yield what `ulimit -v` leaves."""
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        yield most - int(psutil.Process().memory_info().vms)


def in_words(count: int) -> str:
    """Return a number of bytes as 1.2 GB or 34 MB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
