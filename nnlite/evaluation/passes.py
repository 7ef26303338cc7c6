"""How far work on a net has come, told by how often the net was run forward.

An attack works on a whole block of images at once, for a second or for minutes, and says nothing meanwhile. So it is
given a net that counts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nnlite.attacks import Attack
from nnlite.backend import Array
from nnlite.layers import Layer
from nnlite.network import Activations, Network

FACTORS = ("steps", "tries", "queries", "searches", "iterations")  # each as many passes, for each start


@dataclass(frozen=True, eq=False, repr=False)
class CountedNetwork(Network):
    """A network that calls `on_pass` after each forward run, and so do those that are made of it."""

    on_pass: Callable[[], None] = lambda: None

    def forward(self, x: Array) -> Activations:
        """Return what each layer of the chain sees at x (..., N, D)."""
        seen = super().forward(x)
        self.on_pass()
        return seen

    def rebuild(self, all_layers: Sequence[Layer]) -> "CountedNetwork":
        """Return a network of the same form made of other layers."""
        made = super().rebuild(all_layers)
        return CountedNetwork(made.layers, made.heads, self.on_pass)


def counted(net: Network, on_pass: Callable[[], None]) -> CountedNetwork:
    """Return `net`, which shares its arrays, such that it calls `on_pass` after each forward run."""
    return CountedNetwork(net.layers, net.heads, on_pass)


class Passes:
    """How many passes each block of images takes: the most that an attack can take, then what the block before took.

    most: That of the first block.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    @contextmanager
    def counted(self, net: Network, on_share: Callable[[float], None]) -> Iterator[CountedNetwork]:
        """Return a net to craft one block with, which tells `on_share` the share of its passes after each of them."""
        passes, most = 0, self._most

        def on_pass() -> None:
            nonlocal passes
            passes += 1
            on_share(min(1.0, passes / most))

        yield counted(net, on_pass)
        self._most = max(passes, 1)


def most_passes(attack: Attack, sizes: int, classes: int) -> int:
    """Return the most passes that an attack takes over a block at `sizes` phi, as its own numbers say; at least 1."""
    told: dict[str, Any] = {**getattr(attack, "__dict__", {}), **getattr(attack, "parameters", {})}
    starts, losses = told.get("restarts") or 1, told.get("losses", ())
    if "targets" in losses:  # of APGD: one start for each wrong class
        starts = classes - 1 + starts * (losses != ("targets",))
    return max(1, sizes * starts * math.prod(told[name] for name in FACTORS if told.get(name)))
