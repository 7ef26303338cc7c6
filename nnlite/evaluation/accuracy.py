"""Accuracy, clean and under attack: one adversary crafts, every victim is scored.

All figures are percentages. A stack of models gives one figure for each model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from nnlite.attacks import NORMS, Attack, Crafted
from nnlite.backend import Array, brief, get_xp, to_host
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation.aimed import Aimed
from nnlite.evaluation.passes import Passes, most_passes
from nnlite.evaluation.promises import check_crafted
from nnlite.evaluation.threads import OnProgress, OnShare, side_by_side
from nnlite.init import generator
from nnlite.inputs import check_labels
from nnlite.network import Network
from nnlite.storage.kinds import PHI

PAPER_PHI = (0.0, 0.005, 0.01, 0.05, 0.1)
BLOCK = 250  # examples at a time: memory does not grow with the data, and their activations stay in the cache

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AttackTable:
    """How every victim does under an attack.

    Arguments:
        phi: The sizes of noise.
        accuracy: In percent, by victim: (phi,), or (phi, S) for a stack of models.
        zero_share: The share of the adversary's input-gradient entries that are exactly 0; None if the attack does not
            count them. R1 leaves their pixels untouched, so a large share makes an attack look weaker than it is.
        correct: Which examples each victim still classifies correctly, (phi, N) or (phi, S, N).
        failed: On how many examples the attack itself failed, () or (S,); None for one that cannot fail.
        lengths: For an attack that searches for the smallest noise, the median size of what it found, in the L2 and
            the L-infinity norm.
        norm: What phi is measured in.
        reached: For an attack towards one class, the percentage of the examples of other classes that each victim takes
            for it, of the shape of `accuracy`; empty for others.
    """

    phi: tuple[float, ...]
    accuracy: dict[str, FloatArray]
    zero_share: float | None
    correct: dict[str, BoolArray] = field(default_factory=dict)
    failed: npt.NDArray[np.int64] | None = None
    lengths: dict[str, FloatArray] = field(default_factory=dict)
    norm: str | None = "linf"
    reached: dict[str, FloatArray] = field(default_factory=dict)
    __repr__ = brief()

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each accuracy, by plain names, as a data frame or a CSV file takes them."""
        found = []
        for victim, values in self.accuracy.items():
            for place, value in np.ndenumerate(values):  # (phi,), or (phi, S)
                model = {"model": place[1]} if place[1:] else {}
                reached = {"reached": float(self.reached[victim][place])} if self.reached else {}
                figures = {"phi": self.phi[place[0]], "accuracy": float(value), **reached}
                found.append({"victim": victim, **model, **figures})
        return found


def draw(count: int, number: int, seed: int) -> IntArray:
    """Return `number` of `count` examples, or all, in order; drawn, as the first of MNIST's test images are easier."""
    if number >= count:
        return np.arange(count)
    return np.sort(generator(seed, "split").choice(count, number, replace=False))


def percent(marked: BoolArray) -> FloatArray:
    """Return the share of the examples, the last axis, that are marked, in percent."""
    return np.asarray(100.0 * marked.sum(axis=-1) / marked.shape[-1])


def accuracy(net: Network, samples: Samples) -> FloatArray:
    """Return the percentage of `samples` that `net` classifies correctly, shape () or (S,)."""
    _check_fit([("net", net)], samples)
    blocks = blocks_of(len(samples))

    def count(number: int, _: OnShare) -> Array:
        x, y = samples.batch(blocks[number], net.dtype)
        return (net.predict(x) == y).sum(axis=-1)

    correct = [*side_by_side(count, [*map(length, blocks)], alone=on_gpu(samples))]
    return np.asarray(100.0 * to_host(sum(correct[1:], correct[0])) / len(samples))


def blocks_of(count: int, block: int = BLOCK) -> list[slice]:
    """Return the blocks of `count` samples."""
    return [slice(start, min(start + block, count)) for start in range(0, count, block)]


def length(block: slice) -> int:
    """Return how many samples a block has."""
    return int(block.stop - block.start)


def on_gpu(samples: Samples) -> bool:
    """Return whether the samples are on a GPU, which works on one block at a time."""
    return not isinstance(samples.images, np.ndarray)


