"""The matrix products of some work, which it cannot do without: what they cost alone is the floor of any timing."""

from typing import TypeAlias

import numpy as np

from nnlite.backend import Array, get_xp
from nnlite.datagrad import weighted_passes
from nnlite.layers import Dense
from nnlite.network import Labels, Network, Tangent
from nnlite.training.settings import Settings

Products: TypeAlias = list[tuple[Array, Array, Array]]  # (a, b, out) of each matrix product


def multiply(products: Products) -> None:
    """Form each product again, into the array that holds it."""
    for a, b, out in products:
        get_xp(a).matmul(a, b, out=out)


def step_products(
    net: Network, x: Array, y: Labels, settings: Settings, rng: np.random.Generator | None = None
) -> Products:
    """Return the matrix products of one step as (a, b, out): forward and back of each pass, then the gradients.

    Passes at one point share the forward products of the trunk, and their rows in the gradients; one of weight 0 has
    none there. The products of a search for noise are not among them.
    """
    xp = get_xp(x)
    passes = weighted_passes(net, x, y, settings.terms, gamma=settings.further_losses, rng=rng)
    factors, done = [], set()
    pairs: dict[int, dict[int, tuple[Array, Array]]] = {id(layer): {} for layer in net.all_layers}
    for weight, p in passes:
        base = p.of if isinstance(p, Tangent) else p
        for k, layer in enumerate(net.chain(base.task)):
            if isinstance(layer, Dense):
                if (id(p.inputs[k]), id(layer)) not in done:
                    factors.append((p.inputs[k], layer.W))
                    done.add((id(p.inputs[k]), id(layer)))
                if k or p.input_gradient is not None:
                    factors.append((p.deltas[k], layer.W.swapaxes(-1, -2)))
                if weight != 0:
                    pairs[id(layer)][id(p.inputs[k])] = (p.inputs[k], base.deltas[k])
    for layer in net.all_layers:
        if isinstance(layer, Dense):
            seen, errors = (xp.concatenate(blocks) for blocks in zip(*pairs[id(layer)].values(), strict=True))
            factors.append((seen.swapaxes(-1, -2), errors))
    return [(a, b, a @ b) for a, b in factors]


def attack_products(net: Network, x: Array, y: Array, steps: int) -> Products:
    """Return the matrix products of `steps` steps as (a, b, out): forward and back to x, and forward at the end."""
    p = net.run(x, y)
    dense = [(k, layer.W) for k, layer in enumerate(net.layers) if isinstance(layer, Dense)]
    forward = [(p.inputs[k], W) for k, W in dense]
    back = [(p.deltas[k], W.swapaxes(-1, -2)) for k, W in reversed(dense)]
    once = [(a, b, a @ b) for a, b in forward + back]
    return once * steps + once[: len(forward)]
