"""Intervals: how far apart two accuracies are, and how sure that is."""

import math
from typing import NamedTuple

import numpy as np

from nnlite.paper.scores import Percent


class Interval(NamedTuple):
    """A difference of accuracies in points, and the ends of its 95 % confidence interval."""

    difference: float
    low: float
    high: float


def interval(a: Percent, b: Percent | float, images: int) -> Interval:
    """Return mean(a) - mean(b) with its 95 % confidence interval.

    The variance of the difference is the sum over a and b of

        m (100 - m) / images  +  s^2 / seeds        m the mean and s^2 the variance over seeds (ddof 1)

    The first part is binomial, over images; all seeds are scored on the same images, so it does not shrink with them.
    The second is that of the mean over seeds; with one seed it is unknown and left out, so the interval then says
    nothing about how another seed would come out. The quantile is Student's t with Welch and Satterthwaite's degrees of
    freedom, the binomial parts counted as known; 1.96 where there is one seed. a and b are taken as independent, though
    their images are the same: the interval is too wide rather than too narrow.

    Arguments:
        a: accuracies in percent, one for each seed, (seeds,).
        b: the same, or a number, which is a fixed threshold without variance.
        images: how many images each accuracy rests on.
    """
    from scipy.stats import t

    variance = spread = 0.0
    for side in (a, b):
        if isinstance(side, float):
            continue
        mean, seeds = float(side.mean()), len(side)
        variance += mean * (100 - mean) / images
        if seeds > 1:
            between = float(side.var(ddof=1)) / seeds
            variance += between
            spread += between**2 / (seeds - 1)
    freedom = variance**2 / spread if spread else math.inf
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    difference = float(np.mean(a) - np.mean(b))
    return Interval(difference, difference - half, difference + half)
