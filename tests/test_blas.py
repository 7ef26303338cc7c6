import ctypes
import os
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlite import blas
from nnlite.blas import add_product

SIZES = st.integers(1, 9)
FORMS = {  # the same numbers, laid out in other ways
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every other": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "backwards": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "read-only": lambda array: np.broadcast_to(array, (1, *array.shape))[0],
}
form = st.sampled_from([*FORMS.values()])


@given(SIZES, SIZES, SIZES, form, form, form, st.sampled_from([np.float32, np.float64]), st.integers(0, 99))
def test_a_product_is_scaled_and_added_whatever_the_layout(m, k, n, form_a, form_b, form_into, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b, old = (rng.standard_normal(shape) for shape in ((m, k), (k, n), (m, n)))
    expected = old - 0.3 * np.einsum("mk,kn->mn", a, b)
    into = np.repeat(old.astype(dtype), 2, axis=1)[:, ::2] if form_into(old).flags.writeable else old.astype(dtype)
    left, right = form_a(a.astype(dtype)), form_b(b.astype(dtype))
    add_product(into, -0.3, left, right)
    assert into.dtype == dtype
    assert into == pytest.approx(expected, rel=1e-4 if dtype == np.float32 else 1e-12, abs=1e-5)
    assert (left == a.astype(dtype)).all()
    assert (right == b.astype(dtype)).all()


@pytest.mark.parametrize("shared", [None, "a", "b"])
@pytest.mark.parametrize("scale", [0.7, np.array([0.7, -0.1, 2.0])])
def test_each_model_of_a_stack_gets_the_bits_that_it_gets_alone(shared, scale):
    rng = np.random.default_rng(0)
    a, b, into = (rng.standard_normal((3, *shape)).astype(np.float32) for shape in ((6, 50), (50, 5), (6, 5)))
    a, b = a[0] if shared == "a" else a, b[0] if shared == "b" else b
    alone = into.copy()
    for k in range(3):
        one = scale if isinstance(scale, float) else float(scale[k])
        add_product(alone[k], one, a if a.ndim == 2 else a[k], b if b.ndim == 2 else b[k])
    add_product(into, scale, a, b)
    assert (into == alone).all()


@pytest.mark.parametrize(
    "dtypes",
    [
        (np.float16,) * 3,
        (np.longdouble,) * 3,
        *(kinds for kinds in product((np.float32, np.float64), repeat=3) if len({*kinds}) > 1),
    ],
)
def test_other_types_are_added_by_numpy(dtypes):
    into, a, b = np.ones((2, 1), dtypes[0]), np.full((2, 3), 2, dtypes[1]), np.full((3, 1), 4, dtypes[2])
    add_product(into, 0.5, a, b)
    assert into.dtype == dtypes[0]
    assert into.tolist() == [[13.0], [13.0]]


def test_no_row_adds_nothing():
    into = np.ones((2, 3), np.float32)
    add_product(into, 1.0, np.ones((2, 0), np.float32), np.ones((0, 3), np.float32))
    assert (into == 1).all()


@pytest.mark.parametrize("char", ["f", "d"])
def test_blas_is_called_once_for_a_matrix_and_reads_rows_and_columns_where_they_lie(monkeypatch, char):
    calls = []
    monkeypatch.setattr(blas, "_gemm", lambda char: lambda *arguments: calls.append(arguments))
    into, a, b = (np.ones(shape, char) for shape in ((2, 3), (2, 4), (4, 3)))
    columns, every_other = np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2]
    for left, form, step in ((a, 111, 4), (columns, 112, 2), (every_other, 111, 4)):
        add_product(into, 0.5, left, b)
        order, left_form, right_form, *sizes, scale, at, left_step, right, right_step, beta, target, width = calls.pop()
        assert (order, left_form, right_form, sizes) == (101, form, 111, [2, 3, 4])  # the numbers of cblas.h
        assert (scale, left_step, right_step, beta, width) == (0.5, step, 3, 1.0, 3)
        assert (right, target) == (b.ctypes.data, into.ctypes.data)
        assert (at == left.ctypes.data) == (left is not every_other)
    assert not calls


def test_on_a_gpu_a_matrix_goes_to_cublas_and_a_stack_or_a_mixture_does_not(monkeypatch):
    calls = []
    monkeypatch.setattr(blas, "get_xp", lambda *arrays: "cupy")
    monkeypatch.setattr(blas, "add_product_on_gpu", lambda *arguments: calls.append(arguments))
    into, a, b = np.ones((2, 2, 2)), np.ones((2, 2, 3)), np.ones((2, 3, 2))
    add_product(into[0], np.float64(0.5), a[0], b[0])
    ((target, scale, left, right),) = calls
    assert (type(scale), scale) == (float, 0.5)
    assert [array.ctypes.data for array in (target, left, right)] == [array.ctypes.data for array in (into, a, b)]
    add_product(into, 0.5, a, b)
    add_product(into[0], 0.5, a[0].astype(np.float32), b[0])
    assert len(calls) == 1
    assert into[:, 0, 0].tolist() == [4.0, 2.5]


@pytest.mark.parametrize("number", [1e6, -1e6, np.nan])
def test_a_function_that_adds_other_numbers_is_not_right(monkeypatch, number):
    monkeypatch.setattr(blas, "_call", lambda gemm, into, *rest: into.fill(number))
    assert not blas._is_right(None, "f")


@pytest.fixture
def found_anew():
    """Let the function be looked for again, and forget what was found in the test."""
    blas._gemm.cache_clear()
    yield
    blas._gemm.cache_clear()


@pytest.mark.parametrize("library", ["none", "nameless", "wrong"])
def test_a_library_without_it_or_with_another_is_left_to_numpy(monkeypatch, found_anew, library):
    def open_library(path):
        if library == "none":
            raise OSError(path)
        wrong = ctypes.CFUNCTYPE(None)(lambda: None)  # does nothing, whatever it is called with
        return SimpleNamespace(**({blas.NAMES[2].format("s"): wrong} if library == "wrong" else {}))

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    assert blas._gemm("f") is None
    into = np.ones((2, 2), np.float32)
    add_product(into, -1.0, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    assert into.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("char", ["f", "d"])
def test_the_wheels_of_numpy_have_it(char):
    wheel = "scipy-openblas" in str(np.show_config(mode="dicts")["Build Dependencies"]["blas"])
    assert blas._gemm(char) is not None or not wheel or os.name == "nt"  # Windows looks into one library only
