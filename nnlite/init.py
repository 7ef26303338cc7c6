"""Where randomness enters: He initialisation (He et al. 2015) and the generators of a seed.

The paper initialises every layer so (section 3). Numbers are drawn on the host in float64 and then
rounded, so one seed gives the same net on both devices, and in float32 the rounded float64 one.
"""

import math

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from nnlite.backend import Array


def he_normal(rng: Generator, fan_in: int, fan_out: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Draw weights (fan_in, fan_out) from a normal distribution of variance 2 / fan_in."""
    scale = math.sqrt(2.0 / fan_in)
    return (scale * rng.standard_normal((fan_in, fan_out))).astype(dtype)


PURPOSES = ("split", "weights", "shuffle", "noise", "attack")


def generator(seed: int, purpose: str, *counters: int) -> Generator:
    """Return the generator of `seed` for one of PURPOSES, and for a counter such as the epoch.

    Each purpose has a stream of its own, so the shuffle of epoch 7 does not depend on what was drawn before.
    """
    return np.random.default_rng([seed, PURPOSES.index(purpose), *counters])
