"""The questions of an audit, one rule each: a number, and the limit that it must not exceed.

A rule is a function of what the attacks left correct; it returns a Verdict. docs/audit.md says why each limit is what
it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnlite.evaluation.accuracy import BoolArray, FloatArray, IntArray, percent
from nnlite.evaluation.certifying import Bracket

Accuracies = Mapping[str, FloatArray]  # attack -> percent, (phi,)

PASS, FAIL, NOT_TESTED = "pass", "FAIL", "not tested"
SLACK = 0.2  # points by which a weaker attack may be ahead before it means something: AutoAttack's threshold
FEW = 3  # examples that mean nothing either, where they are more than that
_ROUNDING = 1e-9  # of the difference of two percentages


@dataclass(frozen=True)
class Verdict:
    """A question, the number that answers it, the limit that it must not exceed, and the evidence in words.

    found: None where the question could not be asked; the evidence then says why.
    """

    name: str
    question: str
    found: float | None
    limit: float
    evidence: str

    @property
    def answer(self) -> str:
        """PASS, FAIL or NOT_TESTED."""
        if self.found is None:
            return NOT_TESTED
        return PASS if self.found <= self.limit + _ROUNDING else FAIL


# The rules. Accuracies are in percent, (phi,); phi[0] is 0, where nothing can differ but by a fault.


def iterative(phi: Sequence[float], found: Accuracies, examples: int) -> Verdict:
    """Return how far one step is ahead of many: accuracy under PGD, less that under the stronger of R1 and R2."""
    single = np.minimum(found["r1"], found["r2"])
    more, k = _largest(found["pgd"] - single)
    evidence = (
        f"at phi {phi[k]:g}: {found['pgd'][k]:.2f} % under PGD, {single[k]:.2f} % under the stronger of R1 and R2"
    )
    return Verdict("iterative", "Is PGD at least as strong as a single step?", more, _points(SLACK, examples), evidence)


def undecided(left: FloatArray, clean: float) -> int:
    """Return the index of the phi where the most is at stake: the accuracy nearest to half the clean one."""
    return _largest(-abs(left - clean / 2))[1]


def converged(phi: Sequence[float], white: FloatArray, tried: BoolArray, broken: BoolArray) -> Verdict:
    """Return the share of examples that twice the steps of APGD break after all attacks have failed.

    white: the accuracies under all attacks that use the gradient; tried, broken: (phi, N).
    """
    return _new_finds("converged", "Do more steps change nothing?", phi, white, tried, broken)


def other_search(phi: Sequence[float], white: FloatArray, tried: BoolArray, broken: BoolArray) -> Verdict:
    """Return the share that a stride of phi / 2, the margin of each class or FMN breaks after all that; as above."""
    return _new_finds("search", "Do other strides and searches find nothing?", phi, white, tried, broken)


def _new_finds(
    name: str, question: str, phi: Sequence[float], white: FloatArray, tried: BoolArray, broken: BoolArray
) -> Verdict:
    k = int(tried.sum(axis=-1).argmax())  # the one phi at which it was tried
    evidence = (
        f"at phi {phi[k]:g}, where most is at stake, {white[k]:.2f} % withstand the gradient; "
        f"{broken[k].sum()} of the {tried[k].sum()} left fall"
    )
    return Verdict(name, question, float(percent(broken[k])), _points(SLACK, tried.shape[-1]), evidence)


def monotone(phi: Sequence[float], found: Accuracies, chance: float, examples: int) -> Verdict:
    """Return the largest rise of any accuracy with phi, above chance: a larger ball contains the smaller ones."""
    rises = {}
    for name, values in found.items():
        level = np.maximum(values, chance)
        rises[name] = _largest(level - np.minimum.accumulate(level))
    name = max(rises, key=lambda one: rises[one][0])
    rise, k = rises[name]
    evidence = (
        f"under {name} it rises up to phi {phi[k]:g}, by {rise:.2f} points" if rise else "no accuracy rises with phi"
    )
    return Verdict("monotone", "Does more noise never help?", rise, _points(SLACK, examples), evidence)


def large_noise(phi: float, found: float, chance: float) -> Verdict:
    """Return the accuracy under PGD at a phi so large that nothing is left to see; the limit is that of a guess."""
    evidence = f"at phi {phi:g}: {found:.2f} % under PGD, {chance:g} % by guessing"
    return Verdict("large noise", "Does large noise bring the net down to chance?", float(found), chance, evidence)


def transfer(phi: Sequence[float], white: BoolArray, by: Mapping[str, BoolArray]) -> Verdict:
    """Return the share of examples that fall to the noise of other nets, and to none made with this net's gradient.

    white: which examples every attack that uses the gradient leaves correct; by: which the R1 noise of each other net
    leaves correct; all (phi, N).
    """
    question, limit = "Does the noise of other nets find nothing new?", _points(SLACK, white.shape[-1])
    if not by:
        return Verdict("transfer", question, None, limit, "there is no other net to craft it")
    new, k = _largest(percent(white & ~all_correct(by)))
    name = min(by, key=lambda one: by[one][-1].sum())
    evidence = (
        f"at phi {phi[k]:g}: {new:.2f} % fall to it, and not to this net's own gradient; "
        f"the strongest other net is {name}, {percent(by[name])[-1]:.2f} % at phi {phi[-1]:g}"
    )
    return Verdict("transfer", question, new, limit, evidence)


def black_box(phi: Sequence[float], tried: BoolArray, broken: BoolArray, why_not: str) -> Verdict:
    """Return the share of examples that Square, which sees no gradient, breaks after all other attacks have failed.

    tried, broken: on which examples it was tried, and which of them it broke, (phi, N). why_not: why it was not run,
    "" if it was.
    """
    question, limit = "Does Square, a black-box attack, find nothing new?", _points(SLACK, tried.shape[-1])
    if why_not:
        return Verdict("black box", question, None, limit, f"Square was not run: {why_not}")
    new, k = _largest(percent(broken))
    evidence = (
        f"at phi {phi[k]:g}: {new:.2f} % fall to it, and to no other attack, {broken[k].sum()} of the {tried[k].sum()} "
        "that it was tried on, those of the smallest margin"
    )
    return Verdict("black box", question, new, limit, evidence)


def random_noise(phi: Sequence[float], found: Accuracies, examples: int) -> Verdict:
    """Return how far random noise is ahead of the gradient: accuracy under the weaker of R1 and PGD, less its own.

    R2 is left out, as its size follows the gradient and may be next to nothing; so is the noise of other nets, as its
    strength depends on them.
    """
    guided = np.maximum(found["r1"], found["pgd"])
    more, k = _largest(guided - found["random"])
    evidence = (
        f"at phi {phi[k]:g}: {found['random'][k]:.2f} % under it, {guided[k]:.2f} % under the weaker of R1 and PGD; "
        "R2 is left out, as its size follows the gradient"
    )
    return Verdict("random noise", "Is random noise the weakest?", more, _points(SLACK, examples), evidence)


def zero_gradients(zeros: IntArray, pixels: int, examples: int) -> Verdict:
    """Return the share of examples whose gradient is 0 in every pixel, so that it cannot be used to attack them.

    zeros: for each example that the net gets right, how many of its `pixels` have a derivative of exactly 0.
    """
    blind = 100 * int((zeros == pixels).sum()) / examples
    share = 100 * zeros.mean() / pixels
    evidence = f"{blind:.2f} % of the examples have none, {share:.2f} % of all derivatives are 0"
    return Verdict("zero gradients", "Does every example have a gradient?", blind, SLACK, evidence)


def no_noise(found: Accuracies, clean: float) -> Verdict:
    """Return the largest difference from the clean accuracy at phi = 0, where nothing may change."""
    away = float(max(abs(values[0] - clean) for values in found.values()))
    how = f"off by {away:.2g} points under an attack" if away else "as under all attacks"
    return Verdict(
        "no noise", "Is the accuracy at phi 0 the clean one?", away, 0.0, f"{clean:.2f} % on clean images, {how}"
    )


def sound(bracket: Bracket | None, why_not: str) -> Verdict:
    """Return the share of examples that are proven, and yet fall to an attack: one is too many.

    bracket: None where nothing was proven; why_not then says why.
    """
    question = "Does no proven example fall to any attack?"
    if bracket is None:
        return Verdict("sound", question, None, 0.0, f"nothing was proven: {why_not}")
    fallen, counts = bracket.contradictions, bracket.proven.sum(axis=-1)
    found = ", ".join(f"{ones} at {size:g}" for ones, size in zip(counts[1:], bracket.phi[1:], strict=True))
    evidence = f"proven, of {len(bracket.rows)} examples: {found}"
    if fallen.any():
        k = int(fallen.sum(axis=-1).argmax())
        evidence = f"{fallen[k].sum()} at phi {bracket.phi[k]:g}: either the certificate or the attack is wrong"
    return Verdict("sound", question, float(percent(fallen).max()), 0.0, evidence)


def all_correct(correct: Mapping[str, BoolArray]) -> BoolArray:
    """Return which examples are correct under every attack."""
    every: BoolArray = np.logical_and.reduce(list(correct.values()))
    return every


def _points(points: float, examples: int) -> float:
    """Return `points`, or as many as FEW examples make if that is more."""
    return max(points, 100 * FEW / examples)


def _largest(values: FloatArray) -> tuple[float, int]:
    """Return the largest of the values above phi = 0, and its index; among equals that of the largest phi."""
    k = len(values) - 1 - int(values[:0:-1].argmax())
    return float(values[k]), k
