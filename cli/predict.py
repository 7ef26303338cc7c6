"""`nnlite predict`: the classes of new rows, by a run."""

import csv
import sys
from pathlib import Path

import click

from nnlite.cli.options import json_option, message, print_json, print_table, runs_option
from nnlite.cli.own import find_anywhere
from nnlite.datasets.own import read_rows
from nnlite.evaluation.predicting import Scores, probabilities


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("file", type=click.Path(path_type=Path))
@runs_option
@json_option
def predict(name: str, file: Path, runs: Path, as_json: bool) -> None:
    """Predict the classes of the rows in FILE with RUN.

    RUN is the name of a run, such as rect; DATA/NAME, as nnlite runs lists it; or the path of its folder. FILE is a CSV
    file with the columns of the training data in any order, an NPZ file with the array x, or an IDX file of images. It
    needs no labels.

    Prints a line for each row: its class, and the probability of each class. Where FILE has labels, the column of the
    training data or an array y, the accuracy of each class follows on stderr. Values may lie beyond the range of the
    training data; a note says in how many rows they do.
    """
    run = find_anywhere(name, runs)
    rows = read_rows(file, run.data)
    found, classes = probabilities(run.net, rows.x), run.data.classes
    if rows.beyond.any():
        count = f"{rows.beyond.sum():,} of {len(rows.x):,} rows"
        message(f"Note: {count} lie beyond the training range; do not rely on their classes.")
    predicted, scores = found.argmax(axis=-1), None
    if rows.labels is not None:
        known = rows.labels >= 0
        if not known.all():
            count = f"{(~known).sum():,} of {len(known):,} rows"
            message(f"Note: {count} have no label, or one that {run.name} does not know; the figures leave them out.")
        scores = Scores(rows.labels[known], predicted[known]) if known.any() else None
    names = [classes[label] for label in predicted]
    if as_json:
        print_json(
            {
                "run": run.name,
                "examples": len(names),
                "accuracy": scores and scores.accuracy,
                "balanced": scores and scores.balanced,
                "classes": [
                    {"class": classes[label], "examples": count, "recall": recall}
                    for label, (count, recall) in (scores.by_class.items() if scores else ())
                ],
                "rows": [
                    {"class": one, "probabilities": dict(zip(classes, p, strict=True))}
                    for one, p in zip(names, found.tolist(), strict=True)
                ],
            }
        )
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["class", *(f"p({one})" for one in classes)])
    writer.writerows([one, *(f"{p:.6g}" for p in row)] for one, row in zip(names, found.tolist(), strict=True))
    if scores:
        sys.stdout.flush()
        table = [[classes[label], f"{count:,}", f"{recall:.2f}"] for label, (count, recall) in scores.by_class.items()]
        count = f"{len(scores.labels):,}"
        table += [["accuracy", count, f"{scores.accuracy:.2f}"], ["balanced accuracy", count, f"{scores.balanced:.2f}"]]
        print_table(f"{run.name} on {file.name}, in %", ["class", "examples", "recall"], table, err=True)
