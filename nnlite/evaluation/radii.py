"""Radii: for each image the largest phi that is proven to be harmless, and the smallest one that breaks it.

The first is found by bisection over certificates. The second is the smallest noise of two attacks: FMN, which searches
for it, and Auto-PGD, down a ladder of radii of which each is one percent smaller. Between the two nothing is known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlite.apgd import APGD
from nnlite.attacks import NORMS
from nnlite.backend import Array, brief, to_host
from nnlite.certify import is_proven
from nnlite.datasets.samples import Samples
from nnlite.evaluation.accuracy import BoolArray, FloatArray, IntArray
from nnlite.evaluation.certifying import CertifyOptions, drawn, in_blocks
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.promises import check_crafted
from nnlite.evaluation.threads import OnProgress, OnShare
from nnlite.init import generator
from nnlite.network import Network

HALVINGS, NARROW = 10, 1e-3  # a bisection ends after so many, or where its ends are as near as that share
RUNG, RUNGS = 0.99, 460  # down to a hundredth of the largest radius
CLOSED = 0.1  # the share of the broken radius, within which that and the proven one count as one


@dataclass(frozen=True, eq=False)
class Radii:
    """What is known of N images, (N,) each; all radii of an image that needs no noise to be misclassified are 0.

    Arguments:
        proven: The largest phi found that no noise within breaks the image.
        broken: The size of the smallest noise found that does, in the L-infinity norm; inf where none was found.
        distance: That of the nearest misclassified image found in the L2 norm.
        rows: Which of the samples that were given they are.
        interrupted: Whether they are only the first of those that were asked for.
    """

    proven: FloatArray
    broken: FloatArray
    distance: FloatArray
    rows: IntArray
    interrupted: bool
    __repr__ = brief("medians", "closed", "rows", "interrupted")

    @property
    def right(self) -> BoolArray:
        """Which images the net classifies correctly without noise."""
        return np.asarray(self.broken > 0)

    @property
    def medians(self) -> dict[str, float]:
        """The median of each radius over the images that are right, NaN if none is."""
        radii = {"proven": self.proven, "broken": self.broken, "distance": self.distance}
        return {name: float(np.median(r[self.right])) if self.right.any() else np.nan for name, r in radii.items()}

    @property
    def closed(self) -> float:
        """The share of the images that are right, in percent, whose two radii are within CLOSED of each other."""
        near = self.proven >= (1 - CLOSED) * self.broken
        return float(100 * near[self.right].mean()) if self.right.any() else np.nan

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each image, as a data frame or a CSV file takes them."""
        columns = {"image": self.rows, "proven": self.proven, "broken": self.broken, "distance": self.distance}
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]

    @property
    def contradictions(self) -> BoolArray:
        """Which images are proven where they are broken: there may be none, or nnlite is wrong."""
        return self.right & (self.proven >= self.broken)


def find_radii(
    net: Network,
    samples: Samples,
    options: CertifyOptions,
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> Radii:
    """Return the radii of the images that the options draw; their phi does not matter.

    KeyboardInterrupt and NnliteError are as for `nnlite.evaluation.certifying.bracket`.

    Arguments:
        net: One net, not a stack, of Dense and ReLU layers.
        samples: The images and their labels.
        options: What is asked.
        on_progress: Called with how many images are done, which may be a fraction, and of how many.
    """
    rows, samples = drawn(net, samples, options)
    (proven, broken, distance), interrupted = in_blocks(
        lambda block, show: _ask(net, block, options, show), samples, on_progress
    )
    return Radii(proven, broken, distance, rows[: len(proven)], interrupted)


def _ask(net: Network, samples: Samples, options: CertifyOptions, on_share: OnShare) -> tuple[FloatArray, ...]:
    """Return the proven radius, the broken one, and the distance of each of the samples."""
    certain = _proven(net, samples, 0.0, options)  # first of all, as it refuses what has no proof
    near, distance = (_nearest(FMN(norm, clip=options.clip), net, samples) for norm in ("linf", "l2"))
    on_share(0.1)
    largest = min(1.0, near.max())
    broken = np.minimum(near, _down_the_ladder(net, samples, largest, options.clip)) if largest else near
    ends = np.minimum(broken, 1.0)
    proven = np.zeros(len(samples))
    for k in np.flatnonzero(certain):
        on_share((1 + k / len(samples)) / 2)  # the attacks are half of it
        proven[k] = _largest_proven(net, samples[k : k + 1], float(ends[k]), options)
    return proven, broken, distance


def _proven(net: Network, samples: Samples, phi: float, options: CertifyOptions) -> BoolArray:
    x, y = samples.batch(slice(None), net.dtype)
    return to_host(is_proven(net, x, y, phi, clip=options.clip, splits=options.splits, box=samples.box))


def _nearest(attack: FMN, net: Network, samples: Samples) -> FloatArray:
    """Return the size of the smallest noise that FMN finds, (N,); inf where it finds none."""
    x, y = samples.batch(slice(None), net.dtype)
    nearest = attack.craft(net, x, y, (), generator(0, "attack"), samples.box).smallest
    return _size(attack.norm, net, x, y, x if nearest is None else nearest)


def _down_the_ladder(net: Network, samples: Samples, largest: float, clip: bool) -> FloatArray:
    """Return the size of the smallest noise that Auto-PGD finds within `largest` and less, (N,); inf for none."""
    attack, radii = APGD(clip=clip), (largest * RUNG ** np.arange(RUNGS)).tolist()
    x, y = samples.batch(slice(None), net.dtype)
    crafted = attack.craft(net, x, y, radii, generator(0, "attack"), samples.box)
    check_crafted(attack, x, radii, crafted, samples.box)
    return np.min([_size("linf", net, x, y, image) for image in crafted.images], axis=0)


def _size(norm: str, net: Network, x: Array, y: Array, image: Array) -> FloatArray:
    """Return how far each image is from x, (N,); inf where it is not misclassified."""
    size, fooled = to_host(NORMS[norm](image - x)), to_host(net.predict(image) != y)
    return np.where(fooled, size.astype(np.float64), np.inf)


def _largest_proven(net: Network, sample: Samples, end: float, options: CertifyOptions) -> float:
    """Return the largest phi up to `end` found at which one sample is proven, given that it is at 0.

    `end` itself is tried first: it is where an attack has broken the image, and no proof may reach it.
    """
    if _proven(net, sample, end, options)[0]:
        return end
    low, high = 0.0, end
    for _ in range(HALVINGS):
        if high - low <= NARROW * high:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if _proven(net, sample, middle, options)[0] else (low, middle)
    return low
