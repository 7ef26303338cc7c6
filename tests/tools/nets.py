"""Random small nets for the property tests, their derivatives, and the numbers that each method trains them with."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from nnlite.backend import Array
from nnlite.gradcheck import away_from_kinks
from nnlite.layers import Parameters, ReLU
from nnlite.network import Labels, Network, mlp, stack

GIVEN = {  # method -> numbers that a small net trains with
    "none": {},
    "l1": {"lam": 0.01},
    "l2": {"lam": 0.01},
    "dgl1": {"lam": 0.01, "phi": 0.1},
    "dgl2": {"lam": 0.1, "phi": 0.1},
    "dgl2norm": {"lam": 0.1, "gradient": "exact"},
    "dglinf": {"lam": 0.1, "phi": 0.1},
    "datagrad": {"term": ("l1,0.01,0.1", "l2,0.1,exact")},
    "szegedy": {"alpha": 0.5},
    "goodfellow": {"phi": 0.1, "alpha": 0.5},
    "gu-rigazio": {"lam": 0.01},
    "huang": {"phi": 0.3},
    "miyato": {"lam": 1.0, "phi": 0.3},
    "lyu": {"phi": 0.3, "p": "1"},
    "nokland": {"phi": 0.1},
    "pgd": {"phi": 0.1, "steps": 3},
    "trades": {"lam": 2.0, "phi": 0.1, "steps": 3},
}

widths = st.integers(1, 9)
numbers_of_classes = st.integers(2, 9)


class Case(NamedTuple):
    """A float64 net, one or a stack, with a batch that keeps every ReLU away from its kink."""

    net: Network
    x: Array
    y: Labels


@st.composite
def cases(
    draw: st.DrawFn, min_depth: int = 0, classes: st.SearchStrategy[int] = numbers_of_classes, *, heads: bool = False
) -> Case:
    """Draw depth 0-4, widths 1-9, 2-9 classes, batch 1-6, one model or a stack of 2-3, shared inputs or one set each.

    With `heads` the net has a second head, "rotation", and y holds the labels of either task by name.
    """
    sizes = [draw(widths), *draw(st.lists(widths, min_size=min_depth, max_size=4)), draw(classes)]
    further = {"rotation": draw(st.integers(2, 6))} if heads else {}
    models = draw(st.sampled_from([(), (2,), (3,)]))
    own_inputs = draw(st.booleans())
    batch = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nets = [biased_mlp(sizes, rng, further) for _ in range(models[0] if models else 1)]
    net = stack(nets) if models else nets[0]
    leading = models if own_inputs else ()
    x = rng.random((*leading, batch, sizes[0]))
    y = {task: rng.integers(0, count, (*leading, batch)) for task, count in {"digit": sizes[-1], **further}.items()}
    return Case(away_from_kinks(net, x), x, y if heads else y["digit"])


def biased_mlp(sizes: list[int], rng: np.random.Generator, heads: dict[str, int] | None = None) -> Network:
    """Return a He net in float64 whose biases are not 0, so that their gradients are tested for real."""
    net = mlp(sizes, rng, np.float64, heads=heads)
    return net.map(lambda array: array + 0.1 * rng.standard_normal(array.shape))


def distance_from_kinks(net: Network, x: Array) -> float:
    """Return how near the pre-activation of any ReLU comes to 0 at x."""
    seen = [abs(z).min() for layer, z in zip(net.layers, net.forward(x).inputs, strict=True) if isinstance(layer, ReLU)]
    return min(seen, default=np.inf)


def flat(net: Network, grads: Iterable[Parameters]) -> Array:
    """Return the gradients of all parameters of `net` in one row; 0 for those of a head without gradients."""
    return np.concatenate(
        [
            grad.get(name, np.zeros_like(array)).ravel()
            for layer, grad in zip(net.all_layers, grads, strict=True)
            for name, array in layer.parameters.items()
        ]
    )


def moved(net: Network, change: Array) -> Network:
    """Return `net` with `change`, one row in the order of `flat`, added to its parameters."""
    taken = 0

    def add(array: Array) -> Array:
        nonlocal taken
        taken += array.size
        return array + change[taken - array.size : taken].reshape(array.shape)

    return net.map(add)


def gradient_error(function: Callable[[Network], float], net: Network, grads: Iterable[Parameters]) -> float:
    """Return the relative error of `grads` against central differences of function(net) along random directions.

    A direction of independent normal numbers v has E (v.a - v.b)^2 = |a - b|^2. Differences of a function of order 1
    resolve 1e-10, so a gradient shorter than 0.01 is measured by that length.
    """
    gradient, rng, step = flat(net, grads), np.random.default_rng(0), 1e-6
    errors = []
    for _ in range(3):
        v = rng.standard_normal(gradient.size)
        slope = (function(moved(net, step * v)) - function(moved(net, -step * v))) / (2 * step)
        errors.append(slope - v @ gradient)
    return float(np.sqrt(np.mean(np.square(errors))) / max(np.linalg.norm(gradient), 1e-2))
