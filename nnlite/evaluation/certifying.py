"""The bracket: how many images are proven correct under all noise within phi, and how many are correct under attack.

The truth lies between the two. Certificates (nnlite.certify) bound it from below, Auto-PGD (nnlite.apgd) from above,
and both are asked of the same images.

Not every image is asked at every phi. What withstands all noise within phi withstands all noise within less, so an
image has to be proven at one phi before it is tried at the next. CROWN's bounds are not strictly monotone in phi; where
they fail at one phi and would hold at a larger one, a proof is lost, and none is gained wrongly. Noise that breaks an
image at phi is within every larger phi too, so a broken image cannot be proven there, and is not tried. At the phi
that breaks it first it is tried all the same: that it is not proven there is the test of both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nnlite.apgd import APGD
from nnlite.attacks import check_count
from nnlite.backend import Array, brief, get_xp, to_host
from nnlite.certify import is_proven
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import (
    BoolArray,
    FloatArray,
    IntArray,
    accuracy,
    blocks_of,
    check_phi,
    draw,
    evaluate_attack,
    length,
    on_gpu,
    percent,
)
from nnlite.evaluation.intervals import Limits, rows_of, wilson
from nnlite.evaluation.threads import OnProgress, OnShare, side_by_side
from nnlite.network import Network

CERTIFY_PHI = (0.01, 0.02, 0.05, 0.1)
BLOCK = 25  # images at a time: what is finished is kept in blocks


@dataclass(frozen=True)
class CertifyOptions:
    """What is asked of a bracket.

    Arguments:
        phi: The largest noise on a pixel, from 0 to 1; 0 is added to them.
        clip: Whether noise keeps pixels within [0, 1].
        examples: How many of the images given are drawn; None for all.
        seed: The seed of all that is drawn.
        splits: How many ReLUs a certificate may split for one image.

    NnliteError: a phi below 0 or above 1, the range of a pixel, none above 0, or a count that is too small.
    """

    phi: Sequence[float] = CERTIFY_PHI
    clip: bool = True
    examples: int | None = 100
    seed: int = 0
    splits: int = 256

    least: ClassVar[Mapping[str, int]] = {"examples": 1, "seed": 0, "splits": 0}  # the smallest number of each

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", check_phi(self.phi))
        if not 0 < max(self.phi) <= 1:
            raise NnliteError(
                f"phi: expected numbers from 0 to 1, the range of a pixel, one of them above 0, found {self.phi}"
            )
        for name, smallest in self.least.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_count(name, getattr(self, name), least=smallest))

    @property
    def sizes(self) -> tuple[float, ...]:
        """Each phi once, from 0 upwards."""
        return tuple(sorted({0.0, *self.phi}))

    def rows(self, count: int) -> IntArray:
        """Return which of `count` images are drawn."""
        return draw(count, count if self.examples is None else self.examples, self.seed)


@dataclass(frozen=True, eq=False)
class Bracket:
    """What is known of N images.

    Arguments:
        phi: The sizes of noise, rising from 0.
        proven: Which images no noise within phi can break, bool (phi, N).
        stands: Which images the attack leaves correct, bool (phi, N).
        rows: Which of the samples that were given they are, (N,).
        interrupted: Whether they are only the first of those that were asked for.
    """

    phi: tuple[float, ...]
    proven: BoolArray
    stands: BoolArray
    rows: IntArray
    interrupted: bool = False
    __repr__ = brief("phi", "accuracy", "rows", "interrupted")

    @property
    def accuracy(self) -> dict[str, FloatArray]:
        """Percent of the images, (phi,): "proven", "unknown", which are neither proven nor broken, and "worst" case."""
        parts = {"proven": self.proven, "unknown": self.stands & ~self.proven, "worst": self.stands}
        return {name: percent(marked) for name, marked in parts.items()}

    @property
    def intervals(self) -> dict[str, Limits]:
        """The 95 % intervals of `accuracy`, for all images that these were drawn from."""
        return {name: wilson(values, len(self.rows)) for name, values in self.accuracy.items()}

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each figure of `accuracy`, with its interval, as a data frame or a CSV file takes them."""
        return rows_of("bound", self.phi, self.accuracy, self.intervals)

    @property
    def contradictions(self) -> BoolArray:
        """Which images are both proven and broken, bool (phi, N): there may be none, or nnlite is wrong."""
        return self.proven & ~self.stands


