"""`nnlite predict`: the classes of new rows, by a run."""

import csv
import sys
from pathlib import Path

import click

from nnlite.cli.options import json_option, message, print_json, runs_option
from nnlite.datasets.own import read_rows
from nnlite.errors import NnliteError
from nnlite.evaluation.predicting import probabilities
from nnlite.storage.weights import WEIGHTS
from nnlite.training.run_folder import Run
from nnlite.training.runs import find_run


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("file", type=click.Path(path_type=Path))
@runs_option
@json_option
def predict(name: str, file: Path, runs: Path, as_json: bool) -> None:
    """Predict the classes of the rows in FILE with RUN.

    RUN is the name of a run, such as rect; DATA/NAME, as nnlite runs lists it; or the path of its folder. FILE is a CSV
    file with the columns of the training data in any order, an NPZ file with the array x, or an IDX file of images. It
    needs no labels; a column of labels is left aside.

    Prints a line for each row: its class, and the probability of each class. Values may lie beyond the range of the
    training data; a note says in how many rows they do.
    """
    run = _find(name, runs)
    rows, beyond = read_rows(file, run.data)
    found, classes = probabilities(run.net, rows), run.data.classes
    if beyond.any():
        count = f"{beyond.sum():,} of {len(rows):,} rows"
        message(f"Note: {count} lie beyond the training range; do not rely on their classes.")
    predicted = [classes[label] for label in found.argmax(axis=-1)]
    if as_json:
        lines = zip(predicted, found.tolist(), strict=True)
        print_json([{"class": one, "probabilities": dict(zip(classes, p, strict=True))} for one, p in lines])
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["class", *(f"p({one})" for one in classes)])
    writer.writerows([one, *(f"{p:.6g}" for p in row)] for one, row in zip(predicted, found.tolist(), strict=True))


def _find(name: str, runs: Path) -> Run:
    """Return the run of this name, whatever it was trained on; NnliteError where several have it."""
    data, _, short = name.rpartition("/")
    groups = sorted(path.parents[1].name for path in runs.glob(f"*/*/{WEIGHTS}") if path.parent.name == short)
    found = [group for group in groups if data in ("", group)]
    if len(found) > 1:
        listed = " or ".join(f"{group}/{short}" for group in found)
        raise NnliteError(f"run: expected one of {listed}, found {name!r}; name the data, too")
    return find_run(short if found else name, found[0] if found else "", runs)