def evaluate_attack(
    adversary: Network,
    victims: Mapping[str, Network],
    samples: Samples,
    attack: Attack,
    phi: Sequence[float] = PAPER_PHI,
    *,
    seed: int = 0,
    block: int = BLOCK,
    keep: Callable[[int, Sequence[Array]], None] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> AttackTable:
    """Craft noise of each size in `phi` with `adversary` and score every victim on it.

    At phi = 0 the images are the clean ones and the figure equals `accuracy`, bit for bit.

    Arguments:
        adversary: The net that crafts the noise.
        victims: The nets that are scored, by name.
        samples: The images and their labels.
        attack: How the noise is crafted.
        phi: The sizes of noise.
        seed: Of the generator that the attack draws from, one for each block.
        block: How many images are attacked at a time.
        keep: Called with each block of images before it is dropped: the number of its first image, and an array (n, D)
            for each phi.
        on_progress: Called with the number of images that are done, which may be a fraction, and of all, before the
            first block, within each, and after it.

    Blocks are attacked side by side, see `nnlite.evaluation.threads`.

    NnliteError: a phi that is negative or not finite, a net made for images of another size or for fewer classes, and
    samples that are all of the class that the attack is to reach.
    AssertionError: noise that is larger than the attack promises.
    """
    phi, labels = check_phi(phi), _on_host(samples.labels)
    _check_fit(chain([("adversary", adversary)], victims.items()), samples, labels=labels)
    target = attack.target if isinstance(attack, Aimed) else None
    others = None if target is None else _others(labels, target)
    classes: dict[str, list[Array]] = {name: [] for name in victims}
    zeros, entries, failed = [], 0, []
    lengths: dict[str, list[Array]] = {"l2": [], "linf": []}
    blocks, passes = blocks_of(len(samples), block), Passes(most_passes(attack, len(phi), adversary.sizes[-1]))

    def craft(number: int, on_share: OnShare) -> tuple[Array, Crafted, list[Array]]:
        rows = blocks[number]
        with passes.counted(adversary, on_share) as net:
            x, crafted = _craft(net, samples[rows], attack, phi, generator(seed, "attack", rows.start))
        xp, seen = get_xp(x), []
        for victim in victims.values():
            seen.append(xp.stack(xp.broadcast_arrays(*map(victim.predict, crafted.images))))
        return x, crafted, seen

    alone = on_gpu(samples) or getattr(attack, "one_at_a_time", False)
    with closing(side_by_side(craft, [*map(length, blocks)], on_progress, alone=alone)) as found:
        for rows, (x, crafted, seen) in zip(blocks, found, strict=True):
            if keep:
                keep(rows.start, crafted.images)
            for own, one in zip(classes.values(), seen, strict=True):
                own.append(one)
            if crafted.zeros is not None:
                zeros.append(crafted.zeros)
                entries += crafted.images[-1].size
            if crafted.failed is not None:
                failed.append(crafted.failed)
            if crafted.smallest is not None:
                noise = crafted.smallest - x
                for norm, measure in NORMS.items():
                    lengths[norm].append(measure(noise))
    predicted = {name: _joined(blocks) for name, blocks in classes.items()}
    correct = {name: seen == labels for name, seen in predicted.items()}
    return AttackTable(
        phi=phi,
        accuracy={name: np.asarray(100.0 * ones.sum(axis=-1) / len(samples)) for name, ones in correct.items()},
        zero_share=float(to_host(sum(zeros[1:], zeros[0]))) / entries if zeros else None,
        correct=correct,
        failed=_joined(failed).sum(axis=-1) if failed else None,
        lengths={norm: _median_above_0(_joined(blocks)) for norm, blocks in lengths.items() if blocks},
        norm=attack.norm,
        reached={name: percent(seen[..., others] == target) for name, seen in predicted.items() if target is not None},
    )


@dataclass(frozen=True, eq=False)
class Examples:
    """Single images under growing noise: images (n, phi, D), labels (n,), predictions[victim] (n, phi)."""

    phi: tuple[float, ...]
    images: Array
    labels: Array
    predictions: dict[str, Array]
    __repr__ = brief()


def first_of_each_class(
    adversary: Network,
    victims: Mapping[str, Network],
    samples: Samples,
    attack: Attack,
    phi: Sequence[float] = PAPER_PHI,
    *,
    seed: int = 0,
) -> Examples:
    """Craft noise for the first image of each class, chosen by nothing else, and say what each victim sees."""
    phi = check_phi(phi)
    _check_fit(chain([("adversary", adversary)], victims.items()), samples, labels=_on_host(samples.labels))
    labels = to_host(samples.labels)
    rows = np.array([np.flatnonzero(labels == label)[0] for label in np.unique(labels)])
    some = samples[get_xp(samples.images).asarray(rows)]
    _, crafted = _craft(adversary, some, attack, phi, generator(seed, "attack"))
    return Examples(
        phi=phi,
        images=np.stack([to_host(image) for image in crafted.images], axis=1),
        labels=labels[rows],
        predictions={
            name: np.stack([to_host(victim.predict(image)) for image in crafted.images], axis=-1)
            for name, victim in victims.items()
        },
    )


def _craft(
    net: Network, samples: Samples, attack: Attack, phi: Sequence[float], rng: Generator
) -> tuple[Array, Crafted]:
    """Return the clean images of all samples, and what the attack makes of them, checked, with whole numbers kept."""
    x, y = samples.batch(slice(None), net.dtype)
    crafted = attack.craft(net, x, y, phi, rng, samples.box)
    if whole := samples.whole:
        box, sizes = samples.box if attack.clip else None, zip(crafted.images, phi, strict=True)
        images = [whole.rounded(image, x, size, attack.norm, box) for image, size in sizes]
        crafted = replace(crafted, images=images, smallest=None)  # rounded, it may fool no more
    check_crafted(attack, x, phi, crafted, samples.box)
    return x, crafted


def _others(labels: IntArray, target: int) -> IntArray:
    """Return which labels are not the class `target`; NnliteError where none is."""
    others = np.flatnonzero(labels != target)
    if not others.size:
        raise NnliteError(f"target: expected images of other classes than {target}, found none; take more images")
    return others


def _joined(blocks: list[Array]) -> npt.NDArray[Any]:
    return to_host(get_xp(*blocks).concatenate(blocks, axis=-1))


def _median_above_0(lengths: FloatArray) -> FloatArray:
    """Return the median (...,) of the lengths (..., N) above 0, or NaN if none is."""
    rows = lengths.reshape(-1, lengths.shape[-1])
    medians = [np.median(row[row > 0]) if (row > 0).any() else np.nan for row in rows]
    return np.asarray(medians, np.float64).reshape(lengths.shape[:-1])


def check_phi(phi: Sequence[float]) -> tuple[float, ...]:
    """Return the sizes of noise, a sequence or an array (n,) of numbers of any kind, as floats.

    NnliteError unless they are one or more numbers, each from 0 to 1,000,000.
    """
    try:
        sizes = tuple(map(float, phi))
    except (TypeError, ValueError):  # one number, a table of them, or no numbers
        sizes = ()
    if not sizes or not all(map(PHI.fits, sizes)):
        raise NnliteError(f"phi: expected one or more sizes of noise, each {PHI.words}, found {phi}")
    return sizes


def _check_fit(nets: Iterable[tuple[str, Network]], samples: Samples, *, labels: Any = None) -> None:
    """Raise NnliteError unless there are samples, and all nets were made for images of this size and these labels.

    labels: those of the samples on the host, where their values can be looked at.
    """
    count, features = samples.images.shape
    if not count:
        raise NnliteError("samples: expected one image or more, found none")
    for name, net in nets:
        if net.sizes[0] != features:
            raise NnliteError(
                f"{name}: expected images of {net.sizes[0]} pixels, for which it was made, found {features}; "
                f"choose nets and data that belong together"
            )
        try:
            check_labels(samples.labels if labels is None else labels, (count,), net.sizes[-1])
        except NnliteError as error:
            raise NnliteError(f"{name}: {error}, or choose nets and data that belong together") from error


def _on_host(labels: Any) -> Any:
    return to_host(labels) if hasattr(labels, "dtype") else labels
