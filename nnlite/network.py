"""The network, and the Pass: one forward and one backward run of it, kept as a value.

A network is a tuple of layers. `run` returns a Pass and leaves nothing behind, so DataGrad can hold
two passes over the same weights side by side. Weight gradients are formed from a weighted list of
passes, in one matrix product for each layer, however many passes there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, get_xp, per_model, to_device
from nnlite.errors import NnliteError
from nnlite.init import he_normal
from nnlite.layers import Dense, Layer, Parameters, ReLU
from nnlite.losses import Loss, softmax_cross_entropy


@dataclass(frozen=True, eq=False)
class Pass:
    """What one run of a network computed at one point; N examples, leading axes for a stack of models.

    logits: (..., N, C); loss: (..., N), one for each example. inputs: what each layer saw. deltas: the
    error at each layer's output. input_gradient: dx, or None where it was not asked for.
    """

    logits: Array
    loss: Array
    inputs: tuple[Array, ...]
    deltas: tuple[Array, ...]
    input_gradient: Array | None

    @property
    def dx(self) -> Array:
        """Each example's own dloss/dx, (..., N, D)."""
        if self.input_gradient is None:
            raise NnliteError("dx: this pass was run with input_gradient=False; run it without")
        return self.input_gradient


@dataclass(frozen=True, eq=False)
class Network:
    """A plain chain of layers that ends in logits."""

    layers: tuple[Layer, ...]

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
        return f"Network({'-'.join(map(str, self.sizes))}, {self.dtype})"

    def forward(self, x: Array) -> tuple[Array, tuple[Array, ...]]:
        """Return the logits (..., N, C) at x (..., N, D), and what each layer saw on the way."""
        inputs = []
        for layer in self.layers:
            inputs.append(x)
            x = layer.forward(x)
        return x, tuple(inputs)

    def predict(self, x: Array) -> Array:
        """Return the predicted class of each example, (..., N)."""
        logits, _ = self.forward(x)
        predicted: Array = logits.argmax(axis=-1)
        return predicted

    def run(self, x: Array, y: Array, *, loss: Loss = softmax_cross_entropy, input_gradient: bool = True) -> Pass:
        """Run forward at x (..., N, D), and backward from the loss against y (..., N) down to the inputs.

        Without `input_gradient` the last product, from the first layer to x, is saved and dx is not there.
        """
        logits, inputs = self.forward(x)
        values, dlogits = loss(logits, y)
        deltas = [dlogits]
        for layer, seen in zip(self.layers[:0:-1], inputs[:0:-1], strict=True):
            deltas.append(layer.backward(seen, deltas[-1]))
        deltas.reverse()
        dx = self.layers[0].backward(x, deltas[0]) if input_gradient else None
        return Pass(logits, values, inputs, tuple(deltas), dx)

    def gradients(self, weighted: Sequence[tuple[float | Array, Pass]]) -> list[Parameters]:
        """Return sum_k c_k * (batch mean of the weight gradient of pass k), one dict for each layer.

        `weighted` holds pairs (c_k, pass); c_k is a number, or one for each model of a stack, (S,).
        All passes have the same N. A pass of weight 0 is left out. The rows of the passes are stacked,
        [x; x_hat]^T [c0 delta; c1 delta_hat], so each layer costs one product.
        """
        terms = [(c, p) for c, p in weighted if not (isinstance(c, (int, float)) and c == 0)] or weighted[:1]
        examples = terms[0][1].loss.shape[-1]
        grads: list[Parameters] = []
        for k, layer in enumerate(self.layers):
            if isinstance(layer, ReLU):
                grads.append({})
                continue
            x = _rows([p.inputs[k] for _, p in terms])
            dy = _rows([per_model(c / examples, p.deltas[k]) * p.deltas[k] for c, p in terms])
            grads.append(layer.gradients(x, dy))
        return grads

    def map(self, change: Callable[[Array], Array]) -> "Network":
        """Return a network with every parameter array replaced by `change(array)`."""
        return Network(
            tuple(
                type(layer)(**{name: change(array) for name, array in layer.parameters.items()})
                for layer in self.layers
            )
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


def mlp(sizes: Sequence[int], rng: np.random.Generator, dtype: npt.DTypeLike = np.float32) -> Network:
    """Return a net of Dense layers with ReLU between them, weights by He (2015), biases 0.

    sizes: the widths from the input to the logits; the paper's net is (784, 784, 784, 784, 10).
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise NnliteError(f"sizes: expected two or more widths of at least 1, found {tuple(sizes)}")
    layers: list[Layer] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [Dense(he_normal(rng, fan_in, fan_out, dtype), np.zeros(fan_out, dtype)), ReLU()]
    return Network(tuple(layers[:-1]))


def stack(nets: Sequence[Network]) -> Network:
    """Return one net that runs `nets`, of equal sizes, side by side: each array gains a leading axis (S, ...)."""
    if len({net.sizes for net in nets}) != 1:
        raise NnliteError(f"stack: expected nets of equal sizes, found {sorted({net.sizes for net in nets})}")
    together = zip(*(net.layers for net in nets), strict=True)
    return Network(tuple(type(group[0])(**_stacked(group)) for group in together))


def _stacked(group: tuple[Layer, ...]) -> Parameters:
    return {
        name: get_xp(array).stack([layer.parameters[name] for layer in group])
        for name, array in group[0].parameters.items()
    }


def _rows(blocks: list[Array]) -> Array:
    """Stack the rows, axis -2, of blocks that may differ in whether they carry a leading axis of models."""
    if len(blocks) == 1:
        return blocks[0]
    xp = get_xp(*blocks)
    stacked: Array = xp.concatenate(xp.broadcast_arrays(*blocks), axis=-2)
    return stacked
