"""`nnlite runs`: what has been trained, with its numbers."""

import dataclasses
from pathlib import Path

import click

from nnlite.cli.options import json_option, message, print_json, print_table, runs_option
from nnlite.datasets import DATASETS
from nnlite.runs import list_runs


@click.command()
@click.option("--data", type=click.Choice(DATASETS), help="Only runs on this data set.")
@runs_option
@json_option
def runs(data: str | None, runs: Path, as_json: bool) -> None:
    """List the runs and their accuracies.

    The columns under phi are the accuracy in % under each run's own R1 noise.
    """
    found = list_runs(runs, data)
    if as_json:
        print_json(
            [
                {
                    "name": run.name,
                    "path": str(run.path),
                    "settings": dataclasses.asdict(run.settings),
                    "results": dataclasses.asdict(run.results),
                }
                for run in found
            ]
        )
        return
    if not found:
        message(f"no runs in {runs}; train one with nnlite train")
        return
    rows = [
        [
            f"{run.settings.data}/{run.name}",
            f"{run.results.best_epoch} of {len(run.history)}",
            f"{run.results.validation:.2f}",
            f"{run.results.test:.2f}",
            *(f"{value:.2f}" for value in run.results.self_attack[1:]),
            run.results.status,
        ]
        for run in found
    ]
    noise = [f"phi {size:g}" for size in found[0].results.phi[1:]]
    print_table(
        "Runs: accuracy in %, and under the run's own R1 noise",
        ["run", "best epoch", "valid.", "test", *noise, "status"],
        rows,
    )
