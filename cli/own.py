"""The data that runs were trained on: loaded as a run records it, and compared with what others record."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import click
import numpy as np

from nnlite.cli.options import PHI, message
from nnlite.datasets.description import check_same
from nnlite.datasets.loading import reload
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.storage.texts import did_you_mean
from nnlite.training.run_folder import Record, Run

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
    """Add the options that say which columns of a table noise may move, and how far."""
    limit = "Noise moves this column by at most so much, whatever phi; repeatable."
    command = click.option("--phi-column", "limits", type=ColumnPhi(), multiple=True, help=limit)(command)
    leave = "Noise leaves this column as it is; repeatable."
    return click.option("--frozen", multiple=True, metavar="NAME", help=leave)(command)


def with_columns_held(data: Dataset, frozen: Sequence[str], limits: Reach, *, clip: bool) -> Dataset:
    """Return the data with test rows whose columns noise moves no further than it is told; say what that is.

    NnliteError for a column that the data do not have, a number below 0, and noise that is not clipped.
    """
    held = {**dict.fromkeys(frozen, 0.0), **dict(limits)}
    if not held:
        return data
    features = data.description.features
    for name, phi in held.items():
        if name not in features:
            known = f"the columns are {', '.join(features[:20])}" if features else "images have none"
            raise NnliteError(f"column: {data.name} has no {name!r}{did_you_mean(name, features)}; {known}")
        if not 0 <= phi < np.inf:
            raise NnliteError(f"phi-column: expected a finite number of at least 0 for {name}, found {phi}")
    if not clip:
        raise NnliteError("frozen, phi-column: they hold noise in a box; leave --no-clip out")
    words = [f"{name} by at most {phi:g}" if phi else f"{name} not at all" for name, phi in held.items()]
    message(f"noise moves {', '.join(words)}")
    reach = np.array([held.get(name, np.inf) for name in features])
    return replace(data, test=data.test.limited(reach))


def data_of(run: Run, source: str) -> Dataset:
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
