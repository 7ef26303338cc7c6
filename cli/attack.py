"""`nnlite attack`: one run crafts noise, every run is scored on it."""

import csv
import sys
from pathlib import Path

import click

from nnlite.attacks import NOISES
from nnlite.cli.options import (
    PHIS,
    data_option,
    device_option,
    json_option,
    message,
    print_json,
    print_table,
    runs_option,
)
from nnlite.datasets import load
from nnlite.errors import NnliteError
from nnlite.evaluation import PAPER_PHI, first_of_each_class
from nnlite.evaluation import attack as attack_all
from nnlite.plots import check_format, plot_accuracy, plot_examples
from nnlite.runs import find_run, list_runs


@click.command()
@click.option("--adversary", required=True, help="Run that crafts the noise: its name, or the path of its folder.")
@click.option("--victim", "victims", multiple=True, help="Run to score; may be repeated.  [default: all on the data]")
@data_option
@click.option("--noise", type=click.Choice(list(NOISES)), default="r1", show_default=True, help="sign(J) or 2J.")
@click.option("--phi", type=PHIS, default=PAPER_PHI, help="Sizes of noise.  [default: 0,0.005,0.01,0.05,0.1]")
@click.option("--clip", is_flag=True, help="Keep pixels within [0, 1]; the paper does not.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="Type.")
@device_option
@runs_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
@click.option("--images", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw digits and predictions.")
def attack(
    adversary: str,
    victims: tuple[str, ...],
    data: str,
    noise: str,
    phi: tuple[float, ...],
    clip: bool,
    dtype: str,
    device: str,
    runs: Path,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
    images: Path | None,
) -> None:
    """Attack runs with the noise that one run crafts.

    Prints the accuracy of every victim at each phi. The noise is the paper's: one step of size phi along
    the penalty's gradient at the adversary's input gradient, sign(J) for r1 and 2J for r2.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    for picture in filter(None, (plot, images)):
        check_format(picture)
    crafting = find_run(adversary, data, runs)
    scored = [find_run(name, data, runs) for name in victims] or list_runs(runs, data)
    if len({run.name for run in scored}) < len(scored):
        raise NnliteError("victim: expected runs of different names, found one twice")
    dataset = load(data)
    test = dataset.test.to(device)
    nets = {run.name: run.net.astype(dtype).to(device) for run in scored}
    net, penalty = crafting.net.astype(dtype).to(device), NOISES[noise]
    table = attack_all(net, nets, test, penalty, phi, clip=clip)

    title = f"{crafting.name} crafts {noise.upper()} noise on {len(test):,} test images of {data}"
    title += ", clipped to [0, 1]" if clip else ", not clipped"
    figures = {victim: [float(value) for value in values] for victim, values in table.accuracy.items()}
    if as_json:
        print_json(
            {
                "adversary": crafting.name,
                "data": data,
                "noise": noise,
                "clip": clip,
                "dtype": dtype,
                "phi": table.phi,
                "accuracy": figures,
                "zero_share": table.zero_share,
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([["victim", *table.phi], *([victim, *values] for victim, values in figures.items())])
    else:
        rows = [[victim, *(f"{value:.2f}" for value in values)] for victim, values in figures.items()]
        print_table(title, ["victim", *(f"phi {size:g}" for size in table.phi)], rows)
        message("accuracy in %")
    if table.zero_share:
        message(
            f"Note: {100 * table.zero_share:.2g} % of the adversary's input-gradient entries are exactly 0; "
            f"R1 leaves those pixels as they are, so the attack may look weaker than it is."
        )

    methods = {run.name: run.settings.reg for run in scored}
    crafted = f"{noise.upper()} noise crafted by {crafting.name}"
    if plot:
        plot_accuracy(table, methods, f"{data}: {crafted}", plot)
        message(f"drew {plot}")
    if images:
        cases = first_of_each_class(net, nets, test, penalty, phi, clip=clip)
        plot_examples(cases, table, methods, dataset.shape, f"{data}: {crafted}", images)
        message(f"drew {images}")
