"""How far work on a net has come, told by how often the net was run forward.

An attack works on a whole block of images at once, for a second or for minutes, and says nothing meanwhile. So it is
given a net that counts.
"""

import math
from collections.abc import Callable, Sequence
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


class BlockProgress:
    """Tells how many images an attack has done, the share of a block that is under way included.

    It is the `on_progress` of evaluate_attack. The share is that of the passes which the block before took, or for the
    first block of the most that the attack can take.

    Arguments:
        net: Crafts the noise.
        attack: How.
        sizes: At how many phi.
        block: How many images are attacked at a time.
        on_progress: Called with the number of images that are done, which may be a fraction, and of all.
    """

    def __init__(
        self, net: Network, attack: Attack, sizes: int, block: int, on_progress: Callable[[float, int], None]
    ) -> None:
        self.net = counted(net, self._on_pass)  # the one that the attack is to use
        self._block, self._on_progress = block, on_progress
        self._most, self._passes = most_passes(attack, sizes, net.sizes[-1]), 0
        self._done, self._total = 0, 0

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` images are done."""
        if done > self._done:
            self._most = max(self._passes, 1)
        self._done, self._total, self._passes = done, total, 0
        self._on_progress(done, total)

    def _on_pass(self) -> None:
        self._passes += 1
        share = min(1.0, self._passes / self._most)
        self._on_progress(self._done + share * min(self._block, self._total - self._done), self._total)


def most_passes(attack: Attack, sizes: int, classes: int) -> int:
    """Return the most passes that an attack takes over a block at `sizes` phi, as its own numbers say; at least 1."""
    told: dict[str, Any] = {**getattr(attack, "__dict__", {}), **getattr(attack, "parameters", {})}
    starts, losses = told.get("restarts") or 1, told.get("losses", ())
    if "targets" in losses:  # of APGD: one start for each wrong class
        starts = classes - 1 + starts * (losses != ("targets",))
    return max(1, sizes * starts * math.prod(told[name] for name in FACTORS if told.get(name)))
