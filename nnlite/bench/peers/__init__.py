"""The contestants: nnlite, its matrix products alone, and other libraries, each as its own users would write it."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnlite.bench.workload import Workload
from nnlite.errors import NnliteError
from nnlite.storage.texts import did_you_mean

MATMULS = "products"  # its name in reports, which are kept as files
LIBRARIES = {"torch": "torch", "jax": "jax", "sklearn": "scikit-learn"}  # as imported, and as installed

_ONE = {
    "torch": {"torch eager": "eager", "torch compiled": "compiled"},
    "jax": {"jax jit": "jit"},
    "sklearn": {"scikit-learn": "partial_fit"},
}
_SEVERAL = {
    "torch": {"torch, one after another": "one_after_another", "torch, processes": "each_a_process"},
    "jax": {
        "jax, one after another": "one_after_another",
        "jax vmap": "jit",
        "jax, processes": "each_a_process",
    },
    "sklearn": {"scikit-learn": "partial_fit"},
}


@dataclass(frozen=True)
class Contestant:
    """A name, a workload, and "module:function" that makes its Runner, None where the library does not offer it."""

    name: str
    build: str | None
    work: Workload


def contestants(work: Workload, against: Sequence[str] = ()) -> list[Contestant]:
    """Return the contestants that do `work`: nnlite first, its matrix products, then the libraries named in `against`.

    NnliteError for a library that is not known or not installed, and for others than nnlite on the GPU.
    """
    check_libraries(against)
    if against and work.settings.device != "cpu":
        raise NnliteError("against: other libraries are compared on the CPU only; leave out --device or --against")
    several, settings = len(work.models) > 1, work.settings
    own = "nnlite.bench.peers.own:"
    found = [Contestant("nnlite, stacked" if several else "nnlite", own + "build", work)]
    if several:
        found.append(Contestant("nnlite, one after another", own + "one_after_another", work))
        found.append(Contestant("nnlite, processes", own + "each_a_process", work))
    if settings.gradient == "exact" and not several:
        finite = replace(settings, gradient="finite", phi=0.1)
        found.append(Contestant("nnlite, finite", own + "build", replace(work, models=(finite,))))
    found.append(Contestant(MATMULS, own + "matmuls", work))
    for library in against:
        for name, function in (_SEVERAL if several else _ONE)[library].items():
            words = name + (", double backward" if settings.gradient == "exact" and library != "sklearn" else "")
            build = f"nnlite.bench.peers.{library}:{function}" if _offers(library, work) else None
            found.append(Contestant(words, build, work))
    return found


def check_libraries(names: Sequence[str]) -> None:
    """Raise NnliteError unless each of `names` is one of LIBRARIES, and installed."""
    for name in names:
        if name not in LIBRARIES:
            near = did_you_mean(name, LIBRARIES)
            known = f"{', '.join(LIBRARIES)}, with commas between them"
            raise NnliteError(f"against: expected {known}, found {name!r}{near}")
        if importlib.util.find_spec(name) is None:
            raise NnliteError(
                f"against: {LIBRARIES[name]} is not installed; install it with pip install {LIBRARIES[name]}, or all "
                f"of them with pip install '.[bench]' in a clone of nnlite"
            )


def _offers(library: str, work: Workload) -> bool:
    """Return whether the file of `library` does this workload."""
    if work.kind == "attack":
        return library != "sklearn" and work.attack.norm == "linf" and work.attack.restarts == 1 and work.attack.clip
    plain = work.settings.reg == "none" and not work.settings.multitask
    if library == "sklearn":
        return plain and len(work.models) == 1
    return plain or (work.settings.reg == "dgl1" and not work.settings.multitask)
