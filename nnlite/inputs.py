"""What may come in: images as floats, labels that are classes, and the box that pixels may not leave.

Each check stands where data enters the engine, and says what does not fit. The values of labels on a GPU are left
unseen in a step, as to look at them would wait for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlite.backend import Array, get_xp
from nnlite.errors import NnliteError


@dataclass(frozen=True, eq=False)
class Box:
    """What pixels may be: low <= x <= high; NnliteError where that leaves nothing.

    Arguments:
        low, high: A number each, or an array (D,), or one for each image, (N, D).
    """

    low: float | Array = 0.0
    high: float | Array = 1.0

    def __post_init__(self) -> None:
        for name, end in (("low", self.low), ("high", self.high)):
            object.__setattr__(self, name, end if getattr(end, "ndim", 0) else float(end))
        on_host = all(isinstance(end, (float, np.ndarray)) for end in (self.low, self.high))
        if on_host and not np.all(self.low <= self.high):  # on a GPU it comes from one on the host, by `like`
            raise NnliteError(f"box: expected low <= high for each pixel, found {self.low} and {self.high}")

    def __repr__(self) -> str:
        if isinstance(self.low, float) and isinstance(self.high, float):
            return f"[{self.low:g}, {self.high:g}]"
        return "the range of each feature"

    def map(self, change: Callable[[Array], Array]) -> "Box":
        """Return the box with each array replaced by `change(array)`; a number stays."""
        return Box(*(end if isinstance(end, float) else change(end) for end in (self.low, self.high)))

    def like(self, x: Array) -> "Box":
        """Return the box in the dtype of x, and on its device."""
        xp = get_xp(x)
        return self.map(lambda end: xp.asarray(end, x.dtype))

    def take(self, rows: slice | Array) -> "Box":
        """Return the box of these images; one that all share is theirs, too."""
        return self.map(lambda end: end[rows] if end.ndim > 1 else end)

    def clip(self, x: Array, out: Array | None = None) -> Array:
        """Return x (..., N, D) moved into the box, which is `like` x; `out` may be x itself."""
        moved: Array = x.clip(self.low, self.high, out=out)
        return moved

    def beyond(self, x: Array) -> Array:
        """Return how far x (..., N, D) leaves the box, which is `like` x, an array (); at most 0 if it does not."""
        xp = get_xp(x)
        farthest: Array = xp.maximum(self.low - x, x - self.high).max()
        return farthest


UNIT = Box()


def check_images(x: Any, width: int | None) -> None:
    """Raise NnliteError unless x are images (..., N, width), floats in an array; a width of None fits any."""
    form = f"(N, {'D' if width is None else width})"
    try:
        get_xp(x)
    except TypeError as error:
        kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
        raise NnliteError(f"x: expected an array {form} of floats, found a {kind}; see np.asarray") from error
    if x.dtype.kind != "f":
        raise NnliteError(f"x: expected floats, found {x.dtype}; scale pixels to [0, 1], as in x / 255")
    if x.ndim < 2 or width not in (None, x.shape[-1]):
        raise NnliteError(f"x: expected {form}, a row for each image, found {x.shape}; reshape it")


def check_labels(y: Any, shape: tuple[int, ...], classes: int) -> None:
    """Raise NnliteError unless y holds classes from 0 to `classes` - 1, one for each image.

    Arguments:
        y: What to look at.
        shape: That of the images, (..., N); y may lack the leading axes, which are those of a stack.
        classes: How many there are, C.
    """
    found = getattr(y, "shape", None)
    if not found or found != shape[-len(found) :]:
        kind = f"a {type(y).__qualname__}" if found is None else f"shape {found}"
        raise NnliteError(f"y: expected an array {shape[-1:]}, the class of each image, found {kind}")
    if y.dtype.kind not in "iu":
        raise NnliteError(f"y: expected integers, found {y.dtype}; number the classes from 0")
    if isinstance(y, np.ndarray) and y.size and not 0 <= y.min() <= y.max() < classes:
        found = f"found {y.min()} to {y.max()}; number them from 0, or give the net more outputs"
        raise NnliteError(f"y: expected classes from 0 to {classes - 1}, {found}")
