"""What nnlite calls in CuPy, and whether CuPy has it with the arguments used.

    python tests/tools/cupy_names.py

needs CuPy, but neither a GPU nor a driver: it compares names and signatures. `make cupy-names` installs CuPy in an
environment of its own. The tests' stand-in for CuPy, strict_cupy, is compared too: what it takes, CuPy must take.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import strict_cupy
from code_lines import ENGINE, NNLITE

EITHER = {"xp", "cupy"}  # names of variables that hold NumPy or CuPy, or CuPy alone
MODULE = "cublas"  # of CuPy, which `import cupy` does not load: backend.py imports it by its name
HOST = {"np", "math"}


class Use(NamedTuple):
    """A name such as "where", or "ndarray.sum" for a method of arrays, and what it is called with in one place."""

    name: str
    positional: int
    keywords: frozenset[str]
    place: str


def uses(paths: Iterable[Path]) -> Iterator[Use]:
    """Yield each use of what `get_xp` returns, and of a method or property that NumPy's arrays have."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            call = isinstance(node, ast.Call)
            function = node.func if call else node
            if isinstance(function, ast.Attribute) and (name := _name(function)):
                positional = sum(not isinstance(one, ast.Starred) for one in node.args) if call else 0
                keywords = frozenset(one.arg for one in node.keywords if one.arg) if call else frozenset()
                yield Use(name, positional, keywords, f"{path.name}:{node.lineno}")


def uses_of_nnlite() -> list[Use]:
    """Return all uses in the engine, and those of functions in the packages, whose methods are of host arrays, too."""
    engine = [NNLITE / f"{name}.py" for name in ENGINE]
    beside = uses(NNLITE.glob("*/**/*.py"))
    return [*uses(engine), *(use for use in beside if not use.name.startswith("ndarray."))]


def _name(node: ast.Attribute) -> str | None:
    match node.value:
        case ast.Name(id=name) if name in EITHER:
            return node.attr
        case ast.Name(id=name) if name == MODULE:
            return f"{MODULE}.{node.attr}"
        case ast.Call(func=ast.Name(id="get_xp" | "_cupy")):
            return node.attr
        case ast.Name(id=name) if name in HOST:
            return None
        case ast.Attribute() as inner if (outer := _name(inner)) and not outer.startswith("ndarray."):
            return f"{outer}.{node.attr}"  # as cuda.runtime.getDeviceCount
    public = not node.attr.startswith("_") and hasattr(np.ndarray, node.attr) and node.attr != "ctypes"  # an address
    return f"ndarray.{node.attr}" if public else None


def problems(module: ModuleType, used: Iterable[Use]) -> Iterator[str]:
    """Yield a line for each use that `module`, CuPy or the stand-in, would refuse."""
    for use in used:
        try:
            found = _find(module, use.name)
            if callable(found) and not isinstance(found, type):
                arguments = [None] * (use.positional + use.name.startswith("ndarray."))
                _signature(found).bind_partial(*arguments, **dict.fromkeys(use.keywords))
        except (AttributeError, TypeError) as error:
            yield f"{use.place}: {use.name}: {error}"


def stand_in() -> dict[str, Callable[..., Any]]:
    """Return the functions and methods of the stand-in, named as in `Use`; not those that only refuse."""
    methods = {f"ndarray.{name}": value for name, value in vars(strict_cupy.ndarray).items()}
    in_module = {f"{MODULE}.gemm": strict_cupy.cublas.gemm}
    return {
        name: value
        for name, value in {**vars(strict_cupy), **methods, **in_module}.items()
        if inspect.isfunction(value) and "_" not in (name.split(".")[-1][0], value.__name__[0])
    }


def differences(cupy: ModuleType) -> Iterator[str]:
    """Yield a line for each argument of the stand-in that `cupy` does not have, or has with another default."""
    for name, ours in stand_in().items():
        theirs = _signature(_find(cupy, name)).parameters
        if any(parameter.kind == parameter.VAR_KEYWORD for parameter in theirs.values()):
            continue  # matmul, before CuPy 14: nothing is said of what it takes
        for parameter in inspect.signature(ours).parameters.values():
            found = theirs.get(parameter.name)
            named = parameter.kind != parameter.POSITIONAL_ONLY and parameter.name != "self"
            if named and (found is None or found.default != parameter.default):
                yield f"strict_cupy: {name}: expected {parameter}, found {found} in CuPy"


def _find(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; those of CuPy's ufuncs and methods stand in their docstrings alone."""
    try:
        return inspect.signature(function)
    except ValueError:
        line = (function.__doc__ or "").partition("\n")[0].replace("\\", "")
        parameters = re.sub(r"\b\w+ (?=\w)", "", line[line.index("(") + 1 : line.rindex(")")])  # C types go
        return inspect.signature(eval(f"lambda {parameters}: None"))


if __name__ == "__main__":
    sys.modules["cupy_backends.cuda.libs.cublas"] = ModuleType("cublas")  # would load the library of CUDA
    cupy, used = importlib.import_module("cupy"), uses_of_nnlite()
    importlib.import_module(f"cupy.{MODULE}")
    wrong = [*problems(cupy, used), *differences(cupy)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"CuPy {cupy.__version__}: {len({use.name for use in used})} names in {len(used)} places, {len(wrong)} wrong")
    sys.exit(bool(wrong))
