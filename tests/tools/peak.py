"""The peak of the memory that a piece of Python takes: in a process of its own, or of what a block allocates."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

# Carries out its first argument and prints the peak in kilobytes. Linux hands ru_maxrss on from the process that starts
# another, so it is not asked there.
PEAK = r"""
import pathlib, re, resource, sys
try:
    exec(sys.argv.pop(1))
finally:
    if sys.platform == "linux":
        print(re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""


def peak(code: str, *arguments: str, check: bool = True) -> int:
    """Return the peak of `code`, called with `arguments`, in kilobytes; it must end well if `check`."""
    command = [sys.executable, "-c", PEAK, code, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=check).stdout.split()[-1])


@contextmanager
def memory_below(limit: float) -> Iterator[None]:
    """Assert that what the block allocates stays below `limit` bytes at every moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
