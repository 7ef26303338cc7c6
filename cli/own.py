"""The data that runs were trained on: loaded as a run records it, and compared with what others record."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from nnlite.cli.options import PHI, message
from nnlite.datasets.columns import FREE, Columns
from nnlite.datasets.description import Description, check_same
from nnlite.datasets.loading import reload
from nnlite.datasets.samples import Dataset
from nnlite.datasets.table import listed
from nnlite.errors import NnliteError
from nnlite.storage.files import current
from nnlite.storage.texts import did_you_mean
from nnlite.storage.weights import WEIGHTS
from nnlite.training.run_folder import Record, Run
from nnlite.training.runs import find_run

UNITS = 4  # features whose units are told; nnlite data tells all

Command = TypeVar("Command", bound=Callable[..., object])
Known = TypeVar("Known", Run, Record)
Reach = tuple[tuple[str, float], ...]


class ColumnPhi(click.ParamType[tuple[str, float]]):
    """A column and how far noise may move it, such as alcohol=0.05."""

    name = "NAME=PHI"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Return the name and the number."""
        name, equals, phi = str(value).rpartition("=")
        if not equals or not name:
            self.fail(f"expected NAME=PHI, such as alcohol=0.05, found {value!r}", param, ctx)
        return name, PHI.convert(phi, param, ctx)


def column_options(command: Command) -> Command:
    """Add the options that say what noise may do with the columns of a table."""
    whole = "Noise leaves whole numbers in this column; repeatable."
    command = click.option("--whole", multiple=True, metavar="NAME", help=whole)(command)
    limit = "Noise moves this column by at most so much, whatever phi; repeatable."
    command = click.option("--phi-column", "limits", type=ColumnPhi(), multiple=True, help=limit)(command)
    leave = "Noise leaves this column as it is; repeatable."
    return click.option("--frozen", multiple=True, metavar="NAME", help=leave)(command)


def with_columns_held(
    data: Dataset, frozen: tuple[str, ...], limits: Reach, whole: tuple[str, ...], *, clip: bool
) -> Dataset:
    """Return the data with test rows whose columns noise moves only as it is told; say how that is.

    NnliteError for a column that the data do not have, a number below 0, a column that is to stay whole and is not, and
    noise that is not clipped.
    """
    columns = Columns(frozen, dict(limits), whole)
    if columns == FREE:
        return data
    found = data.held(columns)
    if not clip:
        raise NnliteError(
            "frozen, phi-column, whole: they hold noise in a box; keep it in the data's range with --clip"
        )
    message(str(columns))
    return found


def number_of(about: Description, name: str) -> int:
    """Return the number of the class that has this name, or else this number; NnliteError for another."""
    known = [*about.classes, *map(str, range(len(about.classes)))]
    if name not in known:
        near = did_you_mean(name, about.classes)
        raise NnliteError(f"target: expected one of {listed(about.classes)}, found {name!r}{near}")
    return known.index(name) % len(about.classes)


def find_anywhere(name: str, runs: Path) -> Run:
    """Return the run of this name, whatever it was trained on; NnliteError where several have it."""
    data, _, short = name.rpartition("/")
    groups = sorted(group.name for group in runs.glob("*") if os.path.isfile(current(group / short) / WEIGHTS))
    found = [group for group in groups if data in ("", group)]
    if len(found) > 1:
        listed = " or ".join(f"{group}/{short}" for group in found)
        raise NnliteError(f"run: expected one of {listed}, found {name!r}; name the data, too")
    return find_run(short if found else name, found[0] if found else "", runs)


def data_of(run: Run | Record, source: str) -> Dataset:
    """Return the data set at `source`, a name or a path, as `run` was trained on it; NnliteError where it is other."""
    return reload(source, run.data, str(run.path))


def tell_units(data: Dataset, phi: float) -> None:
    """Say what noise of size `phi` is in the user's units, for a table."""
    about = data.description
    words = [
        f"{phi * (high - low):.3g} of {name}"
        for name, low, high in zip(about.features, about.low, about.high, strict=False)
    ]
    if words:
        more = f" and so on for {len(words)} features" if len(words) > UNITS else ""
        message(f"phi is a share of each feature's range: {phi:g} is {', '.join(words[:UNITS])}{more}")


def on_same_data(runs: Sequence[Known], data: Dataset, *, chosen: bool) -> list[Known]:
    """Return the runs that were trained on `data`, and say which were not, or do not record it.

    chosen: whether the user has named them; then one of other data is an error.
    """
    same, others = [], []
    for run in runs:
        try:
            check_same(run.data, data.description, str(run.path))
            same.append(run)
        except NnliteError:
            if chosen:
                raise
            others.append(run.name)
    if others:
        message(f"left out, as their data or their split is another one: {', '.join(others)}")
    old = [run.name for run in same if not run.data.sha256]
    if old:
        message(
            f"made by nnlite 0.1.0, which recorded neither data nor checksums: {', '.join(old)}; "
            f"known by the name and the shape"
        )
    return same
