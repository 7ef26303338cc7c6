"""The network, and the Pass: one forward and one backward run of it, kept as a value.

A network is a chain of layers. `run` returns a Pass and leaves nothing behind, so DataGrad can hold
two passes over the same weights side by side. Weight gradients are formed from a weighted list of
passes, in one matrix product for each layer, however many passes there are.

A Tangent is the derivative of a Pass along a direction of the input, by Pearlmutter's R-operator. It has the same
shape, activations and errors, and stands in the same list.

For several tasks a network carries heads beside its last layer: each takes the place of that last layer
on the common trunk. Passes of several heads at one point share their forward run, and their errors add
up in the trunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, get_xp, per_model, to_device
from nnlite.errors import NnliteError
from nnlite.init import he_normal
from nnlite.layers import Dense, Layer, Parameters, ReLU
from nnlite.losses import Loss, softmax_cross_entropy, softmax_tangent

MAIN = "digit"  # the task of the last layer of the chain

Labels: TypeAlias = Array | Mapping[str, Array]  # those of the main task, or one array for each task


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs:
    """For each layer, what it saw and the error at its output: the two that make a weight gradient.

    inputs, deltas: one array for each layer, (..., N, width), leading axes for a stack of models. input_gradient: the
    error carried on to x, or None where it was not asked for.
    """

    inputs: tuple[Array, ...]
    deltas: tuple[Array, ...]
    input_gradient: Array | None

    @property
    def dx(self) -> Array:
        """The error at the input, (..., N, D); NnliteError where it was not asked for."""
        if self.input_gradient is None:
            raise NnliteError("dx: this was made with input_gradient=False; make it with input_gradient=True")
        return self.input_gradient


@dataclass(frozen=True, eq=False, kw_only=True)
class Pass(Pairs):
    """What one run of a network computed at one point; `dx` is each example's own dloss/dx.

    task: whose loss it is. logits: (..., N, C); loss: (..., N), one for each of N examples.
    """

    task: str
    logits: Array
    loss: Array

    @property
    def of(self) -> "Pass":
        """The pass itself, as a tangent has the pass that it is of."""
        return self


@dataclass(frozen=True, eq=False, kw_only=True)
class Tangent(Pairs):
    """How the pass `of` changes, to first order, when its input moves along a direction (Pearlmutter 1994).

    inputs and deltas are changes, the first input the direction itself; `dx` is the change of dloss/dx: the loss's
    Hessian in x times the direction.
    """

    of: Pass


Weighted: TypeAlias = tuple[float | Array, Pass | Tangent]


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers that ends in logits, and further heads that may take the place of its last layer."""

    layers: tuple[Layer, ...]
    heads: Mapping[str, Dense] = field(default_factory=dict)

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers of the chain, then the further heads."""
        return (*self.layers, *self.heads.values())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths from the input to the logits, such as (784, 784, 784, 784, 10)."""
        dense = [layer for layer in self.layers if isinstance(layer, Dense)]
        return (dense[0].W.shape[-2], *(layer.W.shape[-1] for layer in dense))

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The type of the weights: float32 to train, float64 to check."""
        return next(array.dtype for layer in self.layers for array in layer.parameters.values())

    def __repr__(self) -> str:
        heads = "".join(f", {task} {head.W.shape[-1]}" for task, head in self.heads.items())
        return f"Network({'-'.join(map(str, self.sizes))}{heads}, {self.dtype})"

    def chain(self, task: str = MAIN) -> tuple[Layer, ...]:
        """Return the layers from the input to the logits of `task`."""
        return self.layers if task == MAIN else (*self.layers[:-1], self.heads[task])

    def forward(self, x: Array) -> tuple[Array, ...]:
        """Return what each layer of the chain sees at x (..., N, D); the last one is what every head sees."""
        inputs = [x]
        for layer in self.layers[:-1]:
            inputs.append(layer.forward(inputs[-1]))
        return tuple(inputs)

    def logits(self, x: Array, task: str = MAIN) -> Array:
        """Return the logits (..., N, C) of `task` at x (..., N, D)."""
        return self.chain(task)[-1].forward(self.forward(x)[-1])

    def predict(self, x: Array) -> Array:
        """Return the predicted class of each example, (..., N)."""
        predicted: Array = self.logits(x).argmax(axis=-1)
        return predicted

    def run(
        self, x: Array, y: Array, *, task: str = MAIN, loss: Loss = softmax_cross_entropy, input_gradient: bool = True
    ) -> Pass:
        """Run forward at x (..., N, D), and backward from the loss against y (..., N) down to the inputs."""
        return self.backward(self.forward(x), y, task=task, loss=loss, input_gradient=input_gradient)

    def backward(
        self,
        inputs: tuple[Array, ...],
        y: Array,
        *,
        task: str = MAIN,
        loss: Loss = softmax_cross_entropy,
        input_gradient: bool = True,
    ) -> Pass:
        """Run from what each layer saw, `inputs` of `forward`, to the loss of `task`, and back to the inputs.

        Without `input_gradient` the last product, from the first layer to x, is saved and dx is not there.
        """
        chain = self.chain(task)
        logits = chain[-1].forward(inputs[-1])
        values, dlogits = loss(logits, y)
        deltas, dx = _carry_back(chain, inputs, dlogits, input_gradient)
        return Pass(task=task, logits=logits, loss=values, inputs=inputs, deltas=deltas, input_gradient=dx)

    def tangent(self, of: Pass, direction: Array, *, input_gradient: bool = False) -> Tangent:
        """Return the derivative of the pass `of` when its input moves along `direction` (..., N, D).

        Forward the changes of the activations, back the changes of the errors: the matrix products of one more
        pass. For the losses of nnlite.losses.
        """
        chain = self.chain(of.task)
        inputs = [direction]
        for layer, seen in zip(chain[:-1], of.inputs[:-1], strict=True):
            inputs.append(layer.tangent(seen, inputs[-1]))
        dlogits = softmax_tangent(of.logits, chain[-1].tangent(of.inputs[-1], inputs[-1]))
        deltas, dx = _carry_back(chain, of.inputs, dlogits, input_gradient)
        return Tangent(of=of, inputs=tuple(inputs), deltas=deltas, input_gradient=dx)

    def gradients(self, weighted: Sequence[Weighted]) -> Iterator[Parameters]:
        """Yield sum_k c_k * (batch mean of the weight gradient of pass k), one dict for each of all_layers.

        One at a time: a step may change a layer before the gradient of the next one is formed, and the gradients of a
        whole net, as large as the net, never stand side by side.

        `weighted` holds pairs (c_k, pass); c_k is a number, or one for each model of a stack, (S,). A tangent
        stands for the derivative of its pass's weight gradient along its direction.
        All passes have the same N. A pass of weight 0 is left out. The rows of the passes are stacked,
        [x; x_hat]^T [c0 delta; c1 delta_hat], so each layer costs one product; passes that share their
        forward run share their rows, and so does a tangent with its pass. A head without a pass has no gradients.
        """
        terms = [(c, p) for c, p in weighted if not (isinstance(c, (int, float)) and c == 0)] or weighted[:1]
        for k, layer in enumerate(self.layers[:-1]):
            yield _gradient(layer, k, terms)
        for task in (MAIN, *self.heads):
            own = [(c, p) for c, p in terms if p.of.task == task]
            yield _gradient(self.chain(task)[-1], -1, own) if own else {}

    def rebuild(self, all_layers: Sequence[Layer]) -> "Network":
        """Return a network of the same form made of other layers, in the order of `all_layers`."""
        count = len(self.layers)
        heads = [head for head in all_layers[count:] if isinstance(head, Dense)]
        return Network(tuple(all_layers[:count]), dict(zip(self.heads, heads, strict=True)))

    def map(self, change: Callable[[Array], Array]) -> "Network":
        """Return a network with every parameter array replaced by `change(array)`."""
        return self.rebuild(
            [
                type(layer)(**{name: change(array) for name, array in layer.parameters.items()})
                for layer in self.all_layers
            ]
        )

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
    sizes: Sequence[int],
    rng: np.random.Generator,
    dtype: npt.DTypeLike = np.float32,
    *,
    heads: Mapping[str, int] | None = None,
) -> Network:
    """Return a net of Dense layers with ReLU between them, weights by He (2015), biases 0.

    sizes: the widths from the input to the logits; the paper's net is (784, 784, 784, 784, 10).
    heads: the number of classes of each further task, {"rotation": 5} in the paper.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise NnliteError(f"sizes: expected two or more widths of at least 1, found {tuple(sizes)}")

    def dense(fan_in: int, fan_out: int) -> Dense:
        return Dense(he_normal(rng, fan_in, fan_out, dtype), np.zeros(fan_out, dtype))

    layers: list[Layer] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [dense(fan_in, fan_out), ReLU()]
    further = {task: dense(sizes[-2], classes) for task, classes in (heads or {}).items()}
    return Network(tuple(layers[:-1]), further)


