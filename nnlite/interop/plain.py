"""Plain layers: Dense and ReLU alone, on the host, which is what other libraries know as well."""

from collections.abc import Sequence
from typing import cast

from nnlite.errors import NnliteError
from nnlite.layers import Dense, ReLU
from nnlite.network import MAIN, Network
from nnlite.storage.texts import did_you_mean


def plain_layers(net: Network, task: str = MAIN) -> Sequence[Dense | ReLU]:
    """Return the layers from the input to the logits of `task`, on the host.

    NnliteError for a stack, for a layer other than Dense and ReLU, and for a task that the net does not have.
    """
    expect_one(net, task)
    layers = net.to("cpu").chain(task)
    for k, layer in enumerate(layers):
        if type(layer) not in (Dense, ReLU):
            raise NnliteError(f"layer {k} ({type(layer).__name__}): expected Dense and ReLU layers alone to export")
    return cast(Sequence[Dense | ReLU], layers)


def expect_one(net: Network, task: str) -> None:
    """Raise NnliteError where `net` is a stack, or has no head for `task`."""
    if net.stacked:
        raise NnliteError(f"net: expected one net, found a stack of {net.stacked[0]}; take one of nnlite.unstack(net)")
    if task not in (tasks := (MAIN, *net.heads)):
        raise NnliteError(f"task: expected {' or '.join(tasks)}, found {task!r}{did_you_mean(task, tasks)}")
