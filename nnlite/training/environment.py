"""The environment of a result: versions, and the BLAS, whose kernels and threads decide the order of summation."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from nnlite import __version__


def environment() -> dict[str, str]:
    """Return, by name, what determines the bits of a result on this CPU, apart from the settings."""
    blas = _blas_of_numpy()
    words = (blas.get("internal_api"), blas.get("version"), blas.get("architecture"))
    return {
        "nnlite": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "BLAS": " ".join(word for word in words if word),
        "BLAS threads": str(blas.get("num_threads", "")),
    }


def _blas_of_numpy() -> dict[str, Any]:
    """Return what is known of NumPy's BLAS; SciPy, once it is imported, adds one of its own to the list."""
    found = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    own = [one for one in found if _is_in_numpy(Path(one["filepath"]))]
    return next(iter(own or found), {})  # a BLAS in neither package is shared by both


def _is_in_numpy(path: Path) -> bool:
    return any(name.startswith("numpy") for name in path.parts[-3:-1])  # numpy.libs, or numpy/.dylibs
