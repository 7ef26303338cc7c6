"""The data that runs were trained on: loaded as a run records it, and compared with what others record."""

from collections.abc import Sequence

from nnlite.cli.options import message
from nnlite.datasets.description import check_same
from nnlite.datasets.loading import reload
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.training.runs import Run

UNITS = 4  # features whose units are told; nnlite data tells all


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


def on_same_data(runs: Sequence[Run], data: Dataset, *, chosen: bool) -> list[Run]:
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
        message(f"made by nnlite 0.1.0, which recorded no data: {', '.join(old)}; known by the name and the shape")
    return same
