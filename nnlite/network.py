"""The network, and the Pass: one forward and one backward run of it, kept as a value.

A network is a chain of layers. `run` returns a Pass and leaves nothing behind, so DataGrad can hold two passes over the
same weights side by side. A weight gradient is a sum of products, one for each pass of a weighted list and each layer.

A Tangent is the derivative of a Pass along a direction of the input, by Pearlmutter's R-operator. It has the same
shape, activations and errors, and stands in the same list.

For several tasks a network has heads beside its last layer: each takes the place of that last layer on the common
trunk. Passes of several heads at one point share their forward run, and their errors add up in the trunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from nnlite.backend import Array, Number, brief, get_xp, per_model, to_device
from nnlite.errors import NnliteError
from nnlite.init import he_normal
from nnlite.inputs import check_images
from nnlite.layers import (
    Dense,
    Layer,
    Parameters,
    ReLU,
    add_gradients,
    expect_methods,
    is_piecewise_linear,
    with_parameters,
)
from nnlite.losses import Loss, softmax_cross_entropy

MAIN = "digit"  # the task of the last layer of the chain

Labels: TypeAlias = Array | Mapping[str, Array]  # those of the main task, or one array for each task


@dataclass(frozen=True, eq=False)
class Activations:
    """One forward run up to the last layer: what each layer sees, (..., N, width), the images x first.

    Passes of several heads at one point hold the same one, and so share its rows in a gradient.
    """

    inputs: tuple[Array, ...]
    __repr__ = brief()


@dataclass(frozen=True, eq=False, kw_only=True)
class Backprop:
    """What came back through a network: the error at each layer's output, and at its input where it was asked for.

    Arguments:
        deltas: One array for each layer, (..., N, width), leading axes for a stack of models. With what the layer saw,
            it makes the weight gradient.
        input_gradient: The error carried on to x, or None; see `dx`.
    """

    deltas: tuple[Array, ...]
    input_gradient: Array | None

    @property
    def dx(self) -> Array:
        """The error at the input, (..., N, D); NnliteError where it was not asked for."""
        if self.input_gradient is None:
            raise NnliteError("dx: this was made with input_gradient=False; make it with input_gradient=True")
        return self.input_gradient


@dataclass(frozen=True, eq=False, kw_only=True)
class Pass(Backprop):
    """What one run of a network computed at one point; `dx` is J of the paper, each example's own dloss/dx.

    Arguments:
        task: Whose loss it is.
        activations: What each layer saw, which may be shared with passes of other tasks.
        labels: What the loss was taken against, (..., N).
        loss_function: The loss.
        logits: (..., N, C).
        loss: (..., N), one for each of N examples.
    """

    task: str
    activations: Activations
    labels: Array
    loss_function: Loss
    logits: Array
    loss: Array
    __repr__ = brief("task", "loss", "logits", "inputs", "deltas", "input_gradient")

    @property
    def inputs(self) -> tuple[Array, ...]:
        """What each layer saw, (..., N, width)."""
        return self.activations.inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Tangent(Backprop):
    """How the pass `of` changes, to first order, when its input moves along a direction (Pearlmutter 1994).

    inputs and deltas are changes of the pass's own, the first input the direction itself; `dx` is the change of
    dloss/dx: the loss's Hessian in x times the direction.
    """

    of: Pass
    inputs: tuple[Array, ...]
    __repr__ = brief("inputs", "deltas", "input_gradient", "of")


Weighted: TypeAlias = tuple[Number, Pass | Tangent]


class Summand(NamedTuple):
    """One product of a weight gradient: scale x^T dy, or how that moves with x along `change`, scale change^T dy.

    scale is a number, or one for each model, (S,); the arrays are (..., N, width).
    """

    scale: Number
    x: Array
    dy: Array
    change: Array | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers that ends in a Dense layer, its logits, and heads that may take the place of that last layer.

    Arguments:
        layers: Dense, ReLU, or layers of your own, see `nnlite.layers.Layer`.
        heads: Further last layers, by the name of their task.

    NnliteError names a layer that lacks a method, or whose shape does not fit.
    """

    layers: tuple[Layer, ...]
    heads: Mapping[str, Dense] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers or not all(isinstance(layer, Dense) for layer in (self.layers[-1], *self.heads.values())):
            raise NnliteError("layers: expected a Dense layer at the end, and as each head: it gives the logits")
        seen, width = None, None
        for name, layer in zip(self.layer_names, self.layers, strict=False):
            seen, width = width, _width_after(name, layer, width)
        for task, head in self.heads.items():
            _width_after(f"head {task}", head, seen)

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers of the chain, then the heads."""
        return (*self.layers, *self.heads.values())

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What messages call each of all_layers: layer 0 and so on, then head rotation."""
        return (*(f"layer {k}" for k in range(len(self.layers))), *(f"head {task}" for task in self.heads))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths from the input to the logits, such as (784, 784, 784, 784, 10)."""
        dense = [layer for layer in self.layers if isinstance(layer, Dense)]
        return (dense[0].W.shape[-2], *(layer.W.shape[-1] for layer in dense))

    @property
    def stacked(self) -> tuple[int, ...]:
        """The leading axis of a stack of S nets, (S,), or () for one net."""
        return cast(Dense, self.layers[-1]).W.shape[:-2]

    @property
    def features(self) -> int | None:
        """How wide the inputs are, D; None where only a layer of your own knows."""
        first = self.layers[0]
        return first.W.shape[-2] if isinstance(first, Dense) else None

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The type of the weights: float32 to train, float64 to check."""
        return cast(Dense, self.layers[-1]).W.dtype

    def __repr__(self) -> str:
        heads = "".join(f", {task} {head.W.shape[-1]}" for task, head in self.heads.items())
        return f"Network({'-'.join(map(str, self.sizes))}{heads}, {self.dtype})"

    def chain(self, task: str = MAIN) -> tuple[Layer, ...]:
        """Return the layers from the input to the logits of `task`."""
        return self.layers if task == MAIN else (*self.layers[:-1], self.heads[task])

    def forward(self, x: Array) -> Activations:
        """Return what each layer of the chain sees at x (..., N, D); what the last one sees, every head sees."""
        inputs = [get_xp(x).ascontiguousarray(x)]  # in another layout BLAS adds in another order
        for layer in self.layers[:-1]:
            inputs.append(layer.forward(inputs[-1]))
        return Activations(tuple(inputs))

    def logits(self, x: Array, task: str = MAIN) -> Array:
        """Return the logits (..., N, C) of `task` at x (..., N, D); NnliteError where x does not fit."""
        check_images(x, self.features)
        return self.chain(task)[-1].forward(self.forward(x).inputs[-1])

    def check_labels(self, x: Array, y: Array, task: str = MAIN, loss: Loss = softmax_cross_entropy) -> None:
        """Raise NnliteError where the loss of a task cannot be taken against y at the images x (..., N, D)."""
        if not isinstance(loss, Loss):
            raise NnliteError(f"loss: expected a Loss, found {loss!r}; make it one: Loss(name, function, tangent)")
        if loss.check is not None:
            classes = cast(Dense, self.chain(task)[-1]).W.shape[-1]
            loss.check(y, (*(self.stacked or x.shape[:-2]), x.shape[-2]), classes)

    def predict(self, x: Array) -> Array:
        """Return the predicted class of each example, (..., N)."""
        return self.logits(x).argmax(axis=-1)

    def run(
        self, x: Array, y: Array, *, task: str = MAIN, loss: Loss = softmax_cross_entropy, input_gradient: bool = True
    ) -> Pass:
        """Run forward at x (..., N, D), and backward from the loss against y (..., N) to the inputs; see `backward`.

        NnliteError where x or y does not fit.
        """
        check_images(x, self.features)
        self.check_labels(x, y, task, loss)
        return self.backward(self.forward(x), y, task, loss, input_gradient)

    def backward(
        self,
        activations: Activations,
        y: Array,
        task: str = MAIN,
        loss: Loss = softmax_cross_entropy,
        input_gradient: bool = True,
    ) -> Pass:
        """Run from what each layer saw to the loss of a task, and back to the inputs; y is not looked at again.

        Arguments:
            activations: What `forward` returned.
            y: Labels (N,) or (..., N), or what else the loss is taken against.
            task: MAIN, or the name of a head.
            loss: Its value and its derivative at the logits.
            input_gradient: False saves the last product, from the first layer to x; then there is no dx.
        """
        chain, inputs = self.chain(task), activations.inputs
        logits = chain[-1].forward(inputs[-1])
        values, dlogits = loss.function(logits, y)
        deltas = [dlogits]
        for layer, seen in zip(chain[:0:-1], inputs[:0:-1], strict=True):
            deltas.append(layer.backward(seen, deltas[-1]))
        dx = chain[0].backward(inputs[0], deltas[-1]) if input_gradient else None
        return Pass(
            task=task,
            activations=activations,
            labels=y,
            loss_function=loss,
            logits=logits,
            loss=values,
            deltas=tuple(deltas[::-1]),
            input_gradient=dx,
        )

    def tangent(self, of: Pass, direction: Array, *, input_gradient: bool = False) -> Tangent:
        """Return the derivative of the pass `of` when its input moves along `direction` (..., N, D), as Eq. 3 takes it.

        Forward the changes of the activations, back the changes of the errors: the matrix products of one more pass.
        NnliteError for a loss, or a layer, whose second derivative is not known.
        """
        chain: Sequence[Any] = self.chain(of.task)
        for name, layer in zip(self.layer_names, chain, strict=False):
            needed = ["tangent"] if is_piecewise_linear(layer) else ["tangent", "backward_tangent"]
            expect_methods(name, layer, *needed, why="for the exact gradient")
        loss = of.loss_function
        if loss.tangent is None:
            raise NnliteError(f"loss: {loss!r} has no tangent for the exact gradient; give it one, or a step phi")
        changes = [direction]
        for layer, seen in zip(chain, of.inputs, strict=True):
            changes.append(layer.tangent(seen, changes[-1]))
        deltas = [loss.tangent(of.logits, of.labels, changes.pop())]
        steps = [*zip(chain, of.inputs, of.deltas, changes, strict=True)]
        for step in steps[:0:-1]:
            deltas.append(_backward_tangent(*step, deltas[-1]))
        dx = _backward_tangent(*steps[0], deltas[-1]) if input_gradient else None
        return Tangent(of=of, inputs=tuple(changes), deltas=tuple(deltas[::-1]), input_gradient=dx)

    def summands(self, weighted: Sequence[Weighted]) -> Iterator[list[Summand]]:
        """Yield the products that make up sum_k c_k * (batch mean of the weight gradient of pass k), for each layer.

        As lists, one for each of all_layers; a layer without parameters, and a head without a pass, has none.

        `weighted` holds pairs (c_k, pass), all of one N; c_k is a number, or one for each model of a stack, (S,). A
        tangent stands for the derivative of its pass's weight gradient along its direction. A pass of weight 0 is left
        out. Each point costs a layer one product, and each tangent one more.
        """
        terms = [(c, p) for c, p in weighted if not (isinstance(c, (int, float)) and c == 0)] or weighted[:1]
        for k, layer in enumerate(self.layers[:-1]):
            yield [*_summands(k, terms)] if layer.parameters else []
        for task in (MAIN, *self.heads):
            yield [*_summands(-1, [(c, p) for c, p in terms if _pass_of(p).task == task])]

    def gradients(self, weighted: Sequence[Weighted]) -> Iterator[Parameters]:
        """Yield the sum of each list of `summands`: a layer's gradients by the names of its parameters; {} for none.

        One layer at a time: those of a whole net, as large as the net, need never stand side by side.
        """
        for layer, summands in zip(self.all_layers, self.summands(weighted), strict=True):
            total = {name: get_xp(array).zeros_like(array) for name, array in layer.parameters.items() if summands}
            for one in summands:
                add_gradients(layer, total, *one)
            yield total

    def rebuild(self, all_layers: Sequence[Layer]) -> "Network":
        """Return a network of the same form made of other layers, in the order of `all_layers`."""
        count = len(self.layers)
        heads: Any = dict(zip(self.heads, all_layers[count:], strict=True))
        return Network(tuple(all_layers[:count]), heads)

    def map(self, change: Callable[[Array], Array]) -> "Network":
        """Return a network with every parameter array replaced by `change(array)`."""
        changed = [{name: change(array) for name, array in layer.parameters.items()} for layer in self.all_layers]
        return self.rebuild(list(map(with_parameters, self.all_layers, changed)))

    def to(self, device: str) -> "Network":
        """Return the network on `device` ("cpu" or "gpu"); arrays already there are shared, not copied."""
        return self.map(lambda array: to_device(array, device))

    def astype(self, dtype: npt.DTypeLike) -> "Network":
        """Return a copy of the network in `dtype`, such as float64 to check what float32 gave."""
        return self.map(lambda array: array.astype(dtype))

    def copy(self) -> "Network":
        """Return a network with arrays of its own."""
        return self.map(lambda array: array.copy())


