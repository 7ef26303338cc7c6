"""VNN-LIB: the question that a certificate answers, as other verifiers read it, in text.

A file asks for a point of the noise around one image where another class reaches the logit of the true one, in the form
of the competition VNN-COMP (Brix et al. 2023, arXiv:2312.16760). "unsat" means that there is none: the image is proven.
"sat" means that there is one.
"""

from collections.abc import Iterator

import numpy as np

from nnlite.backend import Array
from nnlite.inputs import UNIT, Box

TIMEOUT = 300  # seconds for an image, as in the competition


def vnnlib(x: Array, label: int, phi: float, classes: int, box: Box | None = UNIT) -> str:
    """Return the property of one image.

    Arguments:
        x: The image (D,), as the net sees it.
        label: The true class.
        phi: The largest noise on a pixel, at least 0.
        classes: How many there are.
        box: What pixels may be, or None for free ones.
    """
    return "".join(f"{line}\n" for line in _lines(x, label, phi, classes, box))


def instances(model: str, files: list[str]) -> str:
    """Return what instances.csv holds: for each property file the model that it is about, and the seconds allowed."""
    return "".join(f"{model},{file},{TIMEOUT}\n" for file in files)


def _lines(x: Array, label: int, phi: float, classes: int, box: Box | None) -> Iterator[str]:
    x = x.astype(np.float64)
    low, high = (end if box is None else box.clip(end) for end in (x - phi, x + phi))
    where = "free" if box is None else f"within {box}"
    yield f"; true class {label}, noise within {phi!r} in the L-infinity norm, pixels {where}"
    yield from (f"(declare-const X_{k} Real)" for k in range(len(x)))
    yield from (f"(declare-const Y_{k} Real)" for k in range(classes))
    for k, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        yield f"(assert (>= X_{k} {_decimal(least)}))"
        yield f"(assert (<= X_{k} {_decimal(most)}))"
    yield "(assert (or"
    yield from (f"    (and (>= Y_{k} Y_{label}))" for k in range(classes) if k != label)
    yield "))"


def _decimal(value: float) -> str:
    """Return all digits of a number without an exponent, which not every reader knows."""
    return np.format_float_positional(value, trim="0")
