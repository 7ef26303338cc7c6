"""The audit: what a reviewer asks about a claim of robustness (Carlini et al. 2019), answered by numbers.

The threat model is noise of at most phi on each pixel, the L-infinity ball, and with `clip` pixels within [0, 1].
Several attacks run within it, and an example counts as robust at phi only where it stands under all of them at that
phi. Each question is a rule below; it makes a Verdict, a number and the limit that it must not exceed. Why each limit
is what it is stands in docs/audit.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.attacks import PGD, R1, R2, Attack, Crafted, Noise, check_count, project
from nnlite.backend import Array, get_xp, to_host
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import BLOCK, PAPER_PHI, BoolArray, FloatArray, accuracy, evaluate_attack
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.network import Network

IntArray = npt.NDArray[np.int64]
Accuracies = Mapping[str, FloatArray]  # attack -> percent, (phi,)

PASS, FAIL, NOT_TESTED = "pass", "FAIL", "not tested"
SLACK = 0.2  # points by which a weaker attack may be ahead before it means something: AutoAttack's threshold
CONVERGED = 0.5  # points that twice the steps may gain
FEW = 3  # examples that mean nothing either, where they are more than that
LARGE = 0.5  # a phi at which every image can become the same grey one
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


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found on N examples.

    standing: which examples each attack left standing, bool (phi, N); without Square, which is tried on a part.
    tried, broken: the examples that Square was tried on, and those it broke, bool (phi, N). words: what each attack
    did, for people. chance: the accuracy of a guess. parameters: how hard each attack tried.
    """

    phi: tuple[float, ...]
    standing: dict[str, BoolArray]
    tried: BoolArray
    broken: BoolArray
    words: dict[str, str]
    verdicts: tuple[Verdict, ...]
    chance: float
    parameters: dict[str, Any]

    @property
    def worst(self) -> BoolArray:
        """Which examples stand under every attack, Square included, at each phi: bool (phi, N)."""
        return _all(self.standing) & ~self.broken

    @property
    def accuracy(self) -> dict[str, FloatArray]:
        """Percent, (phi,), for each attack of `standing` and, last, for the "worst" case."""
        return {name: _percent(stands) for name, stands in {**self.standing, "worst": self.worst}.items()}

    @property
    def failed(self) -> bool:
        """Whether a verdict failed."""
        return any(verdict.answer == FAIL for verdict in self.verdicts)


