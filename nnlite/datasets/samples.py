"""Samples: images with their labels; and Dataset: three splits of them.

Images stay as the bytes they came in and are scaled to [0, 1] batch by batch. What enters here is
checked here, once, on the host; the engine then trusts it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, to_device
from nnlite.errors import NnliteError


@dataclass(frozen=True, eq=False)
class Samples:
    """Images (N, D), uint8 or float, with their labels (N,); `white` is the pixel value that means 1.

    auxiliary: the labels (N,) of auxiliary tasks, by name.
    """

    images: Array
    labels: Array
    white: float
    auxiliary: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: "slice | Array") -> "Samples":
        return replace(self, images=self.images[rows], labels=self.labels[rows], auxiliary=self.auxiliary_labels(rows))

    def batch(self, rows: "slice | Array", dtype: npt.DTypeLike = np.float32) -> tuple[Array, Array]:
        """Return x (..., n, D) in [0, 1] and y (..., n) for a slice, or for row numbers (..., n)."""
        return self.images[rows].astype(dtype) / self.white, self.labels[rows]

    def auxiliary_labels(self, rows: "slice | Array") -> dict[str, Array]:
        """Return the labels of the auxiliary tasks for the same `rows`, by task."""
        return {task: labels[rows] for task, labels in self.auxiliary.items()}

    def to(self, device: str) -> "Samples":
        """Return the samples on `device`, still as bytes."""
        return Samples(
            to_device(self.images, device),
            to_device(self.labels, device),
            self.white,
            {task: to_device(labels, device) for task, labels in self.auxiliary.items()},
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A name, three splits, the shape of an image, such as (8, 8), and the number of classes."""

    name: str
    train: Samples
    validation: Samples
    test: Samples
    shape: tuple[int, int]
    classes: int

    @property
    def features(self) -> int:
        """The number of pixels, D."""
        return math.prod(self.shape)


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts, one after another; they are alike in all but their number."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        auxiliary={task: np.concatenate([part.auxiliary[task] for part in parts]) for task in parts[0].auxiliary},
    )


def check_samples(images: Array, labels: Array, *, white: float = 1.0, classes: int = 10) -> Samples:
    """Return Samples of `images` (N, D) and `labels` (N,), or raise NnliteError that says what is wrong.

    Pixels must be finite and within [0, white], labels integers within [0, classes).
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 2 or 0 in images.shape:
        raise NnliteError(f"images: expected one row each, shape (N, D), found {images.shape}; reshape them")
    if labels.shape != images.shape[:1]:
        raise NnliteError(f"labels: expected one for each image, shape {images.shape[:1]}, found {labels.shape}")
    if images.dtype.kind not in "uif":
        raise NnliteError(f"images: expected numbers, found dtype {images.dtype}")
    if not np.isfinite(images).all():
        raise NnliteError("images: expected finite pixels, found NaN or infinity; clean the data first")
    low, high = images.min(), images.max()
    if low < 0 or high > white:
        raise NnliteError(f"images: expected pixels in [0, {white:g}], found [{low:g}, {high:g}]; rescale them")
    if labels.dtype.kind not in "ui":
        raise NnliteError(f"labels: expected integers, found dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"[{labels.min()}, {labels.max()}]"
        raise NnliteError(f"labels: expected values in [0, {classes - 1}], found {found}")
    return Samples(images, labels.astype(np.int64), float(white))
