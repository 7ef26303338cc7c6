"""Intervals: how far apart two accuracies are, and how sure that is."""

import math
from typing import NamedTuple

from nnlite.evaluation.intervals import Z, wilson
from nnlite.paper.scores import Percent


class Interval(NamedTuple):
    """A difference of accuracies in points, and the ends of its 95 % confidence interval."""

    difference: float
    low: float
    high: float


def interval(a: Percent, b: Percent | float, images: int) -> Interval:
    """Return mean(a) - mean(b) with its 95 % confidence interval.

    With one seed it is Newcombe's hybrid score interval (1998, method 10), made of the Wilson interval [l, u] of each
    mean m: the difference less sqrt((m_a - l_a)^2 + (u_b - m_b)^2), and more by sqrt((u_a - m_a)^2 + (m_b - l_b)^2).
    Against a fixed number that is the Wilson interval of a, less the number. It has a width at 0 and at 100 %, too.

    So each square over 1.96^2 is a variance over images; all seeds are scored on the same images, so it does not shrink
    with them. With more seeds the variance of the mean over seeds, s^2 / seeds (ddof 1), is added, and the quantile is
    Student's t with Welch and Satterthwaite's degrees of freedom, the variances over images counted as known. With one
    seed that part is unknown and left out, so the interval then says nothing about how another seed would come out.
    a and b are taken as independent, though their images are the same: the interval is too wide rather than too narrow.

    Arguments:
        a: accuracies in percent, one for each seed, (seeds,).
        b: the same, or a number, which is a fixed threshold without variance.
        images: how many images each accuracy rests on.
    """
    of_a, of_b = _side(a, images), _side(b, images)
    seeds, spread = of_a.seeds + of_b.seeds, of_a.spread + of_b.spread
    difference = of_a.mean - of_b.mean
    low = difference - _length(of_a.below + of_b.above + seeds, spread)
    return Interval(difference, low, difference + _length(of_a.above + of_b.below + seeds, spread))


class _Side(NamedTuple):
    """One side of a difference: its mean, the variances below and above it over images, and over seeds.

    spread is the square of the variance over seeds by its degrees of freedom.
    """

    mean: float
    below: float = 0.0
    above: float = 0.0
    seeds: float = 0.0
    spread: float = 0.0


def _side(accuracy: Percent | float, images: int) -> _Side:
    if isinstance(accuracy, float):
        return _Side(accuracy)
    mean, count = float(accuracy.mean()), len(accuracy)
    below, above = (((float(limit) - mean) / Z) ** 2 for limit in wilson(mean, images))
    if count == 1:
        return _Side(mean, below, above)
    seeds = float(accuracy.var(ddof=1)) / count
    return _Side(mean, below, above, seeds, seeds**2 / (count - 1))


def _length(variance: float, spread: float) -> float:
    """Return Student's quantile times the standard deviation; the normal quantile where no spread is known."""
    from scipy.stats import t

    return float(t.ppf(0.975, variance**2 / spread if spread else math.inf)) * math.sqrt(variance)
