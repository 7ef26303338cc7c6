"""NumPy or CuPy: which module, and the moves between host and device."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy

from nnlite.backend import add_product_on_gpu, get_xp, per_model, synchronize, to_device, to_host
from nnlite.errors import NnliteError


@pytest.fixture
def cupy(monkeypatch):
    """Put the strict stand-in in CuPy's place."""
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    return strict_cupy


@pytest.fixture
def no_cupy(monkeypatch):
    """Make `import cupy` an ImportError, also where CuPy is installed."""
    monkeypatch.setitem(sys.modules, "cupy", None)


# Which module


def test_arrays_of_one_device_give_its_module(cupy):
    host = np.ones(3)
    device = cupy.asarray(host)
    assert get_xp(host) is np
    assert get_xp(host, host) is np
    assert get_xp(device) is cupy
    assert get_xp(device, device) is cupy


def test_host_arrays_need_no_cupy(no_cupy):
    assert get_xp(np.ones(3), np.ones(2)) is np
    assert to_device(np.ones(3), "cpu").sum() == 3
    assert to_host(np.ones(3)).sum() == 3
    synchronize(np.ones(3))


@pytest.mark.parametrize("device_first", [False, True])
def test_a_mixture_of_devices_raises_and_names_both(cupy, device_first):
    arrays = [np.ones(3), cupy.asarray(np.ones(3))]
    with pytest.raises(TypeError, match=r"one device, found cupy\.ndarray, numpy\.ndarray: move them with to_device"):
        get_xp(*(reversed(arrays) if device_first else arrays))


@pytest.mark.parametrize("value", [[1.0, 2.0], 1.0, None, np.float64(1)])
def test_what_is_no_array_raises_and_names_its_type(cupy, value):
    with pytest.raises(TypeError, match=type(value).__name__):
        get_xp(np.ones(2), value)


def test_what_is_no_array_is_not_blamed_on_a_missing_cupy(no_cupy):
    # Labels given as a list, on a machine that never had a GPU: to talk of CuPy would mislead.
    with pytest.raises(TypeError, match="list"):
        get_xp(np.ones(2), [0, 1])


# Moves


def test_a_move_to_the_device_and_back_keeps_values_and_dtype(cupy):
    for dtype in (np.uint8, np.int64, np.float32, np.float64):
        array = np.arange(6, dtype=dtype).reshape(2, 3)
        moved = to_device(array, "gpu")
        assert isinstance(moved, cupy.ndarray)
        for back in (to_host(moved), to_device(moved, "cpu")):
            assert isinstance(back, np.ndarray)
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, array)


def test_an_array_already_there_is_shared(cupy):
    host = np.ones(3)
    device = to_device(host, "gpu")
    assert to_device(host, "cpu") is host
    assert to_host(host) is host
    assert to_device(device, "gpu") is device


def test_the_device_has_memory_of_its_own(cupy):
    host = np.ones(3)
    device = to_device(host, "gpu")
    host += 1
    assert to_host(device).tolist() == [1, 1, 1]
    to_host(device)[:] = 5
    assert to_host(device).tolist() == [1, 1, 1]


def test_to_host_takes_a_numpy_scalar():
    array = to_host(np.ones(3).sum())
    assert isinstance(array, np.ndarray)
    assert array.shape == ()


def test_synchronize_waits_for_the_device_of_the_array(cupy, monkeypatch):
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(1))
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: stream)
    synchronize(np.ones(3))
    assert not waits
    synchronize(cupy.asarray(np.ones(3)))
    assert waits == [1]


def test_the_product_on_a_gpu_is_added_to_what_is_there(cupy):
    into, a, b = (to_device(np.full(shape, 3.0), "gpu") for shape in ((2, 1), (2, 4), (4, 1)))
    add_product_on_gpu(into, -0.5, a, b)
    assert to_host(into).tolist() == [[3 - 0.5 * 36]] * 2


# Errors


def test_an_unknown_device_names_the_known_ones():
    with pytest.raises(NnliteError, match="expected one of cpu, gpu, found 'tpu'"):
        to_device(np.ones(3), "tpu")


def test_without_cupy_the_error_says_what_to_install(no_cupy):
    with pytest.raises(
        NnliteError, match=r"not installed.*install it with pip install '\.\[gpu\]' in a clone of nnlite.*--device cpu"
    ):
        to_device(np.ones(3), "gpu")


def test_without_a_gpu_the_error_says_so(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(NnliteError, match="CuPy finds no GPU; use --device cpu"):
        to_device(np.ones(3), "gpu")


def test_without_a_driver_the_error_gives_the_reason(cupy, monkeypatch):
    def count():
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", count)
    with pytest.raises(NnliteError, match=r"no usable GPU \(cudaErrorInsufficientDriver\); use --device cpu"):
        to_device(np.ones(3), "gpu")


# One number, or one for each model


@pytest.mark.parametrize("number", [2, 0.1, np.float64(0.1), np.array(0.1)])
def test_a_number_stays_a_python_float_that_changes_no_dtype(number):
    shaped = per_model(number, np.ones((3, 4), np.float32))
    assert type(shaped) is float
    assert shaped == number
    assert (shaped * np.ones((3, 4), np.float32)).dtype == np.float32


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(2)])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_any_numpy_scalar_counts_as_a_number_on_both_devices(cupy, number, device):
    array = to_device(np.ones((3, 4), np.float32), device)
    product = per_model(number, array) * array
    assert product.dtype == np.float32
    np.testing.assert_array_equal(to_host(product), np.full((3, 4), float(number), np.float32))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_one_value_per_model_multiplies_its_own_model_in_the_dtype_of_the_array(cupy, shape, dtype, device):
    values = np.array([0.1, 1.0, -2.0])
    like = to_device(np.ones(shape, dtype), device)
    shaped = per_model(to_device(values, device), like)
    assert shaped.shape == (3,) + (1,) * (len(shape) - 1)
    assert shaped.dtype == dtype
    product = to_host(shaped * like)
    assert product.dtype == dtype
    for model, value in enumerate(values.astype(dtype)):
        assert (product[model] == value).all()


def test_values_per_model_of_another_device_than_the_array_raise(cupy):
    like = to_device(np.ones((3, 4), np.float32), "gpu")
    with pytest.raises(TypeError):
        per_model(np.ones(3), like) * like
