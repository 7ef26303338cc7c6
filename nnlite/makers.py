"""The makers of a result: the versions, and BLAS, whose kernels and threads decide in which order sums are taken."""

import platform

import numpy as np
import threadpoolctl

from nnlite import __version__


def makers() -> dict[str, str]:
    """Return by name what decides, beside the settings, which bits a training on this CPU ends with."""
    blas = [found for found in threadpoolctl.threadpool_info() if found["user_api"] == "blas"]
    words = [f"{found['internal_api']} {found['version']} {found.get('architecture', '')}" for found in blas[:1]]
    threads = [str(found["num_threads"]) for found in blas[:1]]  # the first is NumPy's
    return {
        "nnlite": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "BLAS": "".join(words),
        "BLAS threads": "".join(threads),
    }