def mlp(
    sizes: Sequence[int], rng: Generator, dtype: npt.DTypeLike = np.float32, *, heads: Mapping[str, int] | None = None
) -> Network:
    """Return a net of Dense layers with ReLU between them, weights by He (2015), biases 0.

    sizes: the widths from the input to the logits; the paper's net is (784, 784, 784, 784, 10).
    heads: the number of classes of each further task, {"rotation": 5} in the paper.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise NnliteError(f"sizes: expected two or more widths of at least 1, found {tuple(sizes)}")
    if min(sizes[-1], *(heads or {}).values(), sizes[-1]) < 2:
        raise NnliteError(f"sizes: expected two or more classes, found {tuple(sizes)}, heads {dict(heads or {})}")
    if np.dtype(dtype).kind != "f":
        raise NnliteError(f"dtype: expected a float, found {np.dtype(dtype)}; take float32, or float64 to check")

    def dense(fan_in: int, fan_out: int) -> Dense:
        return Dense(he_normal(rng, fan_in, fan_out, dtype), np.zeros(fan_out, dtype))

    layers = [layer for pair in pairwise(sizes) for layer in (dense(*pair), ReLU())]
    return Network(tuple(layers[:-1]), {task: dense(sizes[-2], classes) for task, classes in (heads or {}).items()})


def stack(nets: Sequence[Network]) -> Network:
    """Return one net that runs `nets`, alike but for their weights, side by side: each array gains a leading axis."""
    if len({repr(net) for net in nets}) != 1:
        raise NnliteError(f"stack: expected nets of equal sizes, found {sorted({repr(net) for net in nets})}")
    together = zip(*(net.all_layers for net in nets), strict=True)
    return nets[0].rebuild([_stacked(group) for group in together])


def unstack(net: Network) -> list[Network]:
    """Return the nets of a stack, which share its arrays; or the one net that is none."""
    return [net.map(itemgetter(k)) for k in range(*net.stacked)] if net.stacked else [net]


def _stacked(layers: Sequence[Layer]) -> Layer:
    """Return the first of `layers` with the arrays of all; NnliteError where they differ in more than their arrays."""
    first = layers[0]
    for layer in layers:
        kept = (name for name in vars(first) if name not in first.parameters)
        same = (np.array_equal(vars(layer)[name], vars(first)[name]) for name in kept)
        if type(layer) is not type(first) or not all(same):
            raise NnliteError(f"stack: expected layers that differ in their arrays only, found {first!r} and {layer!r}")
    arrays = {name: [layer.parameters[name] for layer in layers] for name in first.parameters}
    return with_parameters(first, {name: get_xp(*some).stack(some) for name, some in arrays.items()})


def _width_after(name: str, layer: Layer, width: int | None) -> int | None:
    """Return how wide the output of a layer is that sees `width`; None where only the layer knows.

    NnliteError where the layer lacks what `Layer` describes, or its shape does not fit.
    """
    expect_methods(name, layer, "parameters", "forward", "backward")
    if not isinstance(layer, Dense):
        expect_methods(name, layer, *(["gradients", *layer.parameters] if layer.parameters else []))
        return None if layer.parameters else width
    W, b = layer.W.shape, layer.b.shape
    if len(W) not in (2, 3) or b != (*W[:-2], W[-1]) or width not in (None, W[-2]):
        form = f"W ({width or 'in'}, out) and b (out,), or stacks (S, ...) of both"
        raise NnliteError(f"{name}: expected {form}, found {W} and {b}")
    return int(W[-1])


def _pass_of(p: Pass | Tangent) -> Pass:
    return p.of if isinstance(p, Tangent) else p


def _backward_tangent(layer: Any, x: Array, dy: Array, change: Array, dy_change: Array) -> Array:
    """Return how layer.backward(x, dy) moves when x moves along `change` and dy along `dy_change`."""
    moved: Array = layer.backward(x, dy_change)
    return moved if is_piecewise_linear(layer) else moved + layer.backward_tangent(x, dy, change)


def _summands(k: int, terms: Sequence[Weighted]) -> Iterator[Summand]:
    """Yield the products of the gradient of the k-th layer of a chain.

    Passes that share a point share its product: their errors are added up. The product rule gives a tangent two parts,
    that of x and the change of dy, which is shared so, and that of the change of x and dy.
    """
    errors: dict[Activations, list[tuple[Number, Array]]] = {}
    for c, p in terms:
        errors.setdefault(_pass_of(p).activations, []).append((c / p.deltas[k].shape[-2], p.deltas[k]))
    for seen, [(scale, dy), *others] in errors.items():
        if others:
            scale, dy = 1.0, per_model(scale, dy) * dy
        for share, other in others:
            dy = dy + per_model(share, other) * other
        yield Summand(scale, seen.inputs[k], dy)
    for c, p in terms:
        if isinstance(p, Tangent):
            yield Summand(c / p.deltas[k].shape[-2], p.of.inputs[k], p.of.deltas[k], p.inputs[k])
