"""The audit: a net under several attacks, and what a reviewer would ask about them (Carlini et al. 2019).

The threat model is noise of at most phi on each pixel, the L-infinity ball, and with `clip` pixels within [0, 1]. The
attacks are the rows of ATTACKS, and Square on what they leave. An example counts as robust at phi only if it is
correct under every attack at that phi. The questions are the rules of nnlite.evaluation.verdicts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnlite.attacks import PGD, R1, R2, Attack, Crafted, Noise, check_count, project
from nnlite.backend import Array, get_xp, to_host
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation import verdicts as ask
from nnlite.evaluation.accuracy import BLOCK, PAPER_PHI, BoolArray, FloatArray, accuracy, check_phi, evaluate_attack
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.evaluation.verdicts import FAIL, IntArray, Verdict, all_correct, percent
from nnlite.init import generator
from nnlite.network import Network

LARGE = 0.5  # a phi at which every image can become the same grey one

OnProgress = Callable[[int, int, str], None]  # is told how many images are done, of how many, and under which attack


@dataclass(frozen=True)
class AuditOptions:
    """What is asked of an audit, and how hard it tries.

    Arguments:
        phi: The sizes of noise; 0 is added to them.
        clip: Whether pixels stay within [0, 1]. Square always keeps them there.
        steps: The steps of PGD.
        restarts: The starts of PGD, of which the first is the image itself.
        tries: How many random signs are drawn for each pixel.
        square_queries: How often Square asks for the logits of an image.
        square_examples: On how many examples Square is tried at each phi, at most.
        seed: The seed of all that is drawn.
        examples: How many examples are drawn from those given; None for all.

    NnliteError: a phi that is negative or not finite, none above 0, or a count below 1.
    """

    phi: Sequence[float] = PAPER_PHI
    clip: bool = True
    steps: int = 40
    restarts: int = 5
    tries: int = 20
    square_queries: int = 1000
    square_examples: int = 500
    seed: int = 0
    examples: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", check_phi(self.phi))
        if not any(self.phi):
            raise NnliteError(f"phi: expected numbers of at least 0, one of them above 0, found {self.phi}")
        for name in ("steps", "restarts", "tries", "square_queries", "square_examples", "examples"):
            if name != "examples" or self.examples is not None:
                object.__setattr__(self, name, check_count(name, getattr(self, name)))
        object.__setattr__(self, "seed", check_count("seed", self.seed, least=0))

    @property
    def sizes(self) -> tuple[float, ...]:
        """Each phi once, from 0 upwards."""
        return tuple(sorted({0.0, *self.phi}))

    def rows(self, count: int) -> IntArray:
        """Return which of `count` examples are audited; drawn, as the first of MNIST's test images are the easier."""
        if self.examples is None or self.examples >= count:
            return np.arange(count)
        return np.sort(generator(self.seed, "split").choice(count, self.examples, replace=False))


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
        "R2", lambda asked: "R2, one step, within the ball", lambda asked: _InBall(replace(R2, clip=asked.clip))
    ),
    "pgd": AuditAttack(
        "PGD",
        lambda asked: f"PGD, {asked.steps} steps, {_count(asked.restarts, 'start')}",
        lambda asked: PGD(steps=asked.steps, restarts=asked.restarts, clip=asked.clip),
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
class Audit:
    """What was found on N examples.

    Arguments:
        phi: The sizes of noise, rising from 0.
        correct: Which examples are still correct under each attack, bool (phi, N); without Square, which is tried on a
            part of them.
        tried: The examples that Square was tried on, bool (phi, N).
        broken: Those of them that it broke.
        descriptions: What each attack does, for people.
        verdicts: The answers to the questions.
        chance: The accuracy of a guess, in percent.
        parameters: How hard each attack tried.
        rows: Which of the samples that were given are the examples, (N,).
    """

    phi: tuple[float, ...]
    correct: dict[str, BoolArray]
    tried: BoolArray
    broken: BoolArray
    descriptions: dict[str, str]
    verdicts: tuple[Verdict, ...]
    chance: float
    parameters: dict[str, Any]
    rows: IntArray

    @property
    def worst(self) -> BoolArray:
        """Which examples are correct under every attack, Square included, at each phi: bool (phi, N)."""
        return all_correct(self.correct) & ~self.broken

    @property
    def accuracy(self) -> dict[str, FloatArray]:
        """Percent, (phi,), for each attack of `correct` and, last, for the "worst" case."""
        return {name: percent(ones) for name, ones in {**self.correct, "worst": self.worst}.items()}

    @property
    def failed(self) -> bool:
        """Whether a verdict failed."""
        return any(verdict.answer == FAIL for verdict in self.verdicts)


def audit(
    net: Network,
    samples: Samples,
    others: Mapping[str, Network],
    options: AuditOptions = AuditOptions(),
    *,
    on_progress: OnProgress = lambda done, total, what: None,
) -> Audit:
    """Attack a net in several ways and return how it does, with a verdict on each question.

    Arguments:
        net: One net, not a stack.
        samples: The images and their labels.
        others: The nets that craft the transferred noise, by name; there may be none.
        options: What is asked.
        on_progress: Called with how many images are done, of how many, and under which attack.

    NnliteError: nets that do not fit the samples, a stack, or a net that is right on none of the samples.
    """
    rows = options.rows(len(samples))
    samples = samples[get_xp(samples.labels).asarray(rows)]
    clean = accuracy(net, samples)
    if clean.ndim:
        raise NnliteError(f"net: expected one net, found a stack of {clean.size}; audit them one by one")
    right, margin, zeros = _look(net, samples)
    if not right.any():
        raise NnliteError(f"net: it is right on none of {len(samples)} examples, so there is nothing to attack")

    phi, trial = options.sizes, _Trial(net, samples, options, on_progress)
    correct, by = trial.under_all(right, others)
    white = all_correct({name: correct[name] for name, attack in ATTACKS.items() if attack.by == "net"})
    large = correct["pgd"][-1:]
    if phi[-1] < LARGE:
        large = trial.under(f"PGD at phi {LARGE:g}", ATTACKS["pgd"].make(options), (LARGE,), right)
    k = ask.undecided(percent(correct["pgd"]), float(clean))
    doubled = PGD(steps=2 * options.steps, clip=options.clip)
    twice = trial.under("twice the steps", doubled, (phi[k],), correct["pgd"][k])
    square, why_not = _square(options, samples.images.shape[-1])
    tried, broken = trial.broken_by(square, all_correct(correct), margin)

    chance = 100 / net.sizes[-1]
    found = {name: percent(ones) for name, ones in correct.items()}
    worst = percent(all_correct(correct) & ~broken)
    verdicts = (
        ask.iterative(phi, found, len(samples)),
        ask.converged(phi[k], found["pgd"][k], percent(twice)[0], doubled.steps, len(samples)),
        ask.monotone(phi, {**found, "worst": worst}, chance, len(samples)),
        ask.large_noise(max(phi[-1], LARGE), percent(large)[0], chance),
        ask.transfer(phi, white, by),
        ask.black_box(phi, tried, broken, why_not),
        ask.random_noise(phi, found, len(samples)),
        ask.zero_gradients(zeros[right], samples.images.shape[-1], len(samples)),
        ask.no_noise(found, float(clean)),
    )
    effort = {name: value for name, value in vars(options).items() if name not in ("phi", "examples")}
    parameters = effort | {"others": list(others), "examples": len(samples), "dtype": str(net.dtype)}
    return Audit(phi, correct, tried, broken, _describe(options, len(others)), verdicts, chance, parameters, rows)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A net under audit, and the N samples that it is attacked on."""

    net: Network
    samples: Samples
    options: AuditOptions
    on_progress: OnProgress

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

    def under_all(
        self, tried: BoolArray, others: Mapping[str, Network]
    ) -> tuple[dict[str, BoolArray], dict[str, BoolArray]]:
        """Return which samples are correct under each row of ATTACKS, and under the noise of each of the others."""
        correct, by = {}, {}
        for name, row in ATTACKS.items():
            attack, phi = row.make(self.options), self.options.sizes
            if row.by == "others":
                by = {other: self.under(f"{row.label} {other}", attack, phi, tried, others[other]) for other in others}
                if by:
                    correct[name] = all_correct(by)
            else:
                correct[name] = self.under(row.label, attack, phi, tried)
        return correct, by

    def broken_by(self, square: Attack | None, left: BoolArray, margin: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Return on which samples Square is tried, and which of them it breaks, (phi, N) each.

        At each phi above 0 they are those of the smallest margin, (N,), among those that are `left`, (phi, N).
        """
        tried, broken = np.zeros_like(left), np.zeros_like(left)
        for k, size in enumerate(self.options.sizes):
            if square and size:
                nearest = np.flatnonzero(left[k])[margin[left[k]].argsort()][: self.options.square_examples]
                tried[k, nearest] = True
                broken[k] = tried[k] & ~self.under(f"Square at phi {size:g}", square, (size,), tried[k])[0]
        return tried, broken


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


def _square(options: AuditOptions, pixels: int) -> tuple[Attack | None, str]:
    """Return Square, or None and why it cannot run."""
    if math.isqrt(pixels) ** 2 != pixels:
        return None, f"it needs square images, found {pixels} pixels"
    try:
        from nnlite.interop.art import ArtAttack
    except NnliteError as error:
        return None, str(error)
    return ArtAttack("square", queries=options.square_queries), ""


def _describe(options: AuditOptions, others: int) -> dict[str, str]:
    """Return what each attack does, in words."""
    return {
        **{name: row.description(options) for name, row in ATTACKS.items()},
        "transfer": f"R1 noise of {_count(others, 'other net')}",
        "square": f"broken by Square, {options.square_queries} queries",
        "worst": "worst case",
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
