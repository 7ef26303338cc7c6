"""The matrix products of some work, which it cannot do without: their time alone is a floor for its time."""

from dataclasses import dataclass
from typing import TypeAlias

from numpy.random import Generator

from nnlite.backend import Array, Number, get_xp
from nnlite.datagrad import weighted_passes
from nnlite.layers import Dense, Parameters
from nnlite.network import Labels, Network
from nnlite.training.settings import Settings

Matmul: TypeAlias = tuple[Array, Array, Array]  # a, b and the array that holds a @ b


@dataclass(frozen=True, eq=False)
class RecordingDense(Dense):
    """A Dense layer that appends the two factors of each matrix product that it forms to `factors`."""

    factors: list[tuple[Array, Array]]

    def forward(self, x: Array) -> Array:
        """Return x W + b."""
        self.factors.append((x, self.W))
        return super().forward(x)

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dy W^T."""
        self.factors.append((dy, self.W.swapaxes(-1, -2)))
        return super().backward(x, dy)

    def tangent(self, x: Array, change: Array) -> Array:
        """Return change W."""
        self.factors.append((change, self.W))
        return super().tangent(x, change)

    def add_gradients(self, into: Parameters, scale: Number, x: Array, dy: Array, change: Array | None = None) -> None:
        """Add scale times dW and db, or how they move."""
        self.factors.append(((x if change is None else change).swapaxes(-1, -2), dy))
        super().add_gradients(into, scale, x, dy, change)


def multiply(matmuls: list[Matmul]) -> None:
    """Form each product again, into the array that holds it."""
    for a, b, out in matmuls:
        get_xp(a).matmul(a, b, out=out)


def step_matmuls(net: Network, x: Array, y: Labels, settings: Settings, rng: Generator | None = None) -> list[Matmul]:
    """Return the matrix products of one step at x (N, D), those of a search for noise included."""
    recording, factors = _recording(net)
    passes = weighted_passes(recording, x, y, settings.terms, gamma=settings.auxiliary_losses, rng=rng)
    list(recording.gradients(passes))
    return [(a, b, a @ b) for a, b in factors]


def attack_matmuls(net: Network, x: Array, y: Array, steps: int) -> list[Matmul]:
    """Return the matrix products of PGD: `steps` times forward and back to x (N, D), and forward once at the end."""
    recording, factors = _recording(net)
    recording.run(x, y)
    once = [(a, b, a @ b) for a, b in factors]
    return once * steps + once[: len(once) // 2]


def _recording(net: Network) -> tuple[Network, list[tuple[Array, Array]]]:
    """Return the net with Dense layers that record, and the list that they append to."""
    factors: list[tuple[Array, Array]] = []
    layers = [
        RecordingDense(layer.W, layer.b, factors) if isinstance(layer, Dense) else layer for layer in net.all_layers
    ]
    return net.rebuild(layers), factors
