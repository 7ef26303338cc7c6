"""One way to any data set: by its name in the catalogue, or by the path of the user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnlite.datasets import catalog
from nnlite.datasets.catalog import DATASETS
from nnlite.datasets.content import KNOWN, check_kind
from nnlite.datasets.description import Description, check_name, check_same, read_description
from nnlite.datasets.own import FRACTIONS, load_own, name_of
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.storage.texts import did_you_mean


def source_name(source: str) -> str:
    """Return the name of the data set that `source`, a name of the catalogue or a path, stands for.

    NnliteError where it is neither, or a path whose name is one of the catalogue's.
    """
    if source in DATASETS:
        return source
    if not source or not Path(source).exists():
        hint = did_you_mean(source, DATASETS)
        raise NnliteError(
            f"data: expected one of {', '.join(DATASETS)}, or the path of {KNOWN}, found {source!r}{hint}"
        )
    check_kind(Path(source))
    name = name_of(Path(source))
    if name in DATASETS:
        raise NnliteError(
            f"{source}: {name} is the name of a data set of nnlite; rename yours or, if it is the same, "
            f"set NNLITE_DATA to the folder that it is in"
        )
    return name


def load(source: str | Path, seed: int = 0, *, label: str | None = None, split: Sequence[float] = FRACTIONS) -> Dataset:
    """Return the data set `source`.

    Arguments:
        source: a name of the catalogue, downloaded if it is not on this machine, or the path of the user's own data.
        seed: draws what the data set does not divide itself.
        label: the column of a CSV file that holds the labels; None for the last one.
        split: the shares of training, validation and test samples, where a file of one's own does not say.

    NnliteError for an unknown name, a file that is missing or damaged, and a failed download.
    """
    source = str(source)
    source_name(source)
    if source not in DATASETS:
        return load_own(Path(source), seed, label=label, split=split)
    for name, given in (("label", label is not None), ("split", tuple(split) != FRACTIONS)):
        if given:
            raise NnliteError(f"{name}: {source} has its own; leave it out")
    return catalog.load(source, seed)


def reload(source: str, recorded: Description, what: str) -> Dataset:
    """Return the data set `source` as it was when `what`, a run or a file, recorded it: of its label, split and seed.

    NnliteError where `source` is not that data, or has changed since.
    """
    check_name(recorded, source_name(source), what)
    split = recorded.split
    data = load(source, split.seed or 0, label=recorded.label, split=split.fractions or FRACTIONS)
    check_same(recorded, data.description, what)
    return data


def read_record(content: Mapping[str, Any], name: str) -> Description:
    """Return what a run or a checkpoint, whose JSON is `content`, records of its data, of this name.

    Those of nnlite 0.1.0 record nothing, and are known by the name. NnliteError where the record is wrong or missing.
    """
    if content.get("data") is None and name in DATASETS:
        return DATASETS[name].describe()
    found = read_description(content.get("data"))
    if found.name != name:
        raise NnliteError(f"data: expected a record of the data {name}, found one of {found.name}")
    return found
