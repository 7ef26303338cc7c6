"""The state dict of PyTorch: the arrays of a net by the names that nn.Sequential gives them. It needs no PyTorch."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from nnlite.datasets.description import Description
from nnlite.interop.plain import plain_layers
from nnlite.layers import Dense
from nnlite.network import MAIN, Network


def state_dict(net: Network, task: str = MAIN) -> dict[str, npt.NDArray[Any]]:
    """Return "0.weight" (out, in), "0.bias" (out,), "2.weight" and so on, in the dtype of the net.

    NnliteError for a layer other than Dense and ReLU, a stack, and an unknown task.
    """
    return {
        f"{k}.{name}": np.ascontiguousarray(array)
        for k, layer in enumerate(plain_layers(net, task))
        if isinstance(layer, Dense)
        for name, array in (("weight", layer.W.T), ("bias", layer.b))
    }


def state_bytes(net: Network, data: Description, file: str, task: str = MAIN) -> bytes:
    """Return what a safetensors file holds of the state dict, for a file of the name `file`.

    Its metadata say how PyTorch loads it, and hold the description of the data as JSON, scaling included.
    """
    parts = [
        "nn.Linear({}, {})".format(*layer.W.shape) if isinstance(layer, Dense) else "nn.ReLU()"
        for layer in plain_layers(net, task)
    ]
    readme = (
        "from torch import nn; from safetensors.torch import load_file",
        f"net = nn.Sequential({', '.join(parts)})",
        f"net.load_state_dict(load_file({file!r}))  # rows are (x - low) / (high - low), see data",
    )
    about = {"README": "\n".join(readme), "task": task, "data": json.dumps(asdict(data))}
    return safetensors.numpy.save(state_dict(net, task), about)
