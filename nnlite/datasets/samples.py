"""Samples are images with their labels, and a Dataset is three splits of them.

Images keep the bytes that they came as, and are scaled to [0, 1] batch by batch. `check_samples` and `Dataset` check
what comes in, once and on the host; the engine relies on that.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, brief, to_device, to_host
from nnlite.datasets.columns import FREE, Columns, WholeNumbers
from nnlite.datasets.description import Description, Split
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box, check_labels


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with their labels.

    Arguments:
        images: (N, D), uint8 or float.
        labels: (N,), integers.
        white: the pixel value that means 1.
        auxiliary: the labels (N,) of each auxiliary task, by its name.
        box: what pixels may be, in the units of `batch`.
        whole: the features that noise leaves whole numbers; None where there is none.
        shape: rows and columns of an image, and channels where it has them; () for rows of a table.
    """

    images: Array
    labels: Array
    white: float
    auxiliary: Mapping[str, Array] = field(default_factory=dict)
    box: Box = UNIT
    whole: WholeNumbers | None = None
    shape: tuple[int, ...] = ()
    __repr__ = brief("images", "labels", "white", "auxiliary", "box")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: "slice | Array") -> "Samples":
        return replace(self._map(itemgetter(rows)), box=self.box.take(rows))

    def batch(self, rows: "slice | Array", dtype: npt.DTypeLike = np.float32) -> tuple[Array, Array]:
        """Return x (..., n, D) in [0, 1] and y (..., n) for a slice, or for row numbers (..., n)."""
        return self.images[rows].astype(dtype) / self.white, self.labels[rows]

    def auxiliary_labels(self, rows: "slice | Array") -> dict[str, Array]:
        """Return the labels of the auxiliary tasks for the same `rows`, by task."""
        return {task: labels[rows] for task, labels in self.auxiliary.items()}

    def to(self, device: str) -> "Samples":
        """Return the samples on `device`, still as bytes."""

        def move(array: Array) -> Array:
            return to_device(array, device)

        return replace(self._map(move), box=self.box.map(move))

    def limited(self, reach: Array) -> "Samples":
        """Return the samples in a box of their own each, where noise moves feature k by at most `reach[k]`, (D,)."""
        x = self.images / self.white
        low, high = np.maximum(x - reach, self.box.low), np.minimum(x + reach, self.box.high)
        return replace(self, box=Box(low, high))

    def _map(self, function: Callable[[Array], Array]) -> "Samples":
        auxiliary = {task: function(labels) for task, labels in self.auxiliary.items()}
        return replace(self, images=function(self.images), labels=function(self.labels), auxiliary=auxiliary)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train, validate and test on; NnliteError if a split is empty or does not fit `shape` and `classes`.

    Arguments:
        name: what runs and attack files call the data.
        train, validation, test: the three splits.
        shape: rows and columns of an image, such as (8, 8), and channels where it has them; (D,) for a table.
        classes: the number of classes; labels are below it.
        source: what was read from a file; None for arrays of one's own.
        notes: what a reader of figures on these samples should know, each in a line.
        columns: what noise may do with the columns of the test samples; see `held`.
    """

    name: str
    train: Samples
    validation: Samples
    test: Samples
    shape: tuple[int, ...]
    classes: int
    source: Description | None = None
    notes: tuple[str, ...] = ()
    columns: Columns = FREE
    __repr__ = brief()

    def __post_init__(self) -> None:
        for name, samples in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if not len(samples):
                raise NnliteError(f"{name}: expected at least one image, found none; split the data differently")
            pixels = samples.images.shape[-1]
            if pixels != self.features:
                raise NnliteError(f"{name}: expected images of {self.shape}, found {pixels} pixels; correct the shape")
            try:
                check_labels(to_host(samples.labels), samples.images.shape[:1], self.classes)
            except NnliteError as error:
                raise NnliteError(f"{name}: {error}") from error
            object.__setattr__(self, name, replace(samples, shape=self.shape if len(self.shape) > 1 else ()))

    @property
    def features(self) -> int:
        """The number of pixels, D."""
        return math.prod(self.shape)

    def held(self, columns: Columns) -> "Dataset":
        """Return the data with test samples whose columns noise moves only as `columns` says.

        NnliteError for a column that the data do not have, and for one that is to stay whole and is not.
        """
        about = self.description
        columns.check(self.name, about.features)
        test = self.test
        if columns.held:
            test = test.limited(np.array([columns.held.get(name, np.inf) for name in about.features]))
        if columns.whole:
            test = replace(test, whole=self._whole(columns.whole))
        return replace(self, test=test, columns=columns)

    def _whole(self, names: Sequence[str]) -> WholeNumbers:
        found = whole_numbers(self.description, names)
        for samples in (self.train, self.validation, self.test):
            rows, columns = np.nonzero(found.fractions(samples.images))
            if rows.size:
                k = columns[0]
                value = found.low[k] + float(samples.images[rows[0], found.places[k]]) * found.width[k]
                name = self.description.features[found.places[k]]
                raise NnliteError(f"whole: expected whole numbers in column {name!r}, found {value:.6g}; leave it out")
        return found

    @cached_property
    def description(self) -> Description:
        """What a run records of the data: that of the file, or one of the arrays, by their SHA-256."""
        splits = (self.train, self.validation, self.test)
        sizes = (len(self.train), len(self.validation), len(self.test))
        if self.source:
            return replace(self.source, split=replace(self.source.split, sizes=sizes))
        digest = hashlib.sha256()
        for samples in splits:
            digest.update(np.ascontiguousarray(samples.images).data)
            digest.update(np.ascontiguousarray(samples.labels).data)
        return Description(
            name=self.name,
            sha256=digest.hexdigest(),
            shape=self.shape,
            classes=tuple(map(str, range(self.classes))),
            features=(),
            low=(0.0,),
            high=(self.train.white,),
            split=Split(sizes),
        )


def whole_numbers(about: Description, names: Sequence[str]) -> WholeNumbers:
    """Return the features of a table that have these names, as numbers that noise is to leave whole."""
    places = np.array([about.features.index(name) for name in dict.fromkeys(names)])
    low, high = np.array(about.low)[places], np.array(about.high)[places]
    return WholeNumbers(places, low, np.where(high > low, high - low, 1.0))


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts, one after another; they differ only in their number."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        auxiliary={task: np.concatenate([part.auxiliary[task] for part in parts]) for task in parts[0].auxiliary},
    )


def check_samples(
    images: npt.ArrayLike, labels: npt.ArrayLike, *, white: float = 1.0, classes: int | None = None
) -> Samples:
    """Return Samples of the user's own arrays; NnliteError says which of the two is wrong, and how.

    Arguments:
        images: (N, D), or (N, rows, columns) and the like, a row of pixels each then; finite numbers in [0, white].
        labels: (N,), integers from 0 up.
        white: the pixel value that means 1.
        classes: the number of classes, which labels must stay below; None if it is not known yet.
    """
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except (TypeError, ValueError) as error:  # rows of different lengths, or arrays on a GPU
        raise NnliteError(f"images, labels: expected arrays on the host, one row for each image ({error})") from error
    if not 0 < white < np.inf:
        raise NnliteError(f"white: expected the value of a white pixel, a finite number above 0, found {white}")
    if images.ndim < 2 or 0 in images.shape:
        found = f"found {images.shape}; one image alone is images[None]"
        raise NnliteError(f"images: expected one row for each, shape (N, D), {found}")
    shape, images = images.shape[1:] if images.ndim > 2 else (), images.reshape(len(images), -1)
    if labels.shape != images.shape[:1]:
        found = f"found {labels.shape}; give each image one class"
        raise NnliteError(f"labels: expected one for each image, shape {images.shape[:1]}, {found}")
    if images.dtype.kind not in "uif":
        raise NnliteError(f"images: expected numbers, found dtype {images.dtype}; convert them to float")
    if not np.isfinite(images).all():
        raise NnliteError("images: expected finite pixels, found NaN or infinity; clean the data first")
    low, high = images.min(), images.max()
    if low < 0 or high > white:
        raise NnliteError(f"images: expected pixels in [0, {white:g}], found [{low:g}, {high:g}]; rescale them")
    if labels.dtype.kind not in "ui":
        raise NnliteError(f"labels: expected integers, found dtype {labels.dtype}; convert them to int")
    least, most, limit = labels.min(), labels.max(), np.iinfo(np.int64).max if classes is None else classes - 1
    if least < 0 or most > limit:
        found = f"found [{least}, {most}]; number the classes from 0"
        raise NnliteError(f"labels: expected values in [0, {limit}], {found}")
    return Samples(images, labels.astype(np.int64), float(white), shape=shape)
