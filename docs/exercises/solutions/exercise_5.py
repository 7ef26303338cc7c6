"""Exercise 5, solved."""

import numpy as np

from nnlite.apgd import APGD
from nnlite.attacks import PGD
from nnlite.certify import is_proven

ATTACKS = PGD(steps=100, restarts=5), APGD(steps=100, restarts=20)  # the second finds what the first one misses


def meet(net, x, y, precision):
    """Return (proven, broken, example) for one image, by halving the gap between the two.

    A phi that is neither proven nor broken ends the search: only a stronger attack or tighter bounds could go on.
    """
    proven, broken, example = 0.0, 1.0, None  # at 1 noise can make any image of any other
    while broken - proven > precision:
        phi = (proven + broken) / 2
        found = (attack.craft(net, x, y, [phi], np.random.default_rng(0)).images[0] for attack in ATTACKS)
        fooling = next((noisy for noisy in found if net.predict(noisy) != y), None)
        if fooling is not None:
            broken, example = phi, fooling
        elif is_proven(net, x, y, phi)[0]:
            proven = phi
        else:
            break
    return proven, broken, example