def stack(nets: Sequence[Network]) -> Network:
    """Return one net that runs `nets`, of equal sizes, side by side: each array gains a leading axis (S, ...)."""
    if len({repr(net) for net in nets}) != 1:
        raise NnliteError(f"stack: expected nets of equal sizes, found {sorted({repr(net) for net in nets})}")
    together = zip(*(net.all_layers for net in nets), strict=True)
    return nets[0].rebuild([type(group[0])(**_stacked(group)) for group in together])


def unstack(net: Network) -> list[Network]:
    """Return the nets of a stack, which share its arrays; or the one net that is none."""
    weights = next(array for layer in net.layers for array in layer.parameters.values())
    if weights.ndim == 2:
        return [net]
    return [net.map(lambda array, k=k: array[k]) for k in range(len(weights))]  # type: ignore[misc]


def _stacked(group: tuple[Layer, ...]) -> Parameters:
    return {
        name: get_xp(array).stack([layer.parameters[name] for layer in group])
        for name, array in group[0].parameters.items()
    }


def _carry_back(
    chain: Sequence[Layer], inputs: Sequence[Array], dlogits: Array, input_gradient: bool
) -> tuple[tuple[Array, ...], Array | None]:
    """Return the error at each layer's output, given that at the logits and what each layer saw, and dx or None."""
    deltas = [dlogits]
    for layer, seen in zip(chain[:0:-1], inputs[:0:-1], strict=True):
        deltas.append(layer.backward(seen, deltas[-1]))
    deltas.reverse()
    return tuple(deltas), chain[0].backward(inputs[0], deltas[0]) if input_gradient else None


