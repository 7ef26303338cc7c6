"""Random small nets for the property tests: the shapes that the engine promises to work for."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from nnlite.backend import Array
from nnlite.gradcheck import away_from_kinks
from nnlite.network import Network, mlp, stack

widths = st.integers(1, 9)


class Case(NamedTuple):
    """A float64 net, one or a stack, with a batch that keeps every ReLU away from its kink."""

    net: Network
    x: Array
    y: Array


@st.composite
def cases(draw: st.DrawFn, min_depth: int = 0, classes: st.SearchStrategy[int] = widths) -> Case:
    """Draw depth 0-4, widths 1-9, batch 1-6, one model or a stack of 2-3, shared inputs or one set each."""
    sizes = [draw(widths), *draw(st.lists(widths, min_size=min_depth, max_size=4)), draw(classes)]
    models = draw(st.sampled_from([(), (2,), (3,)]))
    own_inputs = draw(st.booleans())
    batch = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nets = [biased_mlp(sizes, rng) for _ in range(models[0] if models else 1)]
    net = stack(nets) if models else nets[0]
    leading = models if own_inputs else ()
    x = rng.random((*leading, batch, sizes[0]))
    y = rng.integers(0, sizes[-1], (*leading, batch))
    return Case(away_from_kinks(net, x), x, y)


def biased_mlp(sizes: list[int], rng: np.random.Generator) -> Network:
    """Return a He net in float64 whose biases are not 0, so that their gradients are tested for real."""
    net = mlp(sizes, rng, np.float64)
    return net.map(lambda array: array + 0.1 * rng.standard_normal(array.shape))
