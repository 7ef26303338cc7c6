"""Accuracy, clean and under attack: one adversary crafts, every victim is scored.

All figures are percentages. A stack of models gives one figure for each model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlite.attacks import input_gradient, perturb
from nnlite.backend import Array, get_xp, to_host
from nnlite.datasets import Samples
from nnlite.errors import NnliteError
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import Network
from nnlite.penalties import Penalty

PAPER_PHI = (0.0, 0.005, 0.01, 0.05, 0.1)
_ROWS = 1000  # examples at a time, so memory does not grow with the data


@dataclass(frozen=True)
class AttackTable:
    """Accuracies in percent: `accuracy[victim]` has shape (phi,), or (phi, S) for a stack of models.

    zero_share: the share of the adversary's input-gradient entries that are exactly 0. They leave their
    pixels untouched under R1, so a large share makes an attack look weaker than it is.
    """

    phi: tuple[float, ...]
    accuracy: dict[str, npt.NDArray[np.float64]]
    zero_share: float


def accuracy(net: Network, samples: Samples) -> npt.NDArray[np.float64]:
    """Return the percentage of `samples` that `net` classifies rightly, shape () or (S,)."""
    _check_features(net, samples, "net")
    correct = []
    for start in range(0, len(samples), _ROWS):
        x, y = samples.batch(slice(start, start + _ROWS), net.dtype)
        correct.append((net.predict(x) == y).sum(axis=-1))
    return _percent(correct, len(samples))


def attack(
    adversary: Network,
    victims: Mapping[str, Network],
    samples: Samples,
    penalty: Penalty,
    phi: Sequence[float] = PAPER_PHI,
    *,
    clip: bool = False,
    loss: Loss = softmax_cross_entropy,
) -> AttackTable:
    """Craft noise of each size in `phi` with `adversary` and score every victim on it.

    At phi = 0 the images are the clean ones and the figure equals `accuracy`, bit for bit. NnliteError: a phi
    that is negative or not finite, or a net made for images of another size.
    """
    _check_phi(phi)
    for name, net in {"adversary": adversary, **victims}.items():
        _check_features(net, samples, name)
    correct: dict[str, list[list[Array]]] = {name: [[] for _ in phi] for name in victims}
    zeros, entries = [], 0
    for start in range(0, len(samples), _ROWS):
        x, y = samples.batch(slice(start, start + _ROWS), adversary.dtype)
        dx = input_gradient(adversary, x, y, loss)
        zeros.append((dx == 0).sum())
        entries += dx.size
        direction = penalty.gradient(dx)
        for k, size in enumerate(phi):
            moved = perturb(x, direction, size, clip=clip)
            for name, victim in victims.items():
                correct[name][k].append((victim.predict(moved) == y).sum(axis=-1))
    figures = {name: np.stack([_percent(c, len(samples)) for c in counts]) for name, counts in correct.items()}
    return AttackTable(tuple(phi), figures, float(to_host(sum(zeros[1:], zeros[0]))) / entries)


@dataclass(frozen=True, eq=False)
class Examples:
    """Single images under growing noise: images (n, phi, D), labels (n,), predictions[victim] (n, phi)."""

    phi: tuple[float, ...]
    images: Array
    labels: Array
    predictions: dict[str, Array]


def first_of_each_class(
    adversary: Network,
    victims: Mapping[str, Network],
    samples: Samples,
    penalty: Penalty,
    phi: Sequence[float] = PAPER_PHI,
    *,
    clip: bool = False,
) -> Examples:
    """Craft noise for the first image of each class, chosen by nothing else, and say what each victim sees."""
    labels = to_host(samples.labels)
    rows = np.array([np.flatnonzero(labels == label)[0] for label in np.unique(labels)])
    x, y = samples.batch(get_xp(samples.images).asarray(rows), adversary.dtype)
    direction = penalty.gradient(input_gradient(adversary, x, y))
    moved = [perturb(x, direction, size, clip=clip) for size in phi]
    return Examples(
        phi=tuple(phi),
        images=np.stack([to_host(image) for image in moved], axis=1),
        labels=to_host(y),
        predictions={
            name: np.stack([to_host(victim.predict(image)) for image in moved], axis=-1)
            for name, victim in victims.items()
        },
    )


def _percent(correct: list[Array], examples: int) -> npt.NDArray[np.float64]:
    return np.asarray(100.0 * to_host(sum(correct[1:], correct[0])) / examples)


def _check_phi(phi: Sequence[float]) -> None:
    if not phi or not all(math.isfinite(size) and size >= 0 for size in phi):
        raise NnliteError(f"phi: expected one or more finite numbers of at least 0, found {tuple(phi)}")


def _check_features(net: Network, samples: Samples, name: str) -> None:
    found = samples.images.shape[-1]
    if net.sizes[0] != found:
        raise NnliteError(
            f"{name}: expected images of {net.sizes[0]} pixels, for which it was made, found {found}; "
            f"choose nets and data that belong together"
        )
