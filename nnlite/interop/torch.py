"""PyTorch on nnlite's nets: a module whose gradient is nnlite's own backward pass, and the twin made of torch's parts.

`torch_module` is what attacks written for PyTorch take: AutoAttack, foolbox and others run on it unmodified. It works
on the host; its weights are NumPy's, and torch sees none of them.
"""

from math import prod
from typing import Any

from nnlite.errors import NnliteError
from nnlite.interop.plain import expect_one, plain_layers
from nnlite.interop.statedict import state_dict
from nnlite.layers import Dense
from nnlite.losses import Loss
from nnlite.network import MAIN, Network

try:
    import torch
    from torch import nn
    from torch.autograd.function import once_differentiable
except ImportError as error:
    raise NnliteError(
        f"torch: expected PyTorch, found {type(error).__name__}: {error}; "
        f"install it with pip install '.[torch]' in a clone of nnlite"
    ) from error

#: A "loss" whose labels are its error: what comes down from above the logits goes on to the inputs as it is.
UPSTREAM = Loss("upstream gradient", lambda logits, error: ((logits * error).sum(axis=-1), error))


class _Logits(torch.autograd.Function):  # type: ignore[misc]
    """The logits of rows, and the way back from them; torch can differentiate it once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, net: Network, task: str) -> torch.Tensor:
        ctx.save_for_backward(x)  # which torch refuses to give back where it was changed meanwhile
        ctx.net, ctx.task = net, task
        return torch.from_numpy(net.logits(x.numpy(), task))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, error: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        dx = ctx.net.run(x.numpy(), error.numpy(), task=ctx.task, loss=UPSTREAM).dx
        return torch.from_numpy(dx), None, None


class _Module(nn.Module):  # type: ignore[misc]
    def __init__(self, net: Network, task: str) -> None:
        super().__init__()
        self.net, self.task = net, task
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # attacks ask a parameter for the device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = getattr(torch, str(self.net.dtype))
        if not isinstance(x, torch.Tensor) or x.dtype != dtype or x.device.type != "cpu":
            kind = f"{x.dtype} on {x.device}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
            raise NnliteError(f"x: expected a tensor of {dtype} on cpu, found {kind}; nets of nnlite run on the host")
        if x.ndim not in (2, 4) or prod(x.shape[1:]) != (self.net.features or prod(x.shape[1:])):
            form = f"rows (N, {self.net.features}), or images (N, channels, height, width) of as many pixels"
            raise NnliteError(f"x: expected {form}, found {tuple(x.shape)}; reshape it")
        rows = x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x  # nnlite has the channels last
        return _Logits.apply(rows, self.net, self.task)


def torch_module(net: Network, task: str = MAIN) -> nn.Module:
    """Return `net` as a module that gives logits (N, C), and whose gradient is nnlite's own backward pass.

    It takes scaled rows (N, D) or images (N, channels, height, width), in the dtype of the net and on the CPU; a net on
    a GPU is copied to the host. NnliteError for a stack, an unknown task, and for what does not fit the net.
    """
    expect_one(net, task)
    return _Module(net.to("cpu"), task).eval()


def sequential(net: Network, task: str = MAIN) -> nn.Sequential:
    """Return the twin of `net` made of torch's own parts, nn.Linear and nn.ReLU, with copies of the weights.

    It takes scaled rows (N, D) in the dtype of the net. NnliteError for other layers, a stack, and an unknown task.
    """
    arrays = {name: torch.tensor(array) for name, array in state_dict(net, task).items()}
    parts = [
        nn.Linear(*layer.W.shape, dtype=getattr(torch, str(net.dtype))) if isinstance(layer, Dense) else nn.ReLU()
        for layer in plain_layers(net, task)
    ]
    twin = nn.Sequential(*parts)
    twin.load_state_dict(arrays)
    return twin
