"""What every attack promises, checked on what it crafted."""

from collections.abc import Sequence

import numpy as np

from nnlite.attacks import NORMS, Attack, Crafted
from nnlite.backend import Array, get_xp, to_host


def check_crafted(attack: Attack, x: Array, phi: Sequence[float], crafted: Crafted) -> None:
    """Raise AssertionError unless what `attack` made of x is finite, and keeps the norm and the range that it promises.

    It is raised, not asserted: python -O would leave an assertion out, and a wrong accuracy would be printed.

    Arguments:
        attack: What crafted.
        x: The clean images, (..., N, D).
        phi: The sizes of noise.
        crafted: What came of it.
    """
    xp, measure = get_xp(x), NORMS["linf" if attack.norm is None else attack.norm]
    extremes = [xp.stack([measure(image - x).max(), image.min(), image.max()]) for image in crafted.images]
    slack = 16 * float(np.finfo(x.dtype).eps)
    for size, (length, low, high) in zip(phi, to_host(xp.stack(extremes)).tolist(), strict=True):
        limit = np.finfo(x.dtype).max if attack.norm is None else size * (1 + slack) + slack
        if not length <= limit:  # so that NaN fails, too
            raise AssertionError(f"{attack}: expected a norm of {limit:g} at most, found {length:g}")
        if attack.clip and not (low >= 0 and high <= 1):
            raise AssertionError(f"{attack}: expected [0, 1], found [{low:g}, {high:g}]")
