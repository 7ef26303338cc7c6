"""Data of the user's own, from a file to a Dataset: divided, and scaled to [0, 1].

A file without a test part is divided by seed, each class alike; one with a test part, but no validation part, gives a
share of its training part to validation. Tables are scaled by the training part, so that nothing is learnt of the test
part, and images by the range of a pixel.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.datasets.content import (
    FILES,
    WHOLE,
    Content,
    FloatArray,
    IntArray,
    Values,
    read_content,
    read_features,
    sha256_of,
)
from nnlite.datasets.description import SPLITS, Description, Split
from nnlite.datasets.labels import match_labels
from nnlite.datasets.samples import Dataset, Samples
from nnlite.datasets.scaling import column_range, pixel_range, scale
from nnlite.datasets.splitting import draw_split
from nnlite.datasets.table import listed
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box
from nnlite.storage.kinds import FOLDER_NAME, expect

FRACTIONS = (0.7, 0.15, 0.15)  # of training, validation and test samples, where the file does not say
DESCRIPTION_LIMIT = 500_000  # bytes of JSON: it stands in the header of a checkpoint, which may have twice as many


class Rows(NamedTuple):
    """New rows, as a net sees them.

    Arguments:
        x: (N, D), float32.
        beyond: Which lie beyond the range of the training data, (N,).
        labels: Which class each is of, (N,), -1 for one that the net does not know; None where the file has no labels.
    """

    x: npt.NDArray[np.float32]
    beyond: npt.NDArray[np.bool_]
    labels: IntArray | None


class Part(NamedTuple):
    """A part of a data set: x (N, D) or (N, rows, columns[, channels]) and labels (N,), and which rows belong to it."""

    x: Values
    y: IntArray
    rows: IntArray


def name_of(path: Path) -> str:
    """Return what a data set of one's own is called: the stem of its file, or the name of its folder."""
    name = path.stem if path.suffix.lower() in FILES else path.resolve().name
    expect(f"{path}: its name", FOLDER_NAME, name)
    return name


def load_own(path: Path, seed: int = 0, *, label: str | None = None, split: Sequence[float] = FRACTIONS) -> Dataset:
    """Return the data set in a file or a folder of the user's own.

    Arguments:
        path: a CSV file, an NPZ file, or a folder of IDX files.
        seed: draws what the file does not divide.
        label: the column of a CSV file that holds the labels; None for the last one.
        split: the shares of training, validation and test samples, where the file does not say.

    NnliteError says what is wrong in the file, and where.
    """
    name, fractions, content = name_of(path), check_fractions(split), read_content(path, label)
    sha256, (parts, drawn) = sha256_of(path), _divide(path, content, seed, fractions)
    low, high = _range(path, content, parts["train"])
    samples, beyond = {}, {}
    for part in SPLITS:
        samples[part], beyond[part] = _samples(*parts[part], low, high)
    notes = [*_notes(content, samples, beyond, low, high)]
    source = Description(
        name=name,
        sha256=sha256,
        shape=parts["train"].x.shape[1:],
        classes=content.classes,
        features=content.columns,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        split=Split(
            sizes=(len(samples["train"]), len(samples["validation"]), len(samples["test"])),
            drawn=drawn,
            seed=seed if drawn else None,
            fractions=fractions if drawn else None,
        ),
        label=content.label,
    )
    size = len(json.dumps(asdict(source)))
    if size > DESCRIPTION_LIMIT:
        raise NnliteError(
            f"{path}: expected names and ranges of at most {DESCRIPTION_LIMIT:,} bytes, which a run records, found "
            f"{size:,}; shorten the names of the columns, or leave some out"
        )
    return Dataset(
        name,
        samples["train"],
        samples["validation"],
        samples["test"],
        shape=source.shape,
        classes=len(source.classes),
        source=source,
        notes=tuple(notes),
    )


