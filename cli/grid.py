"""`nnlite grid`: train many settings and seeds at once."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import (
    jobs_option,
    json_option,
    print_json,
    print_table,
    runs_option,
    setting_options,
    threads_option,
)
from nnlite.cli.progress import progress
from nnlite.errors import DivergedError
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.grid.cluster import LOCAL, run_on_cluster
from nnlite.grid.combinations import make_grid, read_grid
from nnlite.grid.jobs import Job, check_fit, group_into_stacks, pending, train_jobs
from nnlite.grid.pool import default_processes, run_in_pool
from nnlite.training.runs import load_run
from nnlite.training.settings import FIELDS

_PHI = PAPER_PHI[-1]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@setting_options(*FIELDS, several=True)
@runs_option
@jobs_option
@threads_option
@click.option(
    "--stack",
    type=click.IntRange(1),
    help="Nets of the same method trained side by side.  [default: 1 on a CPU, as many as fit on a GPU]",
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Train on a Dask cluster: tcp://HOST:8786, or local for one made here."
)
@click.option("--dry-run", is_flag=True, help="Train nothing; list the runs, and which of them are missing.")
@json_option
def grid(
    file: Path | None,
    runs: Path,
    jobs: int | None,
    threads: int,
    stack: int | None,
    scheduler: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train many settings and seeds at once.

    FILE is a grid in TOML (docs/grid.md). Without it the options make one: --lam 0.001,0.01 --seed 0,1,2 trains all
    six combinations. Finished runs are kept and missing ones are trained; after Ctrl-C, the same command continues.
    """
    wanted = _jobs(file, runs, {key: value for key, value in options.items() if value not in (None, (), False)})
    device = "gpu" if any(job.settings.device == "gpu" for job in wanted) else "cpu"
    if device == "gpu" and scheduler is not None and not stack:
        raise click.UsageError("--stack: needed with --scheduler and a GPU, whose memory is not known here; give one")
    left = pending(wanted)
    stacks = group_into_stacks(left, stack)
    if dry_run:
        _print_plan(wanted, stacks, as_json)
        return
    processes = jobs or default_processes(device)
    if scheduler in (None, LOCAL):
        check_fit(stacks, processes)
    executor = partial(run_in_pool, processes=processes, threads=threads)
    if scheduler is not None:
        executor = partial(run_on_cluster, address=scheduler, processes=processes, threads=threads)
    total, done = sum(job.cost for job in left), 0.0
    with progress("training") as show:

        def advance(cost: float, text: str = "") -> None:
            nonlocal done
            done += cost
            show(done, total, note=text)

        advance(0, f"{len(left)} of {len(wanted)} nets are left to train")
        try:
            for job, failure in train_jobs(stacks, executor, advance):
                advance(0, failure or f"trained {job.path.name}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted: finished runs are kept; the same command continues.") from None
    _print_runs(wanted, as_json)


def _jobs(file: Path | None, runs: Path, given: dict[str, Any]) -> list[Job]:
    if (file is None) == (not given):
        raise click.UsageError("expected a grid FILE, or settings as options, such as --lr 0.05,0.1")
    if file:
        return read_grid(file, runs)
    table = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    if "hidden" in table:
        table["hidden"] = [list(widths) for widths in table["hidden"]]
    return make_grid([table], runs, "options")


def _entry(job: Job) -> dict[str, Any]:
    return {"name": job.path.name, "path": str(job.path), "settings": dataclasses.asdict(job.settings)}


def _print_plan(jobs: Sequence[Job], stacks: Sequence[Sequence[Job]], as_json: bool) -> None:
    """Print which runs are there, and in which stack each other one would be trained, the first stack first."""
    numbers = {job.path: number for number, stack in enumerate(stacks, 1) for job in stack}
    if as_json:
        print_json([{**_entry(job), "cost": job.cost, "stack": numbers.get(job.path)} for job in jobs])
        return
    rows = [
        [
            f"{job.settings.data}/{job.path.name}",
            f"{job.cost:g}",
            str(numbers.get(job.path, "")),
            "missing" if job.path in numbers else "trained",
        ]
        for job in jobs
    ]
    cost = sum(job.cost for stack in stacks for job in stack)
    left = f"{len(numbers)} of {len(jobs)} nets are left to train"
    title = f"{left}, in {len(stacks)} stacks, at the cost of {cost:,g} epochs of a plain net"
    print_table(title, ["run", "cost", "stack", "state"], rows)


def _print_runs(jobs: Sequence[Job], as_json: bool) -> None:
    runs = {job: load_run(job.path) for job in jobs if job.path.is_dir()}
    if as_json:
        results = {job: dataclasses.asdict(run.results) for job, run in runs.items()}
        print_json([{**_entry(job), "results": results.get(job)} for job in jobs])
    else:
        rows = []
        for job in jobs:
            figures, status = ["-"] * 3, "diverged"
            if job in runs:
                found = runs[job].results
                attacked = dict(zip(found.phi, found.self_attack, strict=True))[_PHI]
                figures = [f"{figure:.2f}" for figure in (found.validation, found.test, attacked)]
                status = found.status
            rows.append([f"{job.settings.data}/{job.path.name}", *figures, status])
        title = "Runs: accuracy in %, clean and under the run's own R1 noise"
        print_table(title, ["run", "valid.", "test", f"phi {_PHI:g}", "status"], rows)
    failed = len(jobs) - sum(run.results.status not in ("diverged", "failed") for run in runs.values())
    if failed:
        raise DivergedError(f"{failed} of {len(jobs)} nets diverged, or are no better than a guess; try another --lr")
