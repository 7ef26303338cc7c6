"""NumPy's own BLAS, for the one product that NumPy does not offer: into += scale a b, in one sweep over `into`.

BLAS adds a product to what is there (beta = 1), and a step of training is a sum of such products. NumPy can only form
the product, an array as large as the weights, then scale it, then add it. So the function is called where it lies, in
the library that NumPy has loaded. SciPy offers it, too, but from a second library with threads of its own.

Builds of NumPy name the function differently. It is tried on small products before it is used; where none passes, NumPy
forms the product, which takes longer and rounds otherwise.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, cast

import numpy as np

from nnlite.backend import Array, Number, add_product_on_gpu, get_xp, per_model

Gemm: TypeAlias = Callable[..., None]

# NumPy's wheels, other builds with 64-bit integers, those with 32, Apple's Accelerate.
NAMES = "scipy_cblas_{}gemm64_", "cblas_{}gemm64_", "cblas_{}gemm", "cblas_{}gemm$NEWLAPACK$ILP64"
REALS = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}  # by the type's character
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # the numbers of cblas.h


def add_product(into: Array, scale: Number, a: Array, b: Array) -> None:
    """Add scale a b to `into`, in place; each model of a stack gets the bits that it would get alone.

    Arguments:
        into: (M, N), or a stack (S, M, N).
        scale: A number, or one for each model, (S,).
        a: (M, K), or (S, M, K).
        b: (K, N), or (S, K, N).
    """
    xp, alike = get_xp(into, a, b), into.dtype == a.dtype == b.dtype and into.dtype.char in REALS
    gemm = _gemm(into.dtype.char) if alike and xp is np else None
    if alike and xp is not np and into.ndim == 2:  # cuBLAS adds as well, but to one matrix only
        add_product_on_gpu(into, float(scale), a, b)
    elif gemm is None:
        into += per_model(scale, into) * (a @ b)
    elif into.ndim > 2:
        for k, own in enumerate(into):
            one = float(scale[k]) if isinstance(scale, np.ndarray) and scale.ndim else scale
            add_product(own, one, *(array[k] if array.ndim > 2 else array for array in (a, b)))
    else:
        _call(gemm, into, float(scale), a, b)


def _call(gemm: Gemm, into: Array, scale: float, a: Array, b: Array) -> None:
    """Let BLAS add the product of two matrices to a third."""
    target = np.ascontiguousarray(into)  # itself, but for views
    (a, a_form, a_step), (b, b_form, b_step) = _addressed(a), _addressed(b)
    a_at, b_at, at = (array.ctypes.data for array in (a, b, target))
    gemm(_ROW_MAJOR, a_form, b_form, *into.shape, a.shape[1], scale, a_at, a_step, b_at, b_step, 1.0, at, len(into.T))
    if not into.flags.c_contiguous:
        into[...] = target


def _addressed(array: Array) -> tuple[Array, int, int]:
    """Return a matrix that BLAS can read, in which form it lies there, and how far apart its rows, or columns, are."""
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return array, _TRANSPOSED, array.shape[0]
    return np.ascontiguousarray(array), _PLAIN, max(1, array.shape[1])


@cache
def _gemm(char: str) -> Gemm | None:
    """Return the function for a type of REALS, or None where there is none that is right."""
    letter, real = REALS[char]
    try:  # a name is looked up in all that the module is linked to
        library = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__)
    except (KeyError, OSError):
        return None
    kind, size, place = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p  # where sizes are of 32 bits, those are read
    for name in NAMES:
        gemm: Any = getattr(library, name.format(letter), None)
        if gemm is not None:
            gemm.argtypes = [kind] * 3 + [size] * 3 + [real, place, size, place, size, real, place, size]
            gemm.restype = None
            if _is_right(gemm, char):
                return cast(Gemm, gemm)
    return None


def _is_right(gemm: Gemm, char: str) -> bool:
    """Return whether the function adds small products of whole numbers, which are exact in any order."""
    a, b = np.arange(6, dtype=char).reshape(2, 3), np.arange(12, dtype=char).reshape(3, 4)
    right = True
    for left, other in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b))):
        found = np.ones((2, 4), char)
        _call(gemm, found, -2.0, left, other)
        right &= bool((found == 1 - 2 * (a @ b)).all())
    return right
