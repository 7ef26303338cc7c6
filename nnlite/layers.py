"""The two layers of a multilayer perceptron: Dense and ReLU.

A layer keeps its parameters and nothing else. `forward` maps x to y. The way back is cut in two:
`backward` carries the error dy on to dx, and `gradients` forms the weight gradients. An attack needs
only the first. `tangent` says how y moves when x does. All take what the layer saw, x, so two passes over one
layer cannot disturb each other. `backward` is linear in dy and constant in x between kinks: it carries the
change of an error, too.

Shapes: x is (..., N, in) and y (..., N, out), N examples. Leading axes are a stack of models, or absent.
"""

from dataclasses import dataclass
from typing import TypeAlias

from nnlite.backend import Array, get_xp

Parameters: TypeAlias = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Dense:
    """y = x W + b, with W (..., in, out) and b (..., out)."""

    W: Array
    b: Array

    @property
    def parameters(self) -> Parameters:
        """The arrays that training changes, by name."""
        return {"W": self.W, "b": self.b}

    def forward(self, x: Array) -> Array:
        """Return y = x W + b."""
        y: Array = x @ self.W
        y += self.b[..., None, :]  # in place: y is our own, and a step is as slow as the arrays that it makes
        return y

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dx = dy W^T.

        From y_j = sum_i x_i W_ij + b_j follows dL/dx_i = sum_j dL/dy_j W_ij.
        """
        return dy @ self.W.swapaxes(-1, -2)

    def tangent(self, x: Array, change: Array) -> Array:
        """Return how y moves when x moves along `change`: change W."""
        return change @ self.W

    def gradients(self, x: Array, dy: Array, tangents: int = 0) -> Parameters:
        """Return dW = x^T dy and db = sum of dy, summed over the N rows.

        One example gives dL/dW_ij = x_i dL/dy_j; the product of the matrices sums it over the examples. The
        bias sees a constant 1. In the last `tangents` rows x is a change, and the 1 does not change: they add
        nothing to db.
        """
        values = dy.shape[-2] - tangents
        return {"W": x.swapaxes(-1, -2) @ dy, "b": dy[..., :values, :].sum(axis=-2)}


@dataclass(frozen=True, eq=False)
class ReLU:
    """y = max(x, 0), with derivative 0 at x = 0."""

    @property
    def parameters(self) -> Parameters:
        """None: a ReLU has nothing to train."""
        return {}

    def forward(self, x: Array) -> Array:
        """Return max(x, 0)."""
        xp = get_xp(x)
        y: Array = xp.maximum(x, xp.zeros_like(x[..., :1, :]))  # beside a row NumPy is quicker than beside a number
        return y

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dy where x > 0, and 0 elsewhere."""
        return dy * (x > 0)

    def tangent(self, x: Array, change: Array) -> Array:
        """Return how y moves when x moves along `change`, away from the kink: change where x > 0, and 0 elsewhere."""
        return change * (x > 0)


Layer: TypeAlias = Dense | ReLU
