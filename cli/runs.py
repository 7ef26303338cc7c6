"""`nnlite runs`: what has been trained, with its numbers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from nnlite.cli.options import json_option, message, print_json, print_table, runs_option
from nnlite.datasets.catalog import DATASETS
from nnlite.errors import NnliteError
from nnlite.training.checkpoint import checkpoint_of, epochs_done
from nnlite.training.runs import list_records, list_unfinished


@click.command()
@click.option("--data", type=click.Choice(DATASETS), help="Only runs on this data set.")
@runs_option
@json_option
def runs(data: str | None, runs: Path, as_json: bool) -> None:
    """List the runs and their accuracies.

    The columns under phi are the accuracy in % under each run's own R1 noise.
    """
    found = list_records(runs, data)
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
    _tell_of_unfinished(list_unfinished(runs, data))
    if not found:
        message(f"no runs in {runs}; train one with nnlite train")
        return
    rows = [
        [
            f"{run.settings.data}/{run.name}",
            f"{run.results.best_epoch} of {run.epochs}",
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


def _tell_of_unfinished(trainings: Sequence[Path]) -> None:
    """Say on stderr which trainings have a checkpoint: they were stopped, or are under way."""
    words = []
    for run in trainings:
        try:
            done, epochs = epochs_done(checkpoint_of(run))
            words.append(f"{run.parent.name}/{run.name} after epoch {done} of {epochs}")
        except NnliteError as error:
            message(f"Warning: {error}")
    if words:
        message(
            f"{len(words)} training{'s are' if len(words) > 1 else ' is'} not finished: {', '.join(words)}; "
            f"nnlite train --resume goes on"
        )
