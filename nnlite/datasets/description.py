"""What is known of a data set beside its samples: a run records it, and every command compares it.

A run is never scored on other data than its own: `check_same` is the one place that says whether two are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnlite.errors import NnliteError
from nnlite.storage import kinds
from nnlite.storage.texts import shown

SPLITS = ("train", "validation", "test")
FEATURES_LIMIT = 10_000  # of a table; a run records the name and the range of each
CLASSES_LIMIT = 1_000
NAME = kinds.text(1, 200)  # of a class or a feature


@dataclass(frozen=True)
class Split:
    """How the samples were divided among SPLITS.

    Arguments:
        sizes: the numbers of training, validation and test samples.
        drawn: which of them `seed` has drawn; all others are as the file has them.
        seed: what drew them; None where nothing was drawn.
        fractions: the shares that were asked for, None for a data set of the catalogue.
    """

    sizes: tuple[int, int, int]
    drawn: tuple[str, ...] = ()
    seed: int | None = None
    fractions: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Description:
    """What a data set is: the bytes that it was read from, and how they were read, divided and scaled.

    A value v of a feature is shown to a net as (v - low) / (high - low), and as 0 where the two are equal.

    Arguments:
        name: that of the catalogue, or the stem of the user's file.
        sha256: of the file or files, or of the arrays; "" where it is not known, for a run of nnlite 0.1.0.
        shape: rows and columns of an image, and channels where it has them; (D,) for a table.
        classes: the name of each class, in the order of the labels 0, 1, ...
        features: the name of each column of a table; none for images.
        low: what becomes 0, in the user's units: one number for all pixels, or one for each column.
        high: what becomes 1, likewise.
        split: how the samples were divided.
        label: the column that holds the labels, None but for CSV.
    """

    name: str
    sha256: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    split: Split
    label: str | None = None

    @property
    def samples(self) -> str:
        """What the samples are called: "rows" of a table, or "images"."""
        return "rows" if len(self.shape) == 1 else "images"

    @property
    def values(self) -> str:
        """What the numbers of a sample are called: "features" of a table, or "pixels"."""
        return "features" if len(self.shape) == 1 else "pixels"


def check_name(recorded: Description, name: str, what: str) -> None:
    """Raise NnliteError unless `name` is that of the data that `what` recorded."""
    if name != recorded.name:
        raise NnliteError(
            f"{what} belongs to the data {recorded.name}, found {name}; choose others, or give the data with --data"
        )


def check_same(recorded: Description, found: Description, what: str) -> None:
    """Raise NnliteError unless `found` is the data that `what`, a run or a file, `recorded`.

    Where validation images alone are drawn by a seed, that seed may differ: the test images do not depend on it.
    """
    check_name(recorded, found.name, what)
    if recorded.sha256 not in ("", found.sha256):
        raise NnliteError(
            f"{what} belongs to another {recorded.name}, of SHA-256 {recorded.sha256[:12]}, found {found.sha256[:12]}: "
            f"the data have changed since; restore them, or train again under another --name"
        )
    for name in ("shape", "classes") if not recorded.sha256 else ("shape", "classes", "label", "features"):
        then, now = getattr(recorded, name), getattr(found, name)
        if then != now:
            raise NnliteError(f"{what} belongs to data of other {name}: {shown(then)}, found {shown(now)}")
    then, now = recorded.split, found.split
    redrawn = "test" in (*then.drawn, *now.drawn) and then != now
    if recorded.sha256 and (redrawn or (recorded.low, recorded.high) != (found.low, found.high)):
        raise NnliteError(
            f"{what} was trained on another split of {recorded.name}, {_words(then)}, found {_words(now)}: what is a "
            f"test sample here may be a training sample there; take runs of one --seed and --split"
        )


def _words(split: Split) -> str:
    fractions = "" if split.fractions is None else f"{','.join(f'{one:g}' for one in split.fractions)} "
    return f"{fractions}of seed {split.seed}"


_COUNT = kinds.integer(0)
_KINDS: Mapping[str, kinds.Kind] = {
    "name": kinds.FOLDER_NAME,
    "sha256": kinds.SHA256,
    "shape": kinds.sequence(kinds.integer(1), 1, 3),
    "classes": kinds.sequence(NAME, 2, CLASSES_LIMIT),
    "features": kinds.sequence(NAME, 0, FEATURES_LIMIT),
    "low": kinds.sequence(kinds.FINITE, 1, FEATURES_LIMIT),
    "high": kinds.sequence(kinds.FINITE, 1, FEATURES_LIMIT),
    "label": kinds.optional(NAME),
}
_SPLIT: Mapping[str, kinds.Kind] = {
    "sizes": kinds.sequence(kinds.integer(1), 3, 3),
    "drawn": kinds.sequence(kinds.one_of(SPLITS), 0, 3),
    "seed": kinds.optional(_COUNT),
    "fractions": kinds.optional(kinds.sequence(kinds.number(0, 1), 3, 3)),
}


def read_description(content: Any) -> Description:
    """Return the Description that a JSON object holds; NnliteError names the field that is wrong."""
    fields = kinds.expect_fields("data", [*_KINDS, "split"], content)
    split = kinds.expect_object("data: split", _SPLIT, fields.pop("split"))
    values = _frozen(kinds.expect_object("data", _KINDS, fields))
    found = Description(**values, split=Split(**_frozen(split)))
    count = len(found.features) or 1
    if (len(found.low), len(found.high)) != (count, count) or (found.features and found.shape != (count,)):
        raise NnliteError(f"data: expected low and high of {count} features, found {len(found.low)}, {len(found.high)}")
    return found


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
