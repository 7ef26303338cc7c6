"""`nnlite grid`: train many settings and seeds at once."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nnlite.backend import DEVICES
from nnlite.bench.process import processors
from nnlite.cli.options import FLOATS, INTEGERS, WIDTHS, jobs_option, json_option, print_json, print_table, runs_option
from nnlite.cli.progress import progress
from nnlite.datasets.catalog import DATASETS
from nnlite.errors import DivergedError
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.grid.cluster import LOCAL, on_cluster
from nnlite.grid.combinations import make_grid, read_grid
from nnlite.grid.jobs import Training, check_fit, in_stacks, missing, train_all
from nnlite.grid.pool import in_processes
from nnlite.methods import DUALS, GRADIENTS, METHODS
from nnlite.training.runs import load_run

PHI = PAPER_PHI[-1]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--reg", type=click.Choice(list(METHODS)), metavar="METHOD", help="Method.  [default: none]")
@click.option("--lam", type=FLOATS, help="Lambda.")
@click.option("--phi", type=FLOATS, help="Size of the noise.")
@click.option("--alpha", type=FLOATS, help="Weight of the clean loss, where samples are mixed in.")
@click.option("--p", type=click.Choice(list(DUALS)), help="Norm of the noise, for lyu.")
@click.option("--term", multiple=True, metavar="R,LAM,PHI[,TASK]", help="A term of Eq. 1, for datagrad; repeatable.")
@click.option("--gradient", type=click.Choice(GRADIENTS), help="Of DataGrad's penalty.  [default: finite]")
@click.option("--data", type=click.Choice(DATASETS), help="Data set.  [default: digits]")
@click.option(
    "--hidden", type=WIDTHS, multiple=True, help="Hidden widths; repeated, several nets.  [default: 784,784,784]"
)
@click.option("--lr", type=FLOATS, help="Learning rate.  [default: 0.1]")
@click.option("--epochs", type=INTEGERS, help="Number of epochs.  [default: 60]")
@click.option("--batch-size", type=INTEGERS, help="Examples in a step.  [default: 100]")
@click.option("--multitask", is_flag=True, help="Add a head that tells how far an image is rotated (Eq. 6).")
@click.option("--gamma", type=FLOATS, help="Weight of the rotation loss.  [default with --multitask: 0.5]")
@click.option("--seed", type=INTEGERS, help="Seed.  [default: 0]")
@click.option("--device", type=click.Choice(DEVICES), help="NumPy or, with CuPy, one GPU.  [default: cpu]")
@runs_option
@jobs_option
@click.option(
    "--stack",
    type=click.IntRange(1),
    help="Models trained side by side, where the method is the same.  [default: on a CPU 1, on a GPU all that fit]",
)
@click.option("--scheduler", metavar="ADDRESS", help="Train on the Dask cluster there, as tcp://HOST:8786, or local.")
@click.option("--dry-run", is_flag=True, help="Train nothing; list what there is, and what would be trained.")
@json_option
def grid(
    file: Path | None,
    runs: Path,
    jobs: int | None,
    stack: int | None,
    scheduler: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train many settings and seeds at once.

    FILE is a grid in TOML (docs/grid.md). Without it the options make one: --lam 0.001,0.01 --seed 0,1,2 trains all
    six combinations. Runs that are there are kept, those that are missing are trained; stopped, the same command goes
    on.
    """
    trainings = _trainings(file, runs, {key: value for key, value in options.items() if value not in (None, (), False)})
    gpu = any(training.settings.device == "gpu" for training in trainings)
    if gpu and scheduler is not None and not stack:
        raise click.UsageError("--stack: expected with --scheduler and a GPU, whose memory is not known here; give one")
    left = missing(trainings)
    stacks = in_stacks(left, stack)
    if dry_run:
        _print_plan(trainings, stacks, as_json)
        return
    jobs = jobs or (1 if gpu else len(processors()))
    if scheduler in (None, LOCAL):
        check_fit(stacks, jobs)
    workers = partial(in_processes, jobs=jobs)
    if scheduler is not None:
        workers = partial(on_cluster, address=scheduler, jobs=jobs)
    total, done = sum(training.cost for training in left), 0.0
    with progress() as on_progress:

        def advance(cost: float, text: str = "") -> None:
            nonlocal done
            done += cost
            on_progress(done, total, text)

        advance(0, f"{len(left)} of {len(trainings)} nets are left to train")
        try:
            for training, failure in train_all(stacks, workers, advance):
                advance(0, failure or f"trained {training.path.name}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted: finished runs are kept; the same command goes on.") from None
    _print_runs(trainings, as_json)


def _trainings(file: Path | None, runs: Path, given: dict[str, Any]) -> list[Training]:
    if (file is None) == (not given):
        raise click.UsageError("expected a grid FILE, or settings as options, such as --lr 0.05,0.1")
    if file:
        return read_grid(file, runs)
    table = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    if "hidden" in table:
        table["hidden"] = [list(widths) for widths in table["hidden"]]
    return make_grid([table], runs, "options")


def _print_plan(trainings: Sequence[Training], stacks: Sequence[Sequence[Training]], as_json: bool) -> None:
    """Print what would be trained, and in which stack; the stacks are numbered in their order."""
    numbers = {training.path: number for number, stack in enumerate(stacks, 1) for training in stack}
    if as_json:
        print_json(
            [
                {
                    "name": training.path.name,
                    "path": str(training.path),
                    "settings": dataclasses.asdict(training.settings),
                    "cost": training.cost,
                    "stack": numbers.get(training.path),
                }
                for training in trainings
            ]
        )
        return
    cost = sum(training.cost for stack in stacks for training in stack)
    rows = [
        [
            f"{training.settings.data}/{training.path.name}",
            f"{training.cost:g}",
            str(numbers.get(training.path, "")),
            "missing" if training.path in numbers else "there",
        ]
        for training in trainings
    ]
    left = f"{len(numbers)} of {len(trainings)} nets are left to train"
    title = f"{left}, in {len(stacks)} stacks, at the cost of {cost:,g} epochs of a plain net"
    print_table(title, ["run", "cost", "stack", "state"], rows)


def _print_runs(trainings: Sequence[Training], as_json: bool) -> None:
    found = {training.path: load_run(training.path) for training in trainings if training.path.is_dir()}
    if as_json:
        print_json(
            [
                {
                    "name": training.path.name,
                    "path": str(training.path),
                    "settings": dataclasses.asdict(training.settings),
                    "results": dataclasses.asdict(found[training.path].results) if training.path in found else None,
                }
                for training in trainings
            ]
        )
    else:
        rows = []
        for training in trainings:
            name, run = f"{training.settings.data}/{training.path.name}", found.get(training.path)
            if run is None:
                rows.append([name, "-", "-", "-", "diverged"])
                continue
            attacked = dict(zip(run.results.phi, run.results.self_attack, strict=True))[PHI]
            figures = (run.results.validation, run.results.test, attacked)
            rows.append([name, *(f"{figure:.2f}" for figure in figures), run.results.status])
        title = "Runs: accuracy in %, and under the run's own R1 noise"
        print_table(title, ["run", "valid.", "test", f"phi {PHI:g}", "status"], rows)
    diverged = len(trainings) - sum(run.results.status != "diverged" for run in found.values())
    if diverged:
        raise DivergedError(f"{diverged} of {len(trainings)} trainings diverged; try another --lr")
