"""Confidence intervals of an accuracy, which is a proportion of the images that it was counted on."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError

Z = NormalDist().inv_cdf(0.975)  # the normal quantile of a 95 % interval: 1.96


class Limits(NamedTuple):
    """The lower and the upper limit of 95 % confidence intervals, in percent."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def rows_of(
    column: str, phi: Sequence[float], accuracy: Mapping[str, npt.NDArray[np.float64]], intervals: Mapping[str, Limits]
) -> list[dict[str, Any]]:
    """Return a row for each accuracy in percent and its interval, by plain names.

    Arguments:
        column: What the keys of `accuracy` are.
        phi: The sizes of noise.
        accuracy: By name, (phi,) each.
        intervals: The intervals of `accuracy`.
    """
    return [
        {column: name, "phi": size, "accuracy": value, "low": low, "high": high}
        for name, values in accuracy.items()
        for size, value, low, high in zip(
            phi, values.tolist(), *(part.tolist() for part in intervals[name]), strict=True
        )
    ]


def wilson(accuracy: float | npt.NDArray[np.float64], images: int) -> Limits:
    """Return the 95 % score interval of each accuracy (Wilson 1927, without a correction for continuity).

    Its limits are the proportions p that lie Z of their own standard errors, sqrt(p (1 - p) / images), from the
    accuracy. So they stay within 0 and 100 %, and at either end, where the normal interval has no width, this one has.

    Arguments:
        accuracy: In percent, of any shape.
        images: How many images each accuracy rests on.

    NnliteError for a percentage outside 0 to 100, and for less than one image.
    """
    share, one = np.asarray(accuracy, np.float64) / 100, Z * Z / images if images >= 1 else np.nan
    if not ((share >= 0) & (share <= 1) & (one > 0)).all():
        raise NnliteError(f"accuracy: expected 0 to 100 % of one or more images, found {accuracy} of {images}")
    centre, reach = share + one / 2, np.sqrt(one * (share * (1 - share) + one / 4))
    low, high = (centre - reach) / (1 + one), (centre + reach) / (1 + one)
    return Limits(100 * low, 100 * high.clip(share, 1))  # at 100 % rounding would miss the end, and at 0 does not
