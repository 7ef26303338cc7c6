"""`nnlite data`: lists the data sets, and downloads them."""

import click

from nnlite.cli.options import Choice, json_option, message, print_json, print_table
from nnlite.datasets.catalog import DATASETS, fetch_dataset, locate

REMOTE = [name for name, entry in DATASETS.items() if entry.mirrors]


@click.command()
@click.option("--fetch", type=Choice(REMOTE), help="Download a data set into the cache, and check it by SHA-256.")
@json_option
def data(fetch: str | None, as_json: bool) -> None:
    """List the data sets, or download one.

    A data set that is not part of nnlite is read from $NNLITE_DATA/NAME or, if there is no such folder, from the
    cache. If it is in neither, nnlite train downloads it, unless NNLITE_OFFLINE is set to 1.
    """
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
        ["name", "images", "train / valid. / test", "licence", "place"],
        [[row[key] for key in ("name", "images", "splits", "licence", "place")] for row in rows],
    )
    for row in rows:
        click.echo(f"{row['name']}: {row['source']}")
