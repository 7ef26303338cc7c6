"""What the user's own data hold: a CSV file, an NPZ file or a folder of IDX files, checked, in the user's own units."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.datasets.description import FEATURES_LIMIT, SPLITS
from nnlite.datasets.idx import IDX_COLOURS, IDX_IMAGES, IDX_LABELS, read_idx
from nnlite.datasets.labels import number_labels, number_texts
from nnlite.datasets.npz import Arrays, read_npz
from nnlite.datasets.table import read_table
from nnlite.errors import NnliteError
from nnlite.storage.files import open_file
from nnlite.storage.memory import data_budget

FILES = (".npz", ".csv")
KNOWN = "a .npz or .csv file, or of a folder of IDX files"
IDX_STEMS = {"train": "train", "test": "t10k"}
WHOLE = "whole"  # the part of a file that is not divided

Values: TypeAlias = npt.NDArray[Any]
IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds: x and labels of its parts, by the names of SPLITS or WHOLE, and what things are called."""

    parts: Mapping[str, tuple[Values, IntArray]]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    label: str | None = None


def check_kind(path: Path) -> None:
    """Raise NnliteError unless `path` has the name of a CSV or an NPZ file, or is a folder of IDX files."""
    known = path.suffix.lower() in FILES
    if path.is_dir() and not known:
        _idx_files(path)
    elif path.is_dir():
        raise NnliteError(f"{path}: expected a file, found a folder; name a file in it")
    elif not known:
        raise NnliteError(f"data: expected the path of {KNOWN}, found {str(path)!r}; give another, or convert it")


