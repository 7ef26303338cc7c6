"""Scaling to [0, 1]: by the range of a pixel, or by the least and the largest value of each column of a table.

Values are scaled in float64 and by blocks of rows, so that a table of a few gigabytes is not copied as a whole.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError

BLOCK = 4096  # rows at a time
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # those that pixels usually have

FloatArray = npt.NDArray[np.float64]
Values = npt.NDArray[np.number]


def column_range(values: Values, rows: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the least and the largest value of each column of `values` (N, D), among `rows`: two of (D,)."""
    low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
    for block in _blocks(len(rows)):
        some = values[rows[block]]
        np.minimum(low, some.min(axis=0), out=low)
        np.maximum(high, some.max(axis=0), out=high)
    return low, high


def pixel_range(images: list[Values]) -> tuple[float, float]:
    """Return the range that pixels have, by the type and the values of all `images`; NnliteError for an unusual one."""
    if all(array.dtype == np.uint8 for array in images):
        return RANGES[-1]
    low, high = min(float(array.min()) for array in images), max(float(array.max()) for array in images)
    for least, most in RANGES:
        if least <= low and high <= most:
            return least, most
    ranges = ", ".join(f"[{least:g}, {most:g}]" for least, most in RANGES)
    raise NnliteError(f"images: expected pixels in one of {ranges}, found [{low:g}, {high:g}]; rescale them")


def scale(
    values: Values, low: FloatArray, high: FloatArray, rows: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return `values` (N, D) scaled so that low is 0 and high 1, float32, and which of the rows lie beyond, bool (N,).

    NnliteError for a row so far beyond that float32 cannot hold it.

    Arguments:
        values: in the user's units.
        low: what becomes 0, (D,) or (1,); a column whose low and high are equal becomes 0.
        high: what becomes 1, likewise.
        rows: those of `values` that are wanted; None for all.
    """
    count, width = len(values) if rows is None else len(rows), high - low
    scaled, beyond = np.empty((count, values.shape[1]), np.float32), np.zeros(count, bool)
    for block in _blocks(count):
        some = values[block if rows is None else rows[block]]
        beyond[block] = ((some < low) | (some > high)).any(axis=1)
        with np.errstate(over="ignore"):
            scaled[block] = np.divide(some - low, width, where=width > 0, out=np.zeros(some.shape))
    far = np.flatnonzero(~np.isfinite(scaled).all(axis=1))
    if far.size:
        raise NnliteError(
            f"row {far[0] + 1}: expected values near the training range, found one that float32 cannot hold"
        )
    return scaled, beyond


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))
