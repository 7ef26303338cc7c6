"""The layers of a multilayer perceptron, Dense and ReLU, and what a layer of your own must have.

A layer keeps its parameters and nothing else. `forward` maps x to y. The way back is cut in two: `backward` carries the
error dy on to dx, and `gradients` forms the weight gradients. An attack needs only the first. `tangent` says how y
moves when x does. Each is given what the layer saw, x, so two passes over one layer cannot disturb each other.

Shapes: x is (..., N, in) and y (..., N, out), N examples. Leading axes are a stack of models, or absent.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from nnlite.backend import Array, Number, brief, get_xp, per_model
from nnlite.blas import add_product
from nnlite.errors import NnliteError

Parameters: TypeAlias = dict[str, Array]
Gradients: TypeAlias = Iterable[Parameters]  # those of each layer of a network


class Layer(Protocol):
    """What every layer has; `Network` takes any object that has it, and names what is missing.

    A layer with parameters also has

        gradients(x, dy, change=None)    dloss of each parameter, summed over the N rows; with `change`, how that
                                         moves when x moves along `change` and dy stays

    and may have, as Dense does, since a product can be added without being formed,

        add_gradients(into, scale, x, dy, change=None)    adds scale times them to the arrays of `into`, in place

    and only the exact gradient of DataGrad asks for

        tangent(x, change)               how y moves when x moves along `change`
        backward_tangent(x, dy, change)  how dx moves then, while dy stays; not asked for where the layer says
                                         `piecewise_linear = True`: there it is 0 but for kinks

    A layer is never changed, only copied with other parameters.
    """

    @property
    def parameters(self) -> Parameters:
        """The arrays that training changes, each under the name of the attribute that holds it; {} for none."""

    def forward(self, x: Array) -> Array:
        """Return y."""

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dx = dloss/dx, given dy = dloss/dy; linear in dy."""


@dataclass(frozen=True, eq=False)
class Dense:
    """y = x W + b, with W (..., in, out) and b (..., out)."""

    W: Array
    b: Array
    piecewise_linear: ClassVar[bool] = True
    __repr__ = brief()

    def __init_subclass__(cls) -> None:
        """Let gradients of a subclass's own count: then they are what is added."""
        if "gradients" in vars(cls) and "add_gradients" not in vars(cls):
            cls.add_gradients = None  # type: ignore[assignment, method-assign]

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

    def gradients(self, x: Array, dy: Array, change: Array | None = None) -> Parameters:
        """Return dW = x^T dy and db = sum of dy, summed over the N rows; or, with `change`, how they move.

        One example gives dL/dW_ij = x_i dL/dy_j; the product of the matrices sums it over the examples. The bias sees
        a constant 1. When x moves along `change` and dy stays, dW moves by change^T dy, and db does not.
        """
        if change is None:
            return {"W": x.swapaxes(-1, -2) @ dy, "b": dy.sum(axis=-2)}
        return {"W": change.swapaxes(-1, -2) @ dy, "b": get_xp(dy).zeros_like(dy[..., 0, :])}

    def add_gradients(self, into: Parameters, scale: Number, x: Array, dy: Array, change: Array | None = None) -> None:
        """Add scale times `gradients` to the arrays of `into`, in place; dW itself is never formed."""
        add_product(into["W"], scale, (x if change is None else change).swapaxes(-1, -2), dy)
        if change is None:
            into["b"] += per_model(scale, into["b"]) * dy.sum(axis=-2)


@dataclass(frozen=True)
class ReLU:
    """y = max(x, 0), with derivative 0 at x = 0."""

    parameters: ClassVar[Parameters] = {}
    piecewise_linear: ClassVar[bool] = True

    def forward(self, x: Array) -> Array:
        """Return max(x, 0)."""
        xp = get_xp(x)
        return xp.maximum(x, xp.zeros_like(x[..., :1, :]))  # beside a row NumPy is quicker than beside a number

    def backward(self, x: Array, dy: Array) -> Array:
        """Return dy where x > 0, and 0 elsewhere."""
        return dy * (x > 0)

    def tangent(self, x: Array, change: Array) -> Array:
        """Return how y moves when x moves along `change`, away from the kink: change where x > 0, and 0 elsewhere."""
        return change * (x > 0)


def is_piecewise_linear(layer: Layer) -> bool:
    """Return whether a layer says that it is linear but for kinks, as ReLU does."""
    return getattr(layer, "piecewise_linear", False)


def expect_methods(name: str, layer: Layer, *needed: str, why: str = "in a layer") -> None:
    """Raise NnliteError, which names the layer, where it has not all that is `needed`."""
    missing = [one for one in needed if getattr(layer, one, None) is None]
    if missing:
        what = f"{name} ({type(layer).__name__}): expected {' and '.join(missing)} {why}, found none"
        raise NnliteError(f"{what}; nnlite.layers.Layer says what a layer has")


def add_gradients(
    layer: Any, into: Parameters, scale: Number, x: Array, dy: Array, change: Array | None = None
) -> None:
    """Add scale times the gradients of a layer's parameters to the arrays of `into`, in place; scale may be (S,)."""
    if getattr(layer, "add_gradients", None) is not None:
        layer.add_gradients(into, scale, x, dy, change)
        return
    slopes = layer.gradients(x, dy) if change is None else layer.gradients(x, dy, change)
    for name, slope in slopes.items():
        into[name] += per_model(scale, slope) * slope


def with_parameters(layer: Layer, parameters: Parameters) -> Layer:
    """Return a copy of `layer` with other arrays under the names of `parameters`; its other fields are kept."""
    changed = copy.copy(layer)
    for name, array in parameters.items():
        object.__setattr__(changed, name, array)  # the copy is ours, and a frozen dataclass until we give it away
    return changed
