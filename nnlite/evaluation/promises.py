"""What every attack promises, checked on what it crafted."""

from collections.abc import Sequence

import numpy as np

from nnlite.attacks import NORMS, Attack, Crafted
from nnlite.backend import Array, get_xp, to_host
from nnlite.inputs import Box


def check_crafted(attack: Attack, x: Array, phi: Sequence[float], crafted: Crafted, box: Box) -> None:
    """Raise AssertionError unless what `attack` made of x is finite, and keeps the norm and the box that it promises.

    It is raised, not asserted: python -O would leave an assertion out, and a wrong accuracy would be printed.

    Arguments:
        attack: What crafted.
        x: The clean images, (..., N, D).
        phi: The sizes of noise.
        crafted: What came of it.
        box: What pixels may not leave, where the attack clips.
    """
    xp, measure = get_xp(x), NORMS["linf" if attack.norm is None else attack.norm]
    box = box.like(x)
    seen = [xp.stack([measure(image - x).max(), box.beyond(image)]) for image in crafted.images]
    slack = 16 * float(np.finfo(x.dtype).eps)
    for size, (length, beyond) in zip(phi, to_host(xp.stack(seen)).tolist(), strict=True):
        limit = np.finfo(x.dtype).max if attack.norm is None else size * (1 + slack) + slack
        if not length <= limit:  # so that NaN fails, too
            raise AssertionError(f"{attack}: expected a norm of {limit:g} at most, found {length:g}")
        if attack.clip and not beyond <= 0:
            raise AssertionError(f"{attack}: expected pixels within {box}, found one {beyond:g} beyond")