def read_content(path: Path, label: str | None = None) -> Content:
    """Return what a file or a folder holds, checked; `label` names the column of labels of a CSV file.

    NnliteError says what is wrong in the file, and where.
    """
    check_kind(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        table = read_table(path, label)
        classes, numbers = number_texts(table.classes, table.numbers, f"{path}, column {table.label!r}")
        return Content({WHOLE: (table.values, numbers)}, classes, table.columns, table.label)
    if label is not None:
        raise NnliteError(f"label: {path} is no CSV file, and has no columns; leave it out")
    if suffix == ".npz":
        arrays = read_npz(path)
        names = _parts_of(path, arrays)
        return _content(path, {part: tuple(arrays[name] for name in pair) for part, pair in names.items()}, names)
    files = _idx_files(path)
    pairs = {
        part: (_read_idx(images, IDX_IMAGES, IDX_COLOURS), _read_idx(labels, IDX_LABELS))
        for part, (images, labels) in files.items()
    }
    return _content(path, pairs, {part: (pair[0].name, pair[1].name) for part, pair in files.items()})


def read_features(path: Path, columns: tuple[str, ...], label: str | None) -> tuple[Values, Values | None]:
    """Return x (N, ...) of a CSV file, an NPZ file with x, or an IDX file of images, and labels (N,) or None.

    Arguments:
        path: the file.
        columns: the columns of a table, in the order that is wanted; () for images.
        label: the column of the labels, if a CSV file has it.
    """
    if path.is_dir():
        raise NnliteError(f"{path}: expected a file of rows, found a folder; name a file in it")
    if path.suffix.lower() == ".csv":
        if not columns and path.exists():
            raise NnliteError(f"{path}: expected images, found a table; give them as x in an .npz file")
        table = read_table(path, label, features=columns)
        return table.values, None if table.label is None else np.array(table.classes)[table.numbers]
    if path.suffix.lower() == ".npz":
        arrays = {**read_npz(path, ("x", "y"))}
        labels = arrays.pop("y", None)
        x = _numbers(path, "x", _wanted(path, arrays, ("x",))[0])
        if labels is not None and labels.shape != x.shape[:1]:
            raise NnliteError(f"{path}: y: expected a label for each of {len(x):,} rows, found {labels.shape}")
        return x, labels
    return _read_idx(path, IDX_IMAGES, IDX_COLOURS), None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of those of the files that are read from a folder, training images first."""
    if path.is_dir():
        digests = [sha256_of(file) for pair in _idx_files(path).values() for file in pair]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts_of(path: Path, arrays: Arrays) -> dict[str, tuple[str, str]]:
    """Return the names of x and y of each part in an NPZ file; NnliteError where one is missing, or has no use."""
    parts = {WHOLE: ("x", "y")}
    if "x" not in arrays and "y" not in arrays:
        parts = {part: (f"x_{part}", f"y_{part}") for part in SPLITS}
        if not {"x_validation", "y_validation"} & arrays.keys():
            del parts["validation"]
    _wanted(path, arrays, [name for pair in parts.values() for name in pair])
    return parts


def _wanted(path: Path, arrays: Arrays, names: Sequence[str]) -> list[Values]:
    missing, unknown = [name for name in names if name not in arrays], sorted(arrays.keys() - {*names})
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} has no use; leave it out"
        raise NnliteError(f"{path}: expected the arrays x and y, or x_train, y_train, x_test and y_test; {what}")
    return [arrays[name] for name in names]


def _content(path: Path, pairs: Mapping[str, tuple[Values, ...]], names: Mapping[str, tuple[str, str]]) -> Content:
    """Return the content of arrays, checked: x and y of each part have one length, and all x one form."""
    checked: dict[str, tuple[Values, Values]] = {}
    first, form = next((names[part][0], x.shape[1:]) for part, (x, _) in pairs.items())
    for part, (x, y) in pairs.items():
        name, labels = names[part]
        x = _numbers(path, name, x)
        if y.ndim == 1 and len(x) != len(y):
            raise NnliteError(f"{path}: expected a label for each of the {len(x):,} rows of {name}, found {len(y):,}")
        if x.shape[1:] != form:
            raise NnliteError(f"{path}: expected {name} of the form of {first}, {form}, found {x.shape[1:]}")
        if y.ndim != 1 or y.dtype.kind not in "iufbU":
            number_labels(y, f"{path}: {labels}")  # which says why not
        checked[part] = x, y
    classes, numbers = number_labels(np.concatenate([y for _, y in checked.values()]), f"{path}: labels")
    ends = np.cumsum([len(y) for _, y in checked.values()])[:-1]
    parts = {part: (x, own) for (part, (x, _)), own in zip(checked.items(), np.split(numbers, ends), strict=True)}
    for part, (_, own) in parts.items():
        unknown = np.setdiff1d(own, next(iter(parts.values()))[1])
        if len(unknown):
            raise NnliteError(
                f"{path}: class {classes[unknown[0]]!r} is in the {part} part, and not in the training part"
            )
    tables = len(form) == 1 and any(x.dtype != np.uint8 for x, _ in parts.values())
    if tables and form[0] > FEATURES_LIMIT:
        raise NnliteError(f"{path}: expected at most {FEATURES_LIMIT:,} columns, found {form[0]:,}")
    return Content(parts, classes, tuple(f"x{k}" for k in range(form[0])) if tables else ())


def _numbers(path: Path, name: str, x: Values) -> Values:
    """Return x (N, ...); NnliteError unless it holds finite numbers in 2 to 4 axes."""
    if not 2 <= x.ndim <= 4 or 0 in x.shape:
        advice = "one row for each sample, or images (N, rows, columns) or (N, rows, columns, channels)"
        raise NnliteError(f"{path}: {name}: expected {advice}, found {x.shape}")
    if x.dtype.kind not in "uifb":
        raise NnliteError(f"{path}: {name}: expected numbers, found dtype {x.dtype}; convert them")
    x = x.astype(np.float64) if x.dtype.kind == "b" or x.dtype.itemsize > 8 else x
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        place = np.unravel_index(np.isfinite(x).argmin(), x.shape)
        raise NnliteError(
            f"{path}: {name}: row {place[0]:,}, column {', '.join(map(str, place[1:]))}: expected a finite number, "
            f"found {x[place]}; fill it in, or leave out the row or the column"
        )
    return x


def _idx_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return the images and labels of each part of a folder; NnliteError where one is missing."""
    found = {}
    for part, stem in IDX_STEMS.items():
        pair = []
        for names in ([f"{stem}-images-idx3-ubyte", f"{stem}-images-idx4-ubyte"], [f"{stem}-labels-idx1-ubyte"]):
            files = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
            there = [file for file in files if file.is_file()]
            if len(there) != 1:
                what = f"found {there[0].name} and {there[1].name}; move one of them away" if there else "found none"
                raise NnliteError(f"{folder}: expected the file {names[0]}, gzipped or not, as MNIST's; {what}")
            pair += there
        found[part] = pair[0], pair[1]
    return found


def _read_idx(path: Path, *magic: int) -> npt.NDArray[np.uint8]:
    with _opened(path) as file:
        return read_idx(file, str(path), *magic, limit=data_budget(path))


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); give the path of {KNOWN}") from error
