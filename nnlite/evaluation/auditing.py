"""The audit: a net under several attacks, and what a reviewer would ask about them (Carlini et al. 2019).

The threat model is noise of at most phi on each pixel, the L-infinity ball, and with `clip` pixels within [0, 1]. The
attacks are the rows of ATTACKS, and then others on what those leave. An example counts as robust at phi only if it is
correct under every attack at that phi and below: that is the worst case, an upper bound. For some examples a lower
bound stands beside it, what is proven. The questions are the rules of nnlite.evaluation.verdicts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.random import Generator

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, R2, Attack, Crafted, Noise, project
from nnlite.backend import Array, brief, get_xp, to_host
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation import verdicts as ask
from nnlite.evaluation.accuracy import (
    BLOCK,
    PAPER_PHI,
    BoolArray,
    FloatArray,
    IntArray,
    accuracy,
    blocks_of,
    draw,
    evaluate_attack,
    on_gpu,
    percent,
)
from nnlite.evaluation.certifying import BLOCK as PROVEN_AT_A_TIME
from nnlite.evaluation.certifying import Bracket, CertifyOptions, prove
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.intervals import Limits, rows_of, wilson
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.evaluation.threads import OnShare, side_by_side
from nnlite.evaluation.verdicts import FAIL, Verdict, all_correct
from nnlite.inputs import UNIT, Box
from nnlite.network import Network

LARGE = 0.5  # a phi at which every image can become the same grey one

OnProgress = Callable[[float, int, str], None]  # is told how many images are done, of how many, and under which attack


@dataclass(frozen=True)
class AuditOptions(CertifyOptions):
    """What is asked of an audit, and how hard it tries, beside what a bracket is asked.

    Arguments:
        steps: The steps of PGD.
        restarts: The starts of PGD, of which the first is the image itself.
        apgd_steps: The steps of APGD from each start.
        apgd_restarts: The starts of APGD.
        tries: How many random signs are drawn for each pixel.
        square_queries: How often Square asks for the logits of an image; it keeps pixels within [0, 1], always.
        square_examples: On how many examples Square is tried at each phi, at most.
        proven: For how many examples, drawn from those audited, a lower bound is computed; 0 for none.
    """

    phi: Sequence[float] = PAPER_PHI
    examples: int | None = None
    steps: int = 40
    restarts: int = 1
    apgd_steps: int = APGD.steps
    apgd_restarts: int = APGD.restarts
    tries: int = 20
    square_queries: int = 1000
    square_examples: int = 100
    proven: int = 100

    least: ClassVar[Mapping[str, int]] = {
        **CertifyOptions.least,
        **dict.fromkeys(
            ("steps", "restarts", "apgd_steps", "apgd_restarts", "tries", "square_queries", "square_examples"), 1
        ),
        "proven": 0,
    }


@dataclass(frozen=True)
class AuditAttack:
    """A row: an attack that an audit runs on every example.

    Arguments:
        label: What is said to be under way.
        description: Says what it does, for the table.
        make: Makes it.
        by: What it is crafted with: "net", the gradient of the audited net, "others", those of the other nets, each of
            which crafts, or "chance".
    """

    label: str
    description: Callable[[AuditOptions], str]
    make: Callable[[AuditOptions], Attack]
    by: str = "net"


ATTACKS = {
    "r1": AuditAttack("R1", lambda asked: "R1, one step", lambda asked: replace(R1, clip=asked.clip)),
    "r2": AuditAttack(
        "R2", lambda asked: "R2, one step, in the ball", lambda asked: _InBall(replace(R2, clip=asked.clip))
    ),
    "pgd": AuditAttack(
        "PGD",
        lambda asked: f"PGD, {asked.steps} steps, {_count(asked.restarts, 'start')}",
        lambda asked: PGD(steps=asked.steps, restarts=asked.restarts, clip=asked.clip),
    ),
    "apgd": AuditAttack(
        "APGD",
        lambda asked: f"APGD, {asked.apgd_steps} steps, {_count(asked.apgd_restarts, 'start')}",
        lambda asked: APGD(steps=asked.apgd_steps, restarts=asked.apgd_restarts, clip=asked.clip),
    ),
    "transfer": AuditAttack("noise of", lambda asked: "R1 noise", lambda asked: replace(R1, clip=asked.clip), "others"),
    "random": AuditAttack(
        "random signs",
        lambda asked: f"random signs, {asked.tries} draws",
        lambda asked: RandomSigns(asked.tries, asked.clip),
        "chance",
    ),
}


@dataclass(frozen=True, eq=False)
class FollowUp:
    """What attacks find that are tried only where all before them have failed.

    Arguments:
        description: What they do, for people.
        tried: The examples that they were tried on, bool (phi, N).
        broken: Those of them that they broke.
        why_not: Why they could not be tried, "" if they could.
    """

    description: str
    tried: BoolArray
    broken: BoolArray
    why_not: str = ""
    __repr__ = brief()


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found on N examples.

    Arguments:
        phi: The sizes of noise, rising from 0.
        correct: Which examples are still correct under each attack of ATTACKS, bool (phi, N).
        follow_ups: What the attacks found that were tried on what those leave, by name.
        bracket: Some of the examples, with what is proven of them; None where nothing was.
        descriptions: What each attack does, for people.
        verdicts: The answers to the questions.
        chance: The accuracy of a guess, in percent.
        parameters: How hard each attack tried.
        rows: Which of the samples that were given are the examples, (N,).
        labels: The class of each example, (N,).
        interrupted: Whether Ctrl-C ended it; then only what was finished before is here.
    """

    phi: tuple[float, ...]
    correct: dict[str, BoolArray]
    follow_ups: dict[str, FollowUp]
    bracket: Bracket | None
    descriptions: dict[str, str]
    verdicts: tuple[Verdict, ...]
    chance: float
    parameters: dict[str, Any]
    rows: IntArray
    labels: IntArray
    interrupted: bool = False
    __repr__ = brief("phi", "accuracy", "failed", "bracket", "rows", "interrupted")

    @property
    def worst(self) -> BoolArray:
        """Which examples are correct under every attack at each phi and below it, bool (phi, N).

        What breaks an example lies in every larger ball, too.
        """
        return worst_case(self.correct, self.follow_ups)

    @property
    def accuracy(self) -> dict[str, FloatArray]:
        """Percent, (phi,), for each attack of `correct` and, last, for the "worst" case."""
        return {name: percent(ones) for name, ones in {**self.correct, "worst": self.worst}.items()}

    @property
    def by_class(self) -> dict[int, FloatArray]:
        """The worst case of each class that is among the examples: percent of its own, (phi,)."""
        return {int(label): percent(self.worst[:, self.labels == label]) for label in np.unique(self.labels)}

    @property
    def balanced(self) -> FloatArray:
        """The balanced accuracy in the worst case, (phi,): the mean over the classes, whatever their size."""
        return np.mean([*self.by_class.values()], axis=0)

    @property
    def intervals(self) -> dict[str, Limits]:
        """The 95 % interval of each accuracy over the examples."""
        return {name: wilson(values, len(self.rows)) for name, values in self.accuracy.items()}

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each accuracy, with its interval, as a data frame or a CSV file takes them.

        Attacks come first, then the worst case, and what is proven and unknown of the examples of `bracket`.
        """
        found = [
            row | {"examples": len(self.rows)} for row in rows_of("attack", self.phi, self.accuracy, self.intervals)
        ]
        if self.bracket is None:
            return found
        kept = {name: values for name, values in self.bracket.accuracy.items() if name != "worst"}
        more = rows_of("attack", self.bracket.phi, kept, self.bracket.intervals)
        return found + [row | {"examples": len(self.bracket.rows)} for row in more]

    @property
    def failed(self) -> bool:
        """Whether a verdict failed."""
        return any(verdict.answer == FAIL for verdict in self.verdicts)


def worst_case(correct: Mapping[str, BoolArray], follow_ups: Mapping[str, FollowUp]) -> BoolArray:
    """Return which examples are correct under every attack at each phi and below it, bool (phi, N)."""
    left = all_correct({**correct, **{name: ~one.broken for name, one in follow_ups.items()}})
    return np.logical_and.accumulate(left, axis=0)


def audit(
    net: Network,
    samples: Samples,
    others: Mapping[str, Network],
    options: AuditOptions = AuditOptions(),
    *,
    on_progress: OnProgress = lambda done, total, what: None,
) -> Audit:
    """Attack a net in several ways and return how it does, with a verdict on each question.

    KeyboardInterrupt ends it early, with what was finished by then; with nothing it goes on to the caller.

    Arguments:
        net: One net, not a stack.
        samples: The images and their labels.
        others: The nets that craft the transferred noise, by name; there may be none.
        options: What is asked.
        on_progress: Called with how many images are done, which may be a fraction, of how many, and under which attack.

    NnliteError: nets that do not fit the samples, a stack, or a net that is right on none of the samples.
    """
    rows = options.rows(len(samples))
    samples = samples[get_xp(samples.labels).asarray(rows)]
    clean = accuracy(net, samples)
    if clean.ndim:
        raise NnliteError(f"net: expected one net, found a stack of {clean.size}; audit them one by one")
    without_noise = _look(net, samples)
    if not without_noise.right.any():
        raise NnliteError(f"net: it is right on none of {len(samples)} examples, so there is nothing to attack")
    trial = _Trial(net, samples, options, on_progress, without_noise)
    try:
        trial.run(others)
    except KeyboardInterrupt:
        if not trial.correct:
            raise
        trial.interrupted = True
    effort = {name: value for name, value in vars(options).items() if name not in ("phi", "examples")}
    return Audit(
        phi=options.sizes,
        correct=trial.correct,
        follow_ups=trial.follow_ups,
        bracket=trial.bracket and replace(trial.bracket, rows=rows[trial.bracket.rows]),
        descriptions=_describe(options, len(others)),
        verdicts=tuple(trial.verdicts(float(clean))),
        chance=100 / net.sizes[-1],
        parameters=effort | {"others": list(others), "examples": len(samples), "dtype": str(net.dtype)},
        rows=rows,
        labels=to_host(samples.labels),
        interrupted=trial.interrupted,
    )


class _Clean(NamedTuple):
    """The N samples without noise: is each right, by what margin, and how many of its derivatives are exactly 0."""

    right: BoolArray
    margin: FloatArray
    zeros: IntArray


@dataclass(eq=False)
class _Trial:
    """A net under audit, the N samples that it is attacked on, and what has been found so far."""

    net: Network
    samples: Samples
    options: AuditOptions
    on_progress: OnProgress
    clean: _Clean
    correct: dict[str, BoolArray] = field(default_factory=dict)
    by: dict[str, BoolArray] = field(default_factory=dict)  # under the noise of each of the others
    follow_ups: dict[str, FollowUp] = field(default_factory=dict)
    large: FloatArray | None = None  # the accuracy under PGD at a phi of LARGE or more
    bracket: Bracket | None = None
    no_proof: str = ""  # why nothing could be proven
    interrupted: bool = False

    def run(self, others: Mapping[str, Network]) -> None:
        """Find everything, one part after another; where it is stopped, what was found before is kept."""
        asked, phi = self.options, self.options.sizes
        for name, row in ATTACKS.items():
            attack = row.make(asked)
            if row.by == "others":
                for other, crafting in others.items():
                    self.by[other] = self.under(f"{row.label} {other}", attack, phi, self.clean.right, crafting)
                if self.by:
                    self.correct[name] = all_correct(self.by)
            else:
                self.correct[name] = self.under(row.label, attack, phi, self.clean.right)
        large = self.correct["pgd"][-1:]
        if phi[-1] < LARGE:
            large = self.under(f"PGD at phi {LARGE:g}", ATTACKS["pgd"].make(asked), (LARGE,), self.clean.right)
        self.large = percent(large)

        k = ask.undecided(percent(self.white), float(percent(self.clean.right)))
        left = all_correct(self.correct)
        again = APGD(steps=2 * asked.apgd_steps, restarts=2, clip=asked.clip)
        doubled = {f"APGD, {again.steps} steps": again}
        self.follow_ups["more steps"] = self.tried_on("more steps", doubled, {k: np.flatnonzero(left[k])})
        left &= ~self.follow_ups["more steps"].broken
        stride = PGD(steps=asked.steps, restarts=2, stride=0.5, clip=asked.clip)
        targets = APGD(steps=(asked.apgd_steps + 1) // 2, losses=("targets",), clip=asked.clip)
        search: dict[str, Attack] = {
            "PGD, strides of phi / 2": stride,
            "APGD towards each class": targets,
            "FMN": FMN(clip=asked.clip),
        }
        self.follow_ups["search"] = self.tried_on("another search", search, {k: np.flatnonzero(left[k])})

        square, why_not = _square(asked, self.samples.shape)
        left = worst_case(self.correct, self.follow_ups)
        nearest = {
            k: np.flatnonzero(left[k])[self.clean.margin[left[k]].argsort()][: asked.square_examples]
            for k in range(1, len(phi))
            if square
        }
        self.follow_ups["square"] = self.tried_on("Square", {"Square": square} if square else {}, nearest, why_not)
        self.bracket, self.no_proof = self.prove()

    @property
    def white(self) -> BoolArray:
        """Which samples every attack that uses this net's gradient leaves correct, (phi, N)."""
        return all_correct({name: self.correct[name] for name, row in ATTACKS.items() if row.by == "net"})

    def under(
        self, what: str, attack: Attack, phi: Sequence[float], tried: BoolArray, crafting: Network | None = None
    ) -> BoolArray:
        """Return which samples are correct under `attack` at each phi, (phi, N), given which are `tried`, (N,).

        Those that are not tried are not correct. `crafting` crafts the noise; without it the net itself does.
        """
        correct, rows = np.zeros((len(phi), len(tried)), bool), np.flatnonzero(tried)
        if rows.size:
            table = evaluate_attack(
                self.net if crafting is None else crafting,
                {"net": self.net},
                self.samples[get_xp(self.samples.labels).asarray(rows)],
                attack,
                phi,
                seed=self.options.seed,
                on_progress=lambda done, total: self.on_progress(done, total, what),
            )
            correct[:, rows] = table.correct["net"]
        return correct

    def tried_on(
        self, words: str, attacks: Mapping[str, Attack], rows: Mapping[int, IntArray], why_not: str = ""
    ) -> FollowUp:
        """Return what several attacks, one after another, break of the samples `rows` of each phi, by its index."""
        tried = np.zeros((len(self.options.sizes), len(self.clean.right)), bool)
        left = tried.copy()
        for k, some in rows.items():
            size = self.options.sizes[k]
            tried[k, some] = left[k, some] = True
            for name, attack in attacks.items():
                left[k] = self.under(f"{name} at phi {size:g}", attack, (size,), left[k])[0]
        return FollowUp(f"fell to {words}", tried, tried & ~left, why_not)

    def prove(self) -> tuple[Bracket | None, str]:
        """Return what is proven of `options.proven` samples, or None and why nothing is."""
        asked, worst = self.options, worst_case(self.correct, self.follow_ups)
        places = draw(len(self.clean.right), asked.proven, asked.seed)
        if not places.size:
            return None, "none was asked for"
        blocks = [places[rows] for rows in blocks_of(len(places), PROVEN_AT_A_TIME)]

        def work(number: int, on_share: OnShare) -> BoolArray:
            some = blocks[number]
            samples = self.samples[get_xp(self.samples.labels).asarray(some)]
            return prove(self.net, samples, worst[:, some], asked, on_share)

        def show(done: float, total: int) -> None:
            self.on_progress(done, total, "certificates")

        try:
            proven = [*side_by_side(work, [*map(len, blocks)], show, alone=on_gpu(self.samples))]
        except NnliteError as error:
            return None, str(error)
        return Bracket(asked.sizes, np.concatenate(proven, axis=-1), worst[:, places], places), ""

    def verdicts(self, clean: float) -> Iterator[Verdict]:
        """Yield the answer to each question that can be asked of what was found."""
        if not self.correct.keys() >= {name for name, row in ATTACKS.items() if row.by != "others"}:
            return
        phi, count, chance = self.options.sizes, len(self.clean.right), 100 / self.net.sizes[-1]
        found, white = {name: percent(ones) for name, ones in self.correct.items()}, self.white
        yield ask.iterative(phi, found, count)
        for name, rule in (("more steps", ask.converged), ("search", ask.other_search)):
            if name in self.follow_ups:
                yield rule(phi, percent(white), self.follow_ups[name].tried, self.follow_ups[name].broken)
        yield ask.monotone(phi, found, chance, count)
        if self.large is not None:
            yield ask.large_noise(max(phi[-1], LARGE), float(self.large[0]), chance)
        yield ask.transfer(phi, white, self.by)
        if "square" in self.follow_ups:
            square = self.follow_ups["square"]
            yield ask.black_box(phi, square.tried, square.broken, square.why_not)
        yield ask.random_noise(phi, found, count)
        yield ask.zero_gradients(self.clean.zeros[self.clean.right], self.samples.images.shape[-1], count)
        yield ask.no_noise(found, clean)
        if self.bracket or self.no_proof:
            yield ask.sound(self.bracket, self.no_proof)


