"""Intervals: how far apart accuracies are, and how sure that is.

What is compared is a sum of accuracies less a sum of others, so that two models are one case, and how much more one of
them gains at a larger phi is another.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.evaluation.intervals import Z, wilson
from nnlite.paper.scores import Percent


class Interval(NamedTuple):
    """A difference in points, the ends of its 95 % confidence interval, and the two-sided p of no difference."""

    difference: float
    low: float
    high: float
    p: float


def paired(difference: npt.NDArray[np.floating], offset: float = 0.0) -> Interval:
    """Return the interval of a mean difference on the same images, plus an offset in points.

    With one seed and two models it is Agresti and Min's (Statistics in Medicine 24, 2005): of the images that one model
    gets right and the other wrong, half an image is added either way, which gives two models that agree on all images
    an interval with a width. p is then that of McNemar's exact test. Elsewhere p is the interval's own.

    With more seeds an image counts with its mean over them, and the variance of the mean over seeds, s^2 / seeds
    (ddof 1), is added; the quantile is Student's t with Satterthwaite's degrees of freedom, the variance over images
    counted as known. With one seed that part is unknown and left out: the interval then says nothing about how another
    training would come out.

    Arguments:
        difference: for each seed and image, correct answers of one side less those of the other, (seeds, images).
        offset: what is added, in points.
    """
    of_image, of_seed = difference.mean(axis=0), difference.mean(axis=1)
    count, seeds = len(of_image) + 2, len(of_seed)
    centre = float(of_image.sum()) / count
    images = ((float(np.square(of_image).sum()) + 1) / count - centre**2) / count
    between = float(of_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    spread = between**2 / (seeds - 1) if seeds > 1 else 0.0
    length, error = _length(1e4 * (images + between), 1e8 * spread)
    middle = 100 * centre + offset
    if seeds == 1 and not offset and abs(of_image).max() <= 1:
        p = _mcnemar(int((of_image > 0).sum()), int((of_image < 0).sum()))
    else:
        p = _p(middle / error, 1e4 * (images + between), 1e8 * spread)
    return Interval(100 * float(of_image.mean()) + offset, middle - length, middle + length, p)


def unpaired(plus: Sequence[Percent], minus: Sequence[Percent], images: int, offset: float = 0.0) -> Interval:
    """Return sum(mean(a)) - sum(mean(b)) + offset with its interval, where the outcome of each image is unknown.

    It is made of the Wilson interval [l, u] of each mean m: the sum of (m - l)^2 of what is added and (u - m)^2 of what
    is taken away is the square of its lower half, and the other way round of its upper half. For a - b that is
    Newcombe's hybrid score interval (1998, method 10), for a alone Wilson's own, and for more Zou and Donner's (2008).
    It has a width at 0 and at 100 %, too.

    Each square over 1.96^2 is a variance over images; all seeds are scored on the same images, so it does not shrink
    with them, and the variance over seeds is added as in `paired`. The sides are taken as independent, though their
    images are the same: the interval is too wide rather than too narrow. p takes the variance on the side of 0.

    Arguments:
        plus: accuracies in percent that are added, each (seeds,).
        minus: those that are taken away.
        images: how many images each accuracy rests on.
        offset: what is added, in points, such as less a threshold.
    """
    added, taken = ([_side(accuracy, images) for accuracy in side] for side in (plus, minus))
    difference = sum(one.mean for one in added) - sum(one.mean for one in taken) + offset
    seeds, spread = (sum(getattr(one, name) for one in (*added, *taken)) for name in ("seeds", "spread"))
    below = sum(one.below for one in added) + sum(one.above for one in taken) + seeds
    above = sum(one.above for one in added) + sum(one.below for one in taken) + seeds
    towards_zero = below if difference > 0 else above
    p = _p(difference / math.sqrt(towards_zero), towards_zero, spread) if difference else 1.0
    return Interval(difference, difference - _length(below, spread)[0], difference + _length(above, spread)[0], p)


class _Side(NamedTuple):
    """One accuracy: its mean, the variances below and above it over images, and over seeds.

    spread is the square of the variance over seeds by its degrees of freedom.
    """

    mean: float
    below: float
    above: float
    seeds: float = 0.0
    spread: float = 0.0


def _side(accuracy: Percent, images: int) -> _Side:
    mean, count = float(accuracy.mean()), len(accuracy)
    below, above = (((float(limit) - mean) / Z) ** 2 for limit in wilson(mean, images))
    if count == 1:
        return _Side(mean, below, above)
    seeds = float(accuracy.var(ddof=1)) / count
    return _Side(mean, below, above, seeds, seeds**2 / (count - 1))


def _length(variance: float, spread: float) -> tuple[float, float]:
    """Return half the length of an interval and the standard error: Student's quantile, or the normal one."""
    from scipy.special import stdtrit

    error, quantile = math.sqrt(variance), Z
    if spread:
        quantile = float(stdtrit(variance**2 / spread, 0.975))
    return quantile * error, error


def _p(ratio: float, variance: float, spread: float) -> float:
    from scipy.special import ndtr, stdtr

    return 2 * float(stdtr(variance**2 / spread, -abs(ratio)) if spread else ndtr(-abs(ratio)))


def _mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p of so many images that one model gets right and the other wrong, and the reverse."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))