def audit(
    net: Network,
    samples: Samples,
    others: Mapping[str, Network],
    *,
    phi: Sequence[float] = PAPER_PHI,
    clip: bool = True,
    steps: int = 40,
    restarts: int = 5,
    tries: int = 20,
    square_queries: int = 1000,
    square_examples: int = 500,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Audit:
    """Attack one net, not a stack, with all that is named above, and decide the verdicts.

    others: the nets that craft the transferred noise; there may be none. phi is sorted, and 0 added. Square is tried
    on `square_examples` at most, at each phi. on_progress is called with what is under way, and on how many examples
    of how many it is done. NnliteError: a phi that is negative or not finite, none above 0, a count below 1, nets that
    do not fit the samples, or a net that is right on none of them.
    """
    if not all(math.isfinite(size) and size >= 0 for size in phi) or not any(phi):
        raise NnliteError(f"phi: expected finite numbers of at least 0, one of them above 0, found {tuple(phi)}")
    check_count("square_queries", square_queries)
    check_count("square_examples", square_examples)
    phi = tuple(sorted({0.0, *map(float, phi)}))
    sizes = phi if phi[-1] >= LARGE else (*phi, LARGE)
    r1, r2 = Noise(R1.penalty, clip), _InBall(Noise(R2.penalty, clip))
    pgd, doubled = PGD(steps=steps, restarts=restarts, clip=clip), PGD(steps=2 * steps, clip=clip)
    signs = RandomSigns(tries, clip)
    square, why_not = _square(square_queries, samples.images.shape[-1])

    examples, clean = len(samples), accuracy(net, samples)
    if clean.ndim:
        raise NnliteError(f"net: expected one net, found a stack of {clean.size}; audit them one by one")
    right, margin, zeros = _look(net, samples)
    rows = np.flatnonzero(right)
    if not rows.size:
        raise NnliteError(f"net: it is right on none of {examples} examples, so there is nothing to attack")

    def stand(stage: str, attack: Attack, at: Sequence[float], rows: IntArray, crafting: Network = net) -> BoolArray:
        """Return which examples stand under `attack` at each phi of `at`, (phi, N); only `rows` are tried."""
        stands = np.zeros((len(at), examples), bool)
        if rows.size:
            on_progress(stage, 0, len(rows))
            chosen = samples[get_xp(samples.labels).asarray(rows)]
            told = _Told(attack, lambda done: on_progress(stage, done, len(rows)))
            stands[:, rows] = evaluate_attack(crafting, {"net": net}, chosen, told, at, seed=seed).correct["net"]
        return stands

    standing = {"r1": stand("R1", r1, phi, rows), "r2": stand("R2", r2, phi, rows)}
    climbed = stand("PGD", pgd, sizes, rows)
    standing["pgd"] = climbed[: len(phi)]
    white = _all(standing)
    by = {name: stand(f"noise of {name}", r1, phi, rows, other) for name, other in others.items()}
    if by:
        standing["transfer"] = _all(by)
    standing["random"] = stand("random signs", signs, phi, rows)

    k = undecided(_percent(standing["pgd"]), float(clean))
    still = np.flatnonzero(standing["pgd"][k])
    twice = stand("twice the steps", doubled, (phi[k],), still)

    tried, broken = np.zeros_like(white), np.zeros_like(white)
    for j, left in enumerate(_all(standing)):
        nearest = np.flatnonzero(left)[margin[left].argsort()][:square_examples]
        if square and phi[j] and nearest.size:
            tried[j, nearest] = True
            broken[j] = tried[j] & ~stand(f"Square at phi {phi[j]:g}", square, (phi[j],), nearest)[0]

    chance = 100 / net.sizes[-1]
    found = {name: _percent(stands) for name, stands in standing.items()}
    worst = _percent(_all(standing) & ~broken)
    verdicts = (
        iterative(phi, found, examples),
        converged(phi[k], found["pgd"][k], _percent(twice)[0], 2 * steps, examples),
        monotone(phi, {**found, "worst": worst}, chance, examples),
        large_noise(sizes[-1], _percent(climbed)[-1], chance),
        transfer(phi, white, by),
        black_box(phi, tried, broken, why_not),
        random_noise(phi, found, examples),
        zero_gradients(zeros[rows], samples.images.shape[-1], examples),
        no_noise(found, float(clean)),
    )
    words = {
        "r1": "R1, one step",
        "r2": "R2, one step, within the ball",
        "pgd": f"PGD, {steps} steps, {restarts} start{'s' * (restarts > 1)}",
        "transfer": f"R1 noise of {len(others)} other net{'s' * (len(others) > 1)}",
        "random": f"random signs, {tries} draws",
        "square": f"broken by Square, {square_queries} queries",
        "worst": "worst case",
    }
    parameters = {
        "clip": clip,
        "steps": steps,
        "restarts": restarts,
        "tries": tries,
        "square_queries": square_queries,
        "square_examples": square_examples,
        "seed": seed,
        "others": list(others),
        "examples": examples,
        "dtype": str(net.dtype),
    }
    return Audit(phi, standing, tried, broken, words, verdicts, chance, parameters)


# The rules. Accuracies are in percent, (phi,); phi[0] is 0, where nothing can differ but by a fault.


def iterative(phi: Sequence[float], found: Accuracies, examples: int) -> Verdict:
    """Many steps must find what one step finds: PGD - min(R1, R2)."""
    single = np.minimum(found["r1"], found["r2"])
    more, k = _largest(found["pgd"] - single)
    return Verdict(
        "iterative",
        "Is PGD at least as strong as a single step?",
        more,
        _points(SLACK, examples),
        f"at phi {phi[k]:g}: {found['pgd'][k]:.2f} % under PGD, {single[k]:.2f} % under the stronger of R1 and R2",
    )


def undecided(pgd: FloatArray, clean: float) -> int:
    """Return the index of the phi where the most is at stake: the accuracy nearest to half the clean one."""
    return _largest(-abs(pgd - clean / 2))[1]


def converged(phi: float, before: float, after: float, steps: int, examples: int) -> Verdict:
    """More steps must find nothing more: the accuracy before, less that after steps twice as many."""
    return Verdict(
        "converged",
        "Do more steps change nothing?",
        float(before - after),
        _points(CONVERGED, examples),
        f"at phi {phi:g}, where most is at stake: {before:.2f} % under PGD, {after:.2f} % after {steps} steps as well",
    )


def monotone(phi: Sequence[float], found: Accuracies, chance: float, examples: int) -> Verdict:
    """A larger ball holds the smaller one: the largest rise of any accuracy with phi, as far as it is above chance."""
    rises = {}
    for name, values in found.items():
        level = np.maximum(values, chance)
        rises[name] = _largest(level - np.minimum.accumulate(level))
    name = max(rises, key=lambda one: rises[one][0])
    rise, k = rises[name]
    return Verdict(
        "monotone",
        "Does more noise never help?",
        rise,
        _points(SLACK, examples),
        f"under {name} it rises up to phi {phi[k]:g}, by {rise:.2f} points" if rise else "no accuracy rises with phi",
    )


def large_noise(phi: float, found: float, chance: float) -> Verdict:
    """At a large phi there is nothing left to see: accuracy under PGD, at most that of a guess."""
    return Verdict(
        "large noise",
        "Does large noise bring the net down to chance?",
        float(found),
        chance,
        f"at phi {phi:g}: {found:.2f} % under PGD, {chance:g} % by guessing",
    )


def transfer(phi: Sequence[float], white: BoolArray, by: Mapping[str, BoolArray]) -> Verdict:
    """Noise made without this net's gradient must not do what no noise made with it does.

    white: what stands under every attack that uses the gradient; by: what stands under the R1 noise of each other net;
    all (phi, N).
    """
    question, limit = "Does the noise of other nets find nothing new?", _points(SLACK, white.shape[-1])
    if not by:
        return Verdict("transfer", question, None, limit, "there is no other net to craft it")
    new, k = _largest(_percent(white & ~_all(by)))
    name = min(by, key=lambda one: by[one][-1].sum())
    return Verdict(
        "transfer",
        question,
        new,
        limit,
        f"at phi {phi[k]:g}: {new:.2f} % fall to it, and not to R1, R2 or PGD; "
        f"the strongest other net is {name}, {_percent(by[name])[-1]:.2f} % at phi {phi[-1]:g}",
    )


def black_box(phi: Sequence[float], tried: BoolArray, broken: BoolArray, why_not: str) -> Verdict:
    """An attack that sees no gradient must not break what has stood all that do; tried and broken: (phi, N)."""
    question, limit = "Does Square, a black-box attack, find nothing new?", _points(SLACK, tried.shape[-1])
    if why_not:
        return Verdict("black box", question, None, limit, f"Square was not run: {why_not}")
    new, k = _largest(_percent(broken))
    return Verdict(
        "black box",
        question,
        new,
        limit,
        f"at phi {phi[k]:g}: {new:.2f} % fall to it, and to no other attack, {broken[k].sum()} of the {tried[k].sum()} "
        "that it was tried on, those of the smallest margin",
    )


def random_noise(phi: Sequence[float], found: Accuracies, examples: int) -> Verdict:
    """Random noise must be weaker than what follows the gradient: max(R1, PGD) - random.

    R2 is not asked: its size follows the gradient, and may be next to nothing. Nor is transfer, whose strength
    depends on the other nets.
    """
    guided = np.maximum(found["r1"], found["pgd"])
    more, k = _largest(guided - found["random"])
    return Verdict(
        "random noise",
        "Is random noise the weakest?",
        more,
        _points(SLACK, examples),
        f"at phi {phi[k]:g}: {found['random'][k]:.2f} % under it, {guided[k]:.2f} % under the weaker of R1 and PGD; "
        "R2 is left out, as its size follows the gradient",
    )


def zero_gradients(zeros: IntArray, pixels: int, examples: int) -> Verdict:
    """An example whose gradient is 0 cannot be attacked by it, and stands for no good reason.

    zeros: for each example that the net is right on, how many of its `pixels` have a derivative of exactly 0.
    """
    blind = 100 * int((zeros == pixels).sum()) / examples
    return Verdict(
        "zero gradients",
        "Does every example have a gradient?",
        blind,
        SLACK,
        f"{blind:.2f} % of the examples have none, {100 * zeros.mean() / pixels:.2f} % of all derivatives are 0",
    )


def no_noise(found: Accuracies, clean: float) -> Verdict:
    """Without noise nothing may change: the largest difference from the clean accuracy at phi = 0."""
    away = max(abs(values[0] - clean) for values in found.values())
    return Verdict(
        "no noise",
        "Is the accuracy at phi 0 the clean one?",
        float(away),
        0.0,
        f"{clean:.2f} % on clean images, "
        + (f"off by {away:.2g} points under an attack" if away else "as under all attacks"),
    )


class _Told:
    """An attack that tells, after each batch, how many examples it is done with."""

    def __init__(self, attack: Attack, tell: Callable[[int], None]) -> None:
        self.norm, self.clip = attack.norm, attack.clip
        self._attack, self._tell, self._done = attack, tell, 0

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: np.random.Generator) -> Crafted:
        crafted = self._attack.craft(net, x, y, phi, rng)
        self._done += len(y)
        self._tell(self._done)
        return crafted


