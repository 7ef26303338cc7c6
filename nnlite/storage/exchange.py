"""Two names exchanged in one step, where the system can: nobody then sees a moment without either."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux
RENAME_SWAP = 2  # macOS


def exchange(one: Path, other: Path) -> bool:
    """Exchange what the names `one` and `other` stand for; False, and nothing is changed, where the system cannot."""
    call = _call()
    if call is None:
        return False
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as Python does for its own
    return call(os.fsencode(one), os.fsencode(other)) == 0


@functools.cache
def _call() -> Callable[[bytes, bytes], int] | None:
    """Return the system's call; None where there is none."""
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "linux":
            rename = library.renameat2
            rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
            return lambda one, other: int(rename(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE))
        if sys.platform == "darwin":
            swap = library.renamex_np
            swap.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
            return lambda one, other: int(swap(one, other, RENAME_SWAP))
    except (AttributeError, OSError, TypeError):  # an old C library, or Windows
        pass
    return None