def read_rows(path: Path, description: Description) -> Rows:
    """Return the rows of a file as a net of this data sees them, with their labels if there are any.

    Arguments:
        path: a CSV file with the columns of the data, in any order, and perhaps that of the labels; an NPZ file with x
            and perhaps y; or an IDX file of images.
        description: the data that the net was trained on.
    """
    x, labels = read_features(path, description.features, description.label)
    if x.shape[1:] not in (description.shape, (math.prod(description.shape),)):
        raise NnliteError(f"{path}: expected rows of shape {description.shape}, found {x.shape[1:]}")
    scaled, beyond = scale(x.reshape(len(x), -1), np.array(description.low), np.array(description.high))
    return Rows(scaled, beyond, None if labels is None else match_labels(labels, description.classes))


def check_fractions(split: Sequence[float]) -> tuple[float, ...]:
    """Return the shares of training, validation and test samples; NnliteError unless they are three and sum to 1."""
    if len(split) != len(SPLITS) or not all(0 < share < 1 for share in split) or abs(sum(split) - 1) > 1e-9:
        raise NnliteError(
            f"split: expected the shares of training, validation and test samples, which sum to 1, such as "
            f"{','.join(map(str, FRACTIONS))}, found {','.join(f'{share:g}' for share in split)}"
        )
    return tuple(map(float, split))


def _notes(
    content: Content, samples: Mapping[str, Samples], beyond: Mapping[str, int], low: FloatArray, high: FloatArray
) -> Iterator[str]:
    """Yield what a reader of figures on these samples should know of their scaling."""
    for part, count in beyond.items():
        if count:
            rows = f"{count:,} of {len(samples[part]):,} {part} rows"
            yield f"{rows} lie beyond the training range; attacks may reach as far"
    constant = [column for column, width in zip(content.columns, high - low, strict=False) if not width]
    if constant:
        yield f"columns of a single value, which becomes 0: {listed(constant)}"
    if not content.columns:
        brightest = max(float(x.max()) for x, _ in content.parts.values())
        if brightest <= (low[0] + high[0]) / 2:
            yield f"the highest pixel is {brightest:g} of {high[0]:g}; rescale the images if that is their white"


def _divide(
    path: Path, content: Content, seed: int, fractions: tuple[float, ...]
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Return the parts by the names of SPLITS, and which of them the seed has drawn."""
    parts, classes = content.parts, content.classes
    if WHOLE in parts:
        x, y = parts[WHOLE]
        rows = draw_split(y, fractions, classes, seed)
        return {name: Part(x, y, some) for name, some in zip(SPLITS, rows, strict=True)}, SPLITS
    found = {name: Part(x, y, np.arange(len(y))) for name, (x, y) in parts.items()}
    if "validation" in parts:
        if fractions != FRACTIONS:
            raise NnliteError(f"split: {path} has a part for each of {', '.join(SPLITS)}; leave it out")
        return found, ()
    x, y = parts["train"]
    share = fractions[1] / (fractions[0] + fractions[1])
    train, validation = draw_split(y, (1 - share, share), classes, seed)
    return found | {"train": Part(x, y, train), "validation": Part(x, y, validation)}, ("validation",)


def _range(path: Path, content: Content, train: Part) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what becomes 0 and what becomes 1, (D,) for a table and (1,) for images."""
    if not content.columns:
        low, high = pixel_range([x for x, _ in content.parts.values()])
        return np.array([low]), np.array([high])
    least, most = column_range(train.x, train.rows)
    with np.errstate(over="ignore"):
        wide = np.flatnonzero(~np.isfinite(most - least))
    if len(wide):
        raise NnliteError(f"{path}: column {content.columns[wide[0]]!r}: its range overflows a float; rescale it")
    return least, most


def _samples(x: Values, y: IntArray, rows: IntArray, low: FloatArray, high: FloatArray) -> tuple[Samples, int]:
    """Return the samples of a part, scaled, and how many of its rows lie beyond the range; bytes stay bytes.

    Their box is [0, 1], widened to hold them.
    """
    x = x.reshape(len(x), -1)
    if x.dtype == np.uint8 and (low.tolist(), high.tolist()) == ([0.0], [255.0]):
        return Samples(x[rows], y[rows], 255.0), 0
    scaled, beyond = scale(x, low, high, rows)
    box = Box(scaled.min(axis=0).clip(None, 0), scaled.max(axis=0).clip(1, None)) if beyond.any() else UNIT
    return Samples(scaled, y[rows], 1.0, box=box), int(beyond.sum())
