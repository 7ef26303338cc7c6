"""ONNX: a net as a graph that onnxruntime, verifiers and most else that runs nets read.

A Dense layer is a Gemm, a ReLU a Relu. With the description of its data the graph begins with their scaling, so that
rows go in as they stand in the user's file. It is built from onnx.helper node by node: nothing is traced.
"""

import json
from math import prod
from typing import cast

import numpy as np

from nnlite import __version__
from nnlite.datasets.description import Description
from nnlite.datasets.rotation import ANGLES, ROTATION
from nnlite.errors import NnliteError
from nnlite.interop.plain import plain_layers
from nnlite.layers import Dense
from nnlite.network import MAIN, Network

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise NnliteError(
        f"onnx: expected the package onnx, found {type(error).__name__}: {error}; "
        f"install it with pip install '.[onnx]' in a clone of nnlite"
    ) from error

OPSET, IR = 13, 7  # old enough for the runtimes of 2020; onnx's own defaults are refused by all but the newest


def onnx_model(
    net: Network, data: Description | None = None, *, task: str = MAIN, raw: bool = True, batch: int | None = None
) -> onnx.ModelProto:
    """Return `net` as an ONNX model with one input "x" (N, D) and one output "logits" (N, C), in the net's dtype.

    With `data` its metadata hold the name, the shape, the features and the classes, and "x" takes rows in the user's
    units, as float64: they are scaled as nnlite scales them, in float64, and then rounded to the net's dtype.

    Arguments:
        net: One net, of Dense and ReLU layers.
        data: What the net was trained on; None for a model without metadata, of scaled rows.
        task: Whose logits are the output.
        raw: False for scaled rows, in the dtype of the net, although the data are known.
        batch: How many rows go in at once; None for any number.

    NnliteError for another layer, named, a stack, an unknown task, and data of another width.
    """
    if data is not None and prod(data.shape) != net.sizes[0]:
        found = f"found {data.name} of {prod(data.shape)}"
        raise NnliteError(f"data: expected that of the net, of {net.sizes[0]} features, {found}; give its own")
    dtype = helper.np_dtype_to_tensor_dtype(net.dtype)
    nodes, arrays, seen, given = [], {}, "x", dtype
    if data is not None and raw:
        low, high = np.array(data.low), np.array(data.high)
        arrays = {"low": low, "width": np.where(high > low, high - low, np.inf)}  # what is constant becomes 0
        nodes = [
            helper.make_node("Sub", ["x", "low"], ["above"]),
            helper.make_node("Div", ["above", "width"], ["share"]),
            helper.make_node("Cast", ["share"], ["scaled"], to=dtype),
        ]
        seen, given = "scaled", onnx.TensorProto.DOUBLE
    layers = plain_layers(net, task)
    for k, layer in enumerate(layers):
        made = f"layer{k}" if k < len(layers) - 1 else "logits"
        if isinstance(layer, Dense):
            arrays |= {f"W{k}": layer.W, f"b{k}": layer.b}
            nodes.append(helper.make_node("Gemm", [seen, f"W{k}", f"b{k}"], [made]))
        else:
            nodes.append(helper.make_node("Relu", [seen], [made]))
        seen = made
    widths = net.sizes[0], cast(Dense, layers[-1]).W.shape[-1]
    rows = "N" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "nnlite",
        [helper.make_tensor_value_info("x", given, [rows, widths[0]])],
        [helper.make_tensor_value_info("logits", dtype, [rows, widths[1]])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="nnlite",
        producer_version=__version__,
    )
    if data is not None:
        helper.set_model_props(model, _metadata(data, task, widths[1]))
    return model


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """Return what a file holds of a model: the same bytes for the same model."""
    return model.SerializeToString(deterministic=True)


def _metadata(data: Description, task: str, classes: int) -> dict[str, str]:
    names = {MAIN: data.classes, ROTATION: [*map(str, ANGLES)]}.get(task, [*map(str, range(classes))])
    about = {"data": data.name, "shape": data.shape, "features": data.features, "task": task, "classes": names}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
