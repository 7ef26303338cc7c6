"""NumPy or CuPy: the only file that knows which of the two holds an array.

Everything else asks `get_xp` for the module of the arrays at hand, so the same lines run on both
devices. A mixture of the two is an error here, never a silent copy between host and device.
"""

import reprlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError

Array: TypeAlias = npt.NDArray[Any]  # or a CuPy array, which has the same methods
Number: TypeAlias = float | Array  # one for all models of a stack, or one for each of them, (S,)

DEVICES = ("cpu", "gpu")


class _Short(reprlib.Repr):
    """Texts cut short; of an array its dtype and shape, or what it holds where that is one short row."""

    def repr_ndarray(self, array: Array, level: int) -> str:  # reprlib goes by the name of the type, also CuPy's
        if array.ndim == 1 and array.size <= 8:
            return f"[{', '.join(f'{entry:g}' for entry in to_host(array).tolist())}]"
        return f"{array.dtype} {array.shape}"


SHORT = _Short()
SHORT.maxtuple, SHORT.maxdict, SHORT.maxother, SHORT.maxstring = 8, 12, 200, 200


def brief(*names: str) -> Callable[[Any], str]:
    """Return a __repr__ that a notebook has room for: the type and these attributes, by default all fields, short."""

    def show(value: Any) -> str:
        shown = (f"{name}={SHORT.repr(getattr(value, name))}" for name in names or vars(value))
        return f"{type(value).__name__}({', '.join(shown)})"

    return show


def get_xp(*arrays: Array) -> Any:
    """Return the module, `numpy` or `cupy`, that all `arrays` belong to; a mixture raises TypeError."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    cupy = sys.modules.get("cupy")  # a CuPy array at hand means that it is imported
    if cupy is not None and all(isinstance(array, cupy.ndarray) for array in arrays):
        return cupy
    kinds = ", ".join(sorted({type(array).__module__ + "." + type(array).__name__ for array in arrays}))
    raise TypeError(f"expected arrays of one device, found {kinds}: move them with to_device first")


def to_device(array: Array, device: str) -> Array:
    """Return `array` on `device` ("cpu" or "gpu"), copying only where it has to move."""
    if device not in DEVICES:
        raise NnliteError(f"device: expected one of {', '.join(DEVICES)}, found {device!r}")
    return to_host(array) if device == "cpu" else _cupy().asarray(array)


def to_host(array: Array) -> npt.NDArray[Any]:
    """Return `array` as a NumPy array; from a GPU this waits for the device."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np.asarray(array)
    return get_xp(array).asnumpy(array)


def per_model(value: Number, like: Array) -> Number:
    """Shape `value`, one number of any kind or one per model (S,), to multiply `like`, (S, ...) or unstacked."""
    if isinstance(value, (int, float, np.generic)) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return float(value)  # a NumPy float64 scalar would turn float32 arrays into float64
    return value.astype(like.dtype).reshape(value.shape + (1,) * (like.ndim - value.ndim))


def synchronize(array: Array) -> None:
    """Wait until the device of `array` has finished; a timing on a GPU means nothing without it."""
    xp = get_xp(array)
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def add_product_on_gpu(into: Array, scale: float, a: Array, b: Array) -> None:
    """Add scale a b to `into` in place, by cuBLAS: matrices of a GPU, (M, N), (M, K) and (K, N), of one dtype."""
    from cupy import cublas  # which `import cupy` alone does not load

    cublas.gemm("N", "N", a, b, out=into, alpha=scale, beta=1.0)


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise NnliteError(
            f"device gpu: CuPy is not installed or does not load ({error}); install it with pip install '.[gpu]' in a "
            f"clone of nnlite (or the cupy package for your CUDA version), or use --device cpu"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise NnliteError(f"device gpu: CuPy finds no usable GPU ({error}); use --device cpu") from error
    if count == 0:
        raise NnliteError("device gpu: CuPy finds no GPU; use --device cpu")
    return cupy