def bracket(
    net: Network,
    samples: Samples,
    options: CertifyOptions = CertifyOptions(),
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> Bracket:
    """Certify and attack the images that the options draw, and return what is known of them.

    KeyboardInterrupt ends the work, and what is known of the images that are finished is returned; with none of them
    it goes on to the caller.

    Arguments:
        net: One net, not a stack, of Dense and ReLU layers; of several heads it is the main one that is asked.
        samples: The images and their labels.
        options: What is asked.
        on_progress: Called with how many images are done, which may be a fraction, and of how many.

    NnliteError: a stack, a layer that has no relaxation, and samples that do not fit the net.
    """
    rows, samples = drawn(net, samples, options)
    (proven, stands), interrupted = in_blocks(lambda block, show: _ask(net, block, options, show), samples, on_progress)
    return Bracket(options.sizes, proven, stands, rows[: proven.shape[-1]], interrupted)


def drawn(net: Network, samples: Samples, options: CertifyOptions) -> tuple[IntArray, Samples]:
    """Return which samples the options draw, and those; NnliteError for a stack, and for samples that do not fit."""
    rows = options.rows(len(samples))
    samples = samples[get_xp(samples.labels).asarray(rows)]
    if accuracy(net, samples).ndim:
        raise NnliteError("net: expected one net, found a stack; certify its nets one by one")
    return rows, samples


def in_blocks(
    ask: Callable[[Samples, OnShare], tuple[Array, ...]],
    samples: Samples,
    on_progress: OnProgress,
) -> tuple[list[Array], bool]:
    """Return what `ask` finds of the samples, asked in blocks and joined (..., N), and whether it was interrupted.

    `ask` is given something to call with the share of its block that is done. After KeyboardInterrupt N counts the
    samples of the blocks that are finished; with none of them it goes on.
    """
    blocks, found, interrupted = blocks_of(len(samples), BLOCK), [], False

    def work(number: int, on_share: OnShare) -> tuple[Array, ...]:
        return ask(samples[blocks[number]], on_share)

    try:
        for one in side_by_side(work, [*map(length, blocks)], on_progress, alone=on_gpu(samples)):
            found.append(one)  # one by one, to have what is finished when it is interrupted
    except KeyboardInterrupt:
        if not found:
            raise
        interrupted = True
    return [np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)], interrupted


def prove(
    net: Network,
    samples: Samples,
    stands: BoolArray,
    options: CertifyOptions,
    on_share: OnShare = lambda share: None,
) -> BoolArray:
    """Return which of N images are proven at each of `options.sizes`, bool (phi, N).

    Arguments:
        net: One net, not a stack.
        samples: The images and their labels.
        stands: Which images an attack leaves correct, bool (phi, N).
        options: What is asked.
        on_share: Called with the share that is done, before each phi.
    """
    (x, y), proven, left = samples.batch(slice(None), net.dtype), np.zeros_like(stands), np.arange(len(samples))
    asked = {"clip": options.clip, "splits": options.splits}
    for k, size in enumerate(options.sizes):
        on_share(k / len(options.sizes))
        some = get_xp(x).asarray(left)
        proven[k, left] = to_host(is_proven(net, x[some], y[some], size, **asked, box=samples.box.take(left)))
        left = np.flatnonzero(proven[k] & stands[k])
    return proven


def _ask(net: Network, samples: Samples, options: CertifyOptions, on_share: OnShare) -> tuple[BoolArray, BoolArray]:
    """Return which of a block of samples are proven, and which stand, at each phi: (phi, N) each."""
    phi, attack = options.sizes, APGD(clip=options.clip)
    one = samples[:1]
    is_proven(net, *one.batch(slice(None), net.dtype), 0.0, box=one.box)  # refuses what has no proof
    # the attack is half of it, the certificates are the rest
    table = evaluate_attack(
        net, {"net": net}, samples, attack, phi, on_progress=lambda done, total: on_share(done / total / 2)
    )
    stands = table.correct["net"]
    return prove(net, samples, stands, options, lambda share: on_share((1 + share) / 2)), stands
