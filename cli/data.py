"""`nnlite data`: which data sets are at hand, and fetching MNIST."""

import click

from nnlite.cli.options import json_option, message, print_json, print_table
from nnlite.datasets.catalog import SOURCES, fetch_mnist, locate


@click.command()
@click.option("--fetch", type=click.Choice(["mnist"]), help="Fetch a data set into the cache, checked by SHA-256.")
@json_option
def data(fetch: str | None, as_json: bool) -> None:
    """List the data sets, and fetch MNIST.

    MNIST is looked for in $NNLITE_DATA/mnist, then in the cache; nnlite train fetches it where it is in neither,
    unless NNLITE_OFFLINE is set to 1.
    """
    if fetch:
        message(f"{fetch} is complete in {fetch_mnist()}")
    rows: list[dict[str, str]] = [
        {"name": name, **source, "place": locate(name) or "not here: --fetch"} for name, source in SOURCES.items()
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
