"""Random signs: noise that knows nothing of the net, beside which an attack must prove itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from nnlite.attacks import Crafted, check_batch, check_count, perturb
from nnlite.backend import Array, get_xp
from nnlite.inputs import UNIT, Box
from nnlite.network import Network


@dataclass(frozen=True)
class RandomSigns:
    """phi or -phi on each pixel, drawn `tries` times: an attack that is not stronger has not used the gradient.

    Kept is the first image that is misclassified, the clean one included, else the last.
    """

    tries: int = 1
    clip: bool = True

    norm: ClassVar[str] = "linf"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tries", check_count("tries", self.tries))

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return the kept image of each example for each phi; the same signs serve every phi."""
        limits, xp = check_batch(net, x, y, box if self.clip else None), get_xp(x)
        images = [x] * len(phi)
        for _ in range(self.tries):
            signs = xp.asarray(rng.choice(np.array([-1, 1], x.dtype), x.shape))
            for k, size in enumerate(phi):
                fooled = net.predict(images[k]) != y
                images[k] = xp.where(fooled[..., None], images[k], perturb(x, signs, size, limits))
        return Crafted(images)
