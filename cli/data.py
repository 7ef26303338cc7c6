"""`nnlite data`: what nnlite makes of a data set of your own; without one, lists those that it knows."""

from dataclasses import asdict
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from nnlite.cli.options import Choice, json_option, message, print_json, print_table, setting_options
from nnlite.datasets.catalog import DATASETS, fetch_dataset, locate
from nnlite.datasets.description import SPLITS
from nnlite.datasets.loading import load
from nnlite.datasets.samples import Dataset

REMOTE = [name for name, entry in DATASETS.items() if entry.mirrors]


@click.command()
@click.argument("source", metavar="[FILE]", required=False)
@setting_options("label", "split", "seed")
@click.option("--fetch", type=Choice(REMOTE), help="Download a data set into the cache, and check it by SHA-256.")
@json_option
def data(
    source: str | None, label: str | None, split: tuple[float, ...], seed: int, fetch: str | None, as_json: bool
) -> None:
    """Show what nnlite makes of FILE, or list the data sets that it knows.

    FILE is a CSV file, an NPZ file or a folder of IDX files (docs/own-data.md), or the name of a data set. Prints how
    many samples of each class go where, and the range of each feature in the training samples, which becomes 0 to 1.

    A data set that nnlite knows, and that is not part of it, is read from $NNLITE_DATA/NAME or, if there is no such
    folder, from the cache. If it is in neither, nnlite train downloads it, unless NNLITE_OFFLINE is set to 1.
    """
    context = click.get_current_context()
    for name in ("label", "split", "seed"):
        if source is None and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} goes with a FILE; give one")
    if source and fetch:
        raise click.UsageError("--fetch and FILE exclude each other; choose one")
    if source:
        found = load(source, seed, label=label, split=split)
        (_print_json if as_json else _print)(found)
        return
    if fetch:
        message(f"{fetch} is complete in {fetch_dataset(DATASETS[fetch])}")
    rows = [
        {
            "name": name,
            "images": "{:,} of {} x {}".format(sum(entry.splits), *entry.shape),
            "splits": "{:,} / {:,} / {:,}".format(*entry.splits),
            "licence": entry.licence,
            "source": entry.source,
            "place": locate(name) or "not here: --fetch",
        }
        for name, entry in DATASETS.items()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        "Data sets",
        ["name", "images", "train / valid. / test", "place"],
        [[row[key] for key in ("name", "images", "splits", "place")] for row in rows],
    )
    for row in rows:
        click.echo(f"{row['name']}: {row['source']}; {row['licence']}")


def _counts(found: Dataset) -> dict[str, list[int]]:
    """Return how many samples of each class each split has."""
    return {name: np.bincount(getattr(found, name).labels, minlength=found.classes).tolist() for name in SPLITS}


def _print_json(found: Dataset) -> None:
    content: dict[str, Any] = asdict(found.description) | {"counts": _counts(found), "notes": found.notes}
    print_json(content)


def _print(found: Dataset) -> None:
    about, counts = found.description, _counts(found)
    form = " x ".join(map(str, about.shape))
    what = f"rows of {form} features" if len(about.shape) == 1 else f"images of {form}"
    drawn = ""
    if about.split.drawn:
        drawn = f", {'all' if about.split.drawn == SPLITS else 'validation'} drawn by seed {about.split.seed}"
    print_table(
        f"{about.name}: {sum(about.split.sizes):,} {what}{drawn}",
        ["class", *SPLITS, "all"],
        [
            [name, *(f"{count:,}" for count in own), f"{sum(own):,}"]
            for name, *own in zip(about.classes, *counts.values(), strict=True)
        ]
        + [["all", *(f"{size:,}" for size in about.split.sizes), f"{sum(about.split.sizes):,}"]],
    )
    print_table(
        "What becomes 0 and 1",
        ["feature", "0", "1"],
        [
            [name, f"{low:g}", f"{high:g}"]
            for name, low, high in zip(about.features or ["each value"], about.low, about.high, strict=True)
        ],
    )
    click.echo(f"SHA-256 {about.sha256}")
    for note in found.notes:
        message(f"Note: {note}.")
