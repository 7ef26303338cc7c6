"""Splits by seed, stratified: each class gives the same share of its samples to each split."""

import numpy as np
import numpy.typing as npt

from nnlite.datasets.description import SPLITS
from nnlite.errors import NnliteError
from nnlite.init import generator

IntArray = npt.NDArray[np.int64]


def draw_split(labels: IntArray, fractions: tuple[float, ...], classes: tuple[str, ...], seed: int) -> list[IntArray]:
    """Return the rows of each part, in rising order; how many rows a part has does not depend on the seed.

    Of each class each part has its share, rounded, but at least one sample, and the first part has the rest.

    Arguments:
        labels: (N,), below the number of `classes`.
        fractions: the share of each part, of the training part first; they sum to 1.
        classes: the names of the classes, for errors.
        seed: decides which samples go where.

    NnliteError where a class has fewer samples than there are parts.
    """
    rng = generator(seed, "split")
    parts: list[list[IntArray]] = [[] for _ in fractions]
    for label, name in enumerate(classes):
        own = rng.permutation(np.flatnonzero(labels == label))
        counts = [max(1, round(len(own) * share)) for share in fractions[1:]]
        while sum(counts) >= len(own) and max(counts) > 1:  # the training part needs one, too
            counts[counts.index(max(counts))] -= 1
        if sum(counts) >= len(own):
            raise NnliteError(
                f"labels: expected {len(fractions)} samples of each class or more, one for each of "
                f"{', '.join(SPLITS[: len(fractions)])}, found {len(own)} of class {name!r}; add some, or leave it out"
            )
        ends = np.cumsum(counts)
        taken = np.split(own, ends)
        for part, rows in zip(parts, [taken[-1], *taken[:-1]], strict=True):
            part.append(rows)
    return [np.sort(np.concatenate(rows)) for rows in parts]
