"""Comparisons: the parts of a claim, each a sum of accuracies less a sum of others, and whether it goes its way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnlite.paper.intervals import Interval, paired, unpaired
from nnlite.paper.scores import ScoreKey, Scores

HOLDS, FAILS, CLOSE, UNTESTED = "holds", "does not hold", "too close to call", "not tested"
LEVEL = 0.05  # of all comparisons of a claim together


class Cell(NamedTuple):
    """An accuracy in the scores, for all seeds: of which adversary, noise and victim, and at which of PHI."""

    key: ScoreKey
    column: int = -1


@dataclass(frozen=True)
class Contrast:
    """What a claim says is above 0: accuracies that are added, those taken away, and an offset in points."""

    text: str
    plus: tuple[Cell, ...]
    minus: tuple[Cell, ...] = ()
    offset: float = 0.0

    def interval(self, scores: Scores) -> Interval:
        """Return it with its interval: on the same images where their outcomes are known, else as independent."""
        cells = (*self.plus, *self.minus)
        seeds = {len(scores.values[cell.key]) for cell in cells}
        if len(cells) > 1 and len(seeds) == 1 and all(cell.key in scores.correct for cell in cells):
            signs = (*(1.0 for _ in self.plus), *(-1.0 for _ in self.minus))
            known = [scores.correct[key][:, column] for key, column in cells]
            return paired(np.tensordot(signs, known, 1), self.offset)
        plus, minus = ([scores.values[key][:, column] for key, column in side] for side in (self.plus, self.minus))
        return unpaired(plus, minus, scores.images, self.offset)


@dataclass(frozen=True)
class Comparison:
    """One part of a claim in words, by how many points it goes the claim's way, and p among all parts (Holm)."""

    text: str
    margin: Interval
    p: float

    @property
    def verdict(self) -> str:
        """Whether the claim is right here, wrong here, or neither is sure."""
        if self.p >= LEVEL:
            return CLOSE
        return HOLDS if self.margin.difference > 0 else FAILS

    def __str__(self) -> str:
        difference, low, high, _ = self.margin
        return f"{self.text}: {difference:+.2f} points [{low:+.2f}, {high:+.2f}], p {self._p}"

    @property
    def _p(self) -> str:
        return "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"


def compare(scores: Scores, contrasts: Sequence[Contrast]) -> list[Comparison]:
    """Return the comparison of each contrast, with the p of Holm's correction for all of them."""
    margins = [one.interval(scores) for one in contrasts]
    adjusted = holm([margin.p for margin in margins])
    return [Comparison(*one) for one in zip((one.text for one in contrasts), margins, adjusted, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Return the adjusted p of Holm (1979): below a level, all that are below it are wrong together as rarely."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    factors = np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * factors), 1)
    return adjusted.tolist()