def _gradient(layer: Layer, k: int, terms: Sequence[Weighted]) -> Parameters:
    """Return the weighted gradient of `layer`, the k-th of its chain; passes that saw the same array share its rows.

    A pass gives the pair (x, dy). The product rule turns it into two for its tangent: (x, change of dy), which shares
    the rows of the pass, and (change of x, dy).
    """
    if isinstance(layer, ReLU):
        return {}
    examples = terms[0][1].of.loss.shape[-1]
    values: dict[int, tuple[Array, Array]] = {}
    changes: dict[int, tuple[Array, Array]] = {}

    def add(blocks: dict[int, tuple[Array, Array]], c: float | Array, x: Array, dy: Array) -> None:
        error = per_model(c / examples, dy) * dy
        blocks[id(x)] = (x, blocks[id(x)][1] + error if id(x) in blocks else error)

    for c, p in terms:
        add(values, c, p.of.inputs[k], p.deltas[k])
        if isinstance(p, Tangent):
            add(changes, c, p.inputs[k], p.of.deltas[k])
    x, dy = zip(*values.values(), *changes.values(), strict=True)
    return layer.gradients(_rows(x), _rows(dy), tangents=examples * len(changes))


def _rows(blocks: Sequence[Array]) -> Array:
    """Stack the rows, axis -2, of blocks that may differ in whether they carry a leading axis of models."""
    if len(blocks) == 1:
        return blocks[0]
    xp = get_xp(*blocks)
    stacked: Array = xp.concatenate(xp.broadcast_arrays(*blocks), axis=-2)
    return stacked
