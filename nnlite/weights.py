"""The weights: the arrays of a net by their names, as files hold them, and a net of such arrays.

dense0.W (in, out), dense0.b (out,), dense1.W, ...; a further head has its task's name, as rotation.W
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, to_host
from nnlite.layers import Dense, Layer, ReLU
from nnlite.network import Network
from nnlite.rotation import ANGLES, ROTATION
from nnlite.settings import Settings


def named_arrays(net: Network) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of `net` by name, on the host and C-contiguous."""
    dense = [layer for layer in net.layers if isinstance(layer, Dense)]
    layers = {f"dense{k}": layer for k, layer in enumerate(dense)} | dict(net.heads)
    return {
        f"{key}.{name}": np.ascontiguousarray(to_host(array))
        for key, layer in layers.items()
        for name, array in layer.parameters.items()
    }


def network(arrays: dict[str, Array], settings: Settings) -> Network:
    """Return the net of `settings` with these arrays, and take them out; KeyError or ValueError says what is wrong."""
    hidden = settings.hidden
    layers: list[Layer] = []
    for k in range(len(hidden) + 1):
        layers += [_dense(arrays, f"dense{k}", hidden[k - 1 : k], hidden[k : k + 1]), ReLU()]
    heads = {ROTATION: _dense(arrays, ROTATION, hidden[-1:], (len(ANGLES),))} if settings.multitask else {}
    net = Network(tuple(layers[:-1]), heads)
    if arrays:
        raise ValueError(f"unexpected arrays {', '.join(arrays)}")
    if not all(np.isfinite(array).all() for array in named_arrays(net).values()):
        raise ValueError("the weights hold NaN or infinity")
    return net


def _dense(arrays: dict[str, Array], key: str, fan_in: tuple[int, ...], fan_out: tuple[int, ...]) -> Dense:
    """Take one layer out of `arrays`; an empty width is that of the input or of the classes, whatever it is."""
    W, b = arrays.pop(f"{key}.W"), arrays.pop(f"{key}.b")
    fan_in, fan_out = fan_in or W.shape[:1], fan_out or b.shape
    fits = W.ndim == 2 and W.shape == fan_in + fan_out and b.shape == fan_out
    if not fits or {W.dtype, b.dtype} != {np.dtype(np.float32)}:
        raise ValueError(f"{key}: W {W.shape} {W.dtype} and b {b.shape} {b.dtype} do not fit the settings")
    return Dense(W, b)
