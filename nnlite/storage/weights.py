"""The weights: the arrays of a net by their names, as files hold them, and a net of such arrays.

dense0.W (in, out), dense0.b (out,), dense1.W, ...; the head of another task has its name, as rotation.W
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.backend import to_host
from nnlite.layers import Dense, Layer, ReLU
from nnlite.network import Network
from nnlite.storage.memory import expect_budget
from nnlite.storage.tensors import DTYPES, ArrayFile, Layout, check_layout, size_of

WEIGHTS = "weights.safetensors"  # in the folder of a run


def named_arrays(net: Network) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of `net` by name, on the host and C-contiguous."""
    dense = [layer for layer in net.layers if isinstance(layer, Dense)]
    layers = {f"dense{k}": layer for k, layer in enumerate(dense)} | dict(net.heads)
    return {
        f"{key}.{name}": np.ascontiguousarray(to_host(array))
        for key, layer in layers.items()
        for name, array in layer.parameters.items()
    }


def net_layout(sizes: Sequence[int], heads: Mapping[str, int], prefix: str = "") -> Layout:
    """Return the arrays that hold the net which `mlp` makes of these numbers; `prefix` begins their names."""
    widths = {f"dense{k}": pair for k, pair in enumerate(pairwise(sizes))}
    widths |= {task: (sizes[-2], classes) for task, classes in heads.items()}
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for key, (fan_in, fan_out) in widths.items():
        layout[f"{prefix}{key}.W"] = DTYPES["F32"], (fan_in, fan_out)
        layout[f"{prefix}{key}.b"] = DTYPES["F32"], (fan_out,)
    return layout


def read_net(file: ArrayFile, sizes: Sequence[int], heads: Mapping[str, int], prefix: str = "") -> Network:
    """Read the net that `net_layout` describes; ValueError where it is not there, or not finite.

    The form of all its arrays is compared, and their size with the budget, before the first one is read.
    """
    expected = net_layout(sizes, heads, prefix)
    check_layout({name: form for name, form in file.layout.items() if name.startswith(prefix)}, expected)
    expect_budget(file.path, size_of(expected))
    arrays = {name: file.read(name) for name in expected}
    # a sum of float32 in float64 is finite if all of them are, and needs no second array
    if not all(np.isfinite(array.sum(dtype=np.float64)) for array in arrays.values()):
        raise ValueError("expected finite weights, found NaN or infinity")

    def dense(key: str) -> Dense:
        return Dense(arrays[f"{prefix}{key}.W"], arrays[f"{prefix}{key}.b"])

    layers: list[Layer] = []
    for k in range(len(sizes) - 1):
        layers += [dense(f"dense{k}"), ReLU()]
    return Network(tuple(layers[:-1]), {task: dense(task) for task in heads})


def read_any_net(file: ArrayFile, prefix: str = "") -> Network:
    """Read a net of the sizes that the file has; ValueError where its arrays make none, or are not finite.

    `prefix` begins the names of its arrays.
    """
    names = {name.removeprefix(prefix): shape for name, (_, shape) in file.layout.items() if name.startswith(prefix)}
    shapes = {name.removesuffix(".W"): shape for name, shape in names.items() if name.endswith(".W")}
    heads = {key: shape[-1] for key, shape in shapes.items() if not key.startswith("dense")}
    chain = [shapes.get(f"dense{k}", (0,)) for k in range(len(shapes) - len(heads))]
    sizes = [width for shape in chain[:1] for width in shape[:1]] + [shape[-1] for shape in chain]
    if not sizes or 0 in sizes:
        raise ValueError("expected the weights of a run, dense0.W and more, found none")
    return read_net(file, sizes, heads, prefix)
