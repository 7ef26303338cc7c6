"""The environment of a result."""

import itertools

import pytest
import threadpoolctl

from nnlite.training.environment import environment

NUMPY = {
    "user_api": "blas",
    "internal_api": "openblas",
    "version": "1",
    "architecture": "Zen",
    "num_threads": 3,
    "filepath": "/home/numpy/lib/numpy.libs/libscipy_openblas64_.so",
}
SCIPY = {**NUMPY, "version": "2", "num_threads": 4, "filepath": "/home/numpy/lib/scipy.libs/libscipy_openblas.so"}
MKL = {"user_api": "blas", "internal_api": "mkl", "version": "5", "num_threads": 2, "filepath": "/lib/libmkl_rt.so"}
OPENMP = {
    "user_api": "openmp",
    "internal_api": "openmp",
    "version": None,
    "num_threads": 9,
    "filepath": "/numpy/omp.so",
}


@pytest.mark.parametrize("libraries", [*itertools.permutations([NUMPY, SCIPY, OPENMP])])
def test_it_is_numpys_blas_that_is_named(monkeypatch, libraries):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: list(libraries))
    assert (environment()["BLAS"], environment()["BLAS threads"]) == ("openblas 1 Zen", "3")


def test_a_blas_that_all_share_is_named_and_so_is_none(monkeypatch):
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [OPENMP, MKL])
    assert (environment()["BLAS"], environment()["BLAS threads"]) == ("mkl 5", "2")
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    assert (environment()["BLAS"], environment()["BLAS threads"]) == ("", "")
