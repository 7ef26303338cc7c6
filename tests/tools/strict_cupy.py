"""A strict stand-in for CuPy: put into sys.modules["cupy"], it runs `--device gpu` where there is no GPU.

A device array here wraps a NumPy array and hides it. What this proves: no array slips from host to
device or back by accident. Mixing with a NumPy array or a NumPy scalar raises, in an operator, a function
or an index; every way to the host raises except `asnumpy`, which is counted. Functions and methods are
only those that nnlite needs, with CuPy's own signatures; any other is an AttributeError. As the arithmetic
is NumPy's, results must equal those on the CPU bit for bit.

What it cannot prove: that CuPy's kernels are right or fast, its rounding, its promotion of types, its
behaviour out of range, and that a GPU is there. The tests marked `gpu` ask the real one.

It is stricter than CuPy on purpose. CuPy would copy a NumPy index to the device without a word, take a
NumPy scalar, run np.exp on its own arrays, and wait for the device in float(), bool(), item() and masks.
"""

import inspect
from types import SimpleNamespace

import numpy as np

copied_to_host = []  # the shape of each array that asnumpy brought to the host


def _stands_for(library):
    """Make of a stub, which carries CuPy's signature, NumPy's function of that name on device arrays."""

    def make(stub):
        signature = inspect.signature(stub)
        of_numpy = getattr(library, stub.__name__)

        def function(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)  # TypeError for a parameter that CuPy does not have
            return _wrap(of_numpy(*_unwrap(bound.args), **{name: _unwrap(a) for name, a in bound.kwargs.items()}))

        function.__signature__ = signature
        return function

    return make


def _unwrap(value):
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}: a device array meets a value of the host")
    if isinstance(value, (tuple, list)):
        return type(value)(map(_unwrap, value))
    return value


def _wrap(result):
    if isinstance(result, (tuple, list)):
        return [_wrap(part) for part in result]
    return result if result is NotImplemented else ndarray(np.asarray(result))


def _stays_on_the_device(*args, **kwargs):
    raise TypeError("Implicit conversion to the host: only cupy.asnumpy brings an array back")