@dataclass(frozen=True)
class _InBall:
    """Noise of any size, brought into the ball of radius phi, as R2 noise is to be compared with the others."""

    noise: Noise
    norm: str = "linf"

    @property
    def clip(self) -> bool:
        return self.noise.clip

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        images, limits = self.noise.craft(net, x, y, phi, rng, box).images, box.like(x) if self.clip else None
        return Crafted([project(image, x, size, self.norm, limits) for image, size in zip(images, phi, strict=True)])


def _look(net: Network, samples: Samples) -> _Clean:
    """Look at the samples without noise; the margin is the logit of the true class less the largest of the others."""
    found = []
    for start in range(0, len(samples), BLOCK):
        x, y = samples.batch(slice(start, start + BLOCK), net.dtype)
        run, xp = net.run(x, y), get_xp(x)
        true = y[:, None] == xp.arange(run.logits.shape[-1])
        margin = xp.where(true, run.logits, 0).sum(axis=-1) - xp.where(true, -np.inf, run.logits).max(axis=-1)
        right = run.logits.argmax(axis=-1) == y
        found.append([to_host(part) for part in (right, margin, (run.dx == 0).sum(axis=-1))])
    return _Clean(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _square(options: AuditOptions, shape: tuple[int, ...]) -> tuple[Attack | None, str]:
    """Return Square for images of this shape, () for rows, or None and why it cannot run."""
    try:
        from nnlite.interop.art import ArtAttack
    except NnliteError as error:
        return None, str(error)
    return ArtAttack("square", queries=options.square_queries, shape=shape or None), ""


def _describe(options: AuditOptions, others: int) -> dict[str, str]:
    """Return what each attack does, in words."""
    return {
        **{name: row.description(options) for name, row in ATTACKS.items()},
        "transfer": f"R1 noise of {_count(others, 'other net')}",
        "worst": "worst case",
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