@dataclass(frozen=True)
class _InBall:
    """Noise of any size, brought into the ball of radius phi, as R2 noise is to be compared with the others."""

    noise: Noise
    norm: str = "linf"

    @property
    def clip(self) -> bool:
        return self.noise.clip

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: np.random.Generator) -> Crafted:
        images = self.noise.craft(net, x, y, phi, rng).images
        return Crafted(
            [project(image, x, size, self.norm, clip=self.clip) for image, size in zip(images, phi, strict=True)]
        )


def _look(net: Network, samples: Samples) -> tuple[BoolArray, FloatArray, IntArray]:
    """Return (N,) each: is it right, by how much, and how many derivatives of its loss by a pixel are exactly 0.

    The margin is the logit of the true class less the largest of the others.
    """
    found = []
    for start in range(0, len(samples), BLOCK):
        x, y = samples.batch(slice(start, start + BLOCK), net.dtype)
        run, xp = net.run(x, y), get_xp(x)
        true = y[:, None] == xp.arange(run.logits.shape[-1])
        margin = xp.where(true, run.logits, 0).sum(axis=-1) - xp.where(true, -np.inf, run.logits).max(axis=-1)
        right = run.logits.argmax(axis=-1) == y
        found.append([to_host(part) for part in (right, margin, (run.dx == 0).sum(axis=-1))])
    right, margin, zeros = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return right, margin, zeros


def _all(standing: Mapping[str, BoolArray]) -> BoolArray:
    """Return which examples stand under every attack."""
    every: BoolArray = np.logical_and.reduce(list(standing.values()))
    return every


def _percent(marked: BoolArray) -> FloatArray:
    """Return the share of the examples, the last axis, that are marked."""
    return np.asarray(100.0 * marked.sum(axis=-1) / marked.shape[-1])


def _points(points: float, examples: int) -> float:
    """Return `points`, or as many as FEW examples make where that is more."""
    return max(points, 100 * FEW / examples)


def _largest(values: FloatArray) -> tuple[float, int]:
    """Return the largest of the values above phi = 0, and its index; among equals that of the largest phi."""
    k = len(values) - 1 - int(values[:0:-1].argmax())
    return float(values[k]), k


def _square(queries: int, pixels: int) -> tuple[Attack | None, str]:
    """Return Square, or None and why it cannot run."""
    if math.isqrt(pixels) ** 2 != pixels:
        return None, f"it needs square images, found {pixels} pixels"
    try:
        from nnlite.interop.art import ArtAttack
    except NnliteError as error:
        return None, str(error)
    return ArtAttack("square", queries=queries), ""
