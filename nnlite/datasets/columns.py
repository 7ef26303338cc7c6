"""What noise may do with the columns of a table: which it leaves, how far it moves others, and which stay whole.

A box cannot say that a number of rooms has no fraction. So noise is crafted as ever, and then rounded, in the user's
units, to whole numbers that keep its promise: what is scored is an attack that can be carried out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, get_xp
from nnlite.errors import NnliteError
from nnlite.inputs import Box
from nnlite.storage.texts import did_you_mean

ROUNDINGS = 4  # of a value near 1 in its dtype: so much may lie between a whole number and what stands for it


@dataclass(frozen=True)
class Columns:
    """What noise may do with some columns, by their names; with all others it does what phi allows.

    Arguments:
        frozen: The columns that it leaves as they are.
        limits: How far it moves a column at most, whatever phi, as a share of the column's range.
        whole: The columns that it leaves whole numbers, in the user's units.
    """

    frozen: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    whole: tuple[str, ...] = ()

    @property
    def held(self) -> dict[str, float]:
        """How far noise moves the columns that are frozen or limited."""
        return {**dict.fromkeys(self.frozen, 0.0), **self.limits}

    def __str__(self) -> str:
        words = [f"moves {name} by at most {phi:g}" if phi else f"leaves {name}" for name, phi in self.held.items()]
        return f"noise {', '.join([*words, *(f'keeps {name} whole' for name in self.whole)])}"

    def check(self, data: str, features: Sequence[str]) -> None:
        """Raise NnliteError for a column that the data, of these features, do not have, or a limit that is none."""
        for name in (*self.held, *self.whole):
            if name not in features:
                known = f"the columns are {', '.join(features[:20])}" if features else "images have none"
                raise NnliteError(f"column: {data} has no {name!r}{did_you_mean(name, features)}; {known}")
        for name, phi in self.held.items():
            if not 0 <= phi < np.inf:
                raise NnliteError(f"phi-column: expected a finite number of at least 0 for {name}, found {phi}")


FREE = Columns()  # noise does with all columns what phi allows


@dataclass(frozen=True, eq=False)
class WholeNumbers:
    """Features that are whole numbers in the user's units, where x stands for low + x width.

    Arguments:
        places: Which features they are, (K,).
        low: What 0 stands for, (K,).
        width: The range of each, (K,), above 0.
    """

    places: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    width: npt.NDArray[np.float64]

    def fractions(self, x: Array) -> npt.NDArray[np.bool_]:
        """Return which values of x (N, D), on the host, are no whole numbers, (N, K), as far as their dtype can say."""
        share = x[:, self.places].astype(np.float64)
        value = self.low + share * self.width
        slack = ROUNDINGS * np.finfo(x.dtype).eps * self.width * np.maximum(abs(share), 1)
        return np.asarray(abs(value - np.rint(value)) > np.minimum(slack, 0.25))

    def rounded(self, image: Array, x: Array, phi: float, norm: str | None, box: Box | None) -> Array:
        """Return `image` with whole numbers: the nearest, or where it would leave the ball or the box, towards x.

        Arguments:
            image: What an attack made of x, (..., N, D), within the ball and the box.
            x: The clean images, (N, D) or (..., N, D); their own values are whole.
            phi: The radius of the ball around x.
            norm: What it is measured in, "linf" or "l2"; None where there is no ball.
            box: What features may not leave, or None.
        """
        xp, slack = get_xp(image, x), ROUNDINGS * float(np.finfo(x.dtype).eps)
        places, low, width = map(xp.asarray, (self.places, self.low, self.width))
        box = (box or Box(-np.inf, np.inf)).like(x)
        least, most = (xp.broadcast_to(end, x.shape)[..., places] for end in (box.low, box.high))
        clean = x[..., places].astype(np.float64)
        start = xp.rint(low + clean * width)
        moved = low + image[..., places] * width - start

        def put(steps: Array) -> Array:
            value = ((start + steps - low) / width).clip(least, most)
            changed = image.copy()
            changed[..., places] = xp.where(steps == 0, clean, value)
            return changed

        nearest, towards = xp.rint(moved), xp.trunc(moved)
        share = (start + nearest - low) / width
        kept = (share >= least - slack) & (share <= most + slack)
        if norm == "linf":
            kept &= abs(nearest) <= (phi + slack) * width
        found, safe = put(xp.where(kept, nearest, towards)), put(towards)
        if norm != "l2":
            return found
        length = xp.sqrt(((found - x) ** 2).sum(axis=-1, keepdims=True))
        return xp.where(length <= phi * (1 + slack) + slack, found, safe)
