"""Labels of any kind, numbered: the classes in sorted order become 0, 1, ..., and keep their names."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnlite.datasets.description import CLASSES_LIMIT, NAME
from nnlite.errors import NnliteError
from nnlite.storage.kinds import expect

IntArray = npt.NDArray[np.int64]


def number_labels(labels: npt.NDArray[np.generic], what: str = "labels") -> tuple[tuple[str, ...], IntArray]:
    """Return the names of the classes, sorted, and the number of each label's class, (N,).

    Numbers are sorted as numbers and text as text; 3.0 is the class 3.

    Arguments:
        labels: (N,), integers, whole floats, booleans or text.
        what: what an error calls them.

    NnliteError for another shape or kind, for fewer than two classes and for more than CLASSES_LIMIT.
    """
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        advice = f"{what}.argmax(axis=1) of one-hot rows" if one_hot else f"{what}.ravel() of a single column"
        raise NnliteError(f"{what}: expected one label for each row, shape (N,), found {labels.shape}; try {advice}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise NnliteError(f"{what}: expected a label in each row, found NaN or infinity; leave those rows out")
        if (labels != np.rint(labels)).any() or np.abs(labels).max(initial=0) >= 1 << 53:
            found = labels[(labels != np.rint(labels)).argmax()]
            raise NnliteError(f"{what}: expected classes, found the number {found:g}; nnlite tells classes apart")
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        raise NnliteError(f"{what}: expected integers, text or booleans, found dtype {labels.dtype}; convert them")
    found, numbers = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise NnliteError(f"{what}: expected two classes or more, found {len(found)}: there is nothing to tell apart")
    if len(found) > CLASSES_LIMIT:
        raise NnliteError(
            f"{what}: expected at most {CLASSES_LIMIT:,} classes, found {len(found):,}; is this the column of labels?"
        )
    names = tuple(map(str, found.tolist()))
    for name in names:
        expect(f"{what}: a class", NAME, name)
    return names, numbers.astype(np.int64)


def match_labels(labels: npt.NDArray[np.generic], classes: Sequence[str]) -> IntArray:
    """Return which of `classes` each label (N,) is, -1 for one that is none of them; 3.0 is the class 3."""
    places = {name: number for number, name in enumerate(classes)}

    def place(text: str) -> int:
        try:
            whole = float(text).is_integer() and str(int(float(text)))
        except ValueError:
            whole = False
        return places.get(text, places.get(whole, -1) if whole else -1)

    found, numbers = np.unique(labels, return_inverse=True)
    return np.array([place(str(one).strip()) for one in found.tolist()], np.int64)[numbers]


def number_texts(texts: list[str], numbers: IntArray, what: str) -> tuple[tuple[str, ...], IntArray]:
    """Return names and numbers as `number_labels` does, of labels in a text file.

    Arguments:
        texts: the different labels.
        numbers: (N,), which of `texts` each label is.
        what: what an error calls them.
    """
    try:
        different = np.array(list(map(float, texts)))
    except ValueError:
        different = np.array(texts)
    names, order = number_labels(different, what)
    return names, order[numbers]