class ndarray:  # noqa: N801 - CuPy's name
    """A device array. It shares memory with its views, as CuPy's does."""

    __module__ = "cupy"
    __array_ufunc__ = None  # NumPy's operators give way to the ones below, and its ufuncs raise

    def __init__(self, host):
        self._host = host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)

    def __len__(self):
        return len(self._host)

    def __repr__(self):
        return f"cupy.ndarray(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index):
        host_index = _unwrap(index)
        if any(isinstance(part, np.ndarray) and part.dtype.kind == "b" for part in np.index_exp[host_index]):
            raise TypeError("a mask of booleans waits for the device to learn the shape of its result")
        return _wrap(self._host[host_index])

    def __setitem__(self, index, value):
        self._host[_unwrap(index)] = _unwrap(value)

    @_stands_for(np.ndarray)
    def sum(self, axis=None, dtype=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def mean(self, axis=None, dtype=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def max(self, axis=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def min(self, axis=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def all(self, axis=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def any(self, axis=None, out=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def argsort(self, axis=-1): ...

    @_stands_for(np.ndarray)
    def argmax(self, axis=None, out=None, dtype=None, keepdims=False): ...

    @_stands_for(np.ndarray)
    def clip(self, min=None, max=None, out=None): ...

    @_stands_for(np.ndarray)
    def astype(self, dtype, order="K", casting=None, subok=None, copy=True): ...

    @_stands_for(np.ndarray)
    def reshape(self, *shape, order="C"): ...

    @_stands_for(np.ndarray)
    def swapaxes(self, axis1, axis2): ...

    @_stands_for(np.ndarray)
    def copy(self, order="C"): ...


def _operator(name):
    of_numpy = getattr(np.ndarray, f"__{name}__")

    def in_place(self, other):
        of_numpy(self._host, _unwrap(other))
        return self

    def fresh(self, *other):
        return _wrap(of_numpy(self._host, *_unwrap(other)))

    return in_place if name in {"iadd", "isub", "imul", "itruediv", "ior"} else fresh


for _name in (
    *("neg", "abs", "eq", "ne", "lt", "le", "gt", "ge", "iadd", "isub", "imul", "itruediv"),
    *("invert", "and", "or", "ior", "pow"),
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "rmatmul"),
):
    setattr(ndarray, f"__{_name}__", _operator(_name))

for _name in ("array", "array_function", "float", "int", "complex", "bool", "index", "iter"):
    setattr(ndarray, f"__{_name}__", _stays_on_the_device)
ndarray.item = ndarray.tolist = ndarray.get = _stays_on_the_device


def asarray(a, dtype=None, order=None):
    if isinstance(a, ndarray):
        return a if dtype is None else a.astype(dtype, copy=False)
    if isinstance(a, np.ndarray):
        return ndarray(np.array(a, dtype))  # always a copy: the device has memory of its own
    raise TypeError(f"expected an array of either device, found {type(a)}")


def asnumpy(a, stream=None, order="C", out=None):
    copied_to_host.append(a.shape)
    return np.array(a._host, order=order)


@_stands_for(np)
def exp(x, /, out=None): ...


@_stands_for(np)
def log1p(x, /, out=None): ...


@_stands_for(np)
def sqrt(x, /, out=None): ...


@_stands_for(np)
def rint(x, /, out=None): ...


@_stands_for(np)
def trunc(x, /, out=None): ...


@_stands_for(np)
def sign(x, /, out=None): ...


@_stands_for(np)
def subtract(x1, x2, /, out=None): ...


@_stands_for(np)
def maximum(x1, x2, /, out=None): ...


@_stands_for(np)
def minimum(x1, x2, /, out=None): ...


@_stands_for(np)
def matmul(x1, x2, /, out=None): ...


@_stands_for(np)
def where(condition, x=None, y=None): ...


@_stands_for(np)
def zeros(shape, dtype=float, order="C"): ...


@_stands_for(np)
def eye(N, M=None, k=0, dtype=float, order="C"): ...


@_stands_for(np)
def ones_like(a, dtype=None, order="K", subok=None, shape=None): ...


@_stands_for(np)
def zeros_like(a, dtype=None, order="K", subok=None, shape=None): ...


@_stands_for(np)
def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None): ...


@_stands_for(np)
def flatnonzero(a): ...


@_stands_for(np)
def arange(start, stop=None, step=1, dtype=None): ...


@_stands_for(np)
def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"): ...


@_stands_for(np)
def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"): ...


@_stands_for(np)
def tile(A, reps): ...


@_stands_for(np)
def ascontiguousarray(a, dtype=None): ...


@_stands_for(np)
def broadcast_arrays(*args): ...


@_stands_for(np)
def broadcast_to(array, shape): ...


class cublas:  # noqa: N801 - CuPy's name of a module
    @staticmethod
    def gemm(transa, transb, a, b, out=None, alpha=1.0, beta=0.0):
        """Compute alpha a b + beta out into `out`, for matrices alone, with numbers of the host for alpha and beta."""
        assert (transa, transb) == ("N", "N")
        assert isinstance(alpha, float)
        assert isinstance(beta, float)
        a, b, out = map(_unwrap, (a, b, out))
        assert a.ndim == b.ndim == out.ndim == 2
        assert a.dtype == b.dtype == out.dtype
        out[...] = np.asarray(alpha, a.dtype) * (a @ b) + np.asarray(beta, a.dtype) * out


def get_default_memory_pool():
    return SimpleNamespace(free_bytes=lambda: 0)


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where there is no driver."""


cuda = SimpleNamespace(
    runtime=SimpleNamespace(
        getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError, memGetInfo=lambda: (1 << 33, 1 << 33)
    ),
    get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
)
