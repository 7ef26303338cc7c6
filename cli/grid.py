"""`nnlite grid`: train many settings and seeds at once."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from nnlite.cli.options import (
    jobs_option,
    json_option,
    message,
    print_json,
    print_table,
    runs_option,
    setting_options,
    threads_option,
)
from nnlite.cli.progress import progress
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, check_phi
from nnlite.evaluation.pictures import check_picture
from nnlite.grid.cluster import LOCAL, run_on_cluster
from nnlite.grid.combinations import make_grid, read_grid
from nnlite.grid.jobs import Job, check_fit, group_into_stacks, pending, train_jobs
from nnlite.grid.pictures import plot_heat_maps
from nnlite.grid.pool import default_processes, run_in_pool
from nnlite.grid.summary import (
    CHOOSING,
    NOISY,
    PGD,
    TEST,
    VALIDATION,
    Group,
    best_of,
    group_by_seed,
    heat_maps,
    pgd_accuracies,
    write_csv,
)
from nnlite.training.settings import FIELDS


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
@click.option(
    "--select",
    type=click.Choice(list(CHOOSING)),
    default="validation",
    show_default=True,
    help="What chooses the best settings: accuracy on the validation images, or there under PGD of 40 steps.",
)
@click.option("--select-phi", type=float, help=f"Size of PGD's noise in --select pgd.  [default: {PAPER_PHI[-1]:g}]")
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Write a line for each net.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy for lambda and phi.")
@click.option("--dry-run", is_flag=True, help="Train nothing; list the runs, and which of them are missing.")
@json_option
def grid(
    file: Path | None,
    runs: Path,
    jobs: int | None,
    threads: int,
    stack: int | None,
    scheduler: str | None,
    select: str,
    select_phi: float | None,
    table: Path | None,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train many settings and seeds at once.

    FILE is a grid in TOML (docs/grid.md). Without it the options make one: --lam 0.001,0.01 --seed 0,1,2 trains all
    six combinations. Finished runs are kept and missing ones are trained; after Ctrl-C, the same command continues.

    At the end stand mean and standard deviation over the seeds, the settings that are best on the validation images,
    and a map of lambda and phi. The test images choose nothing.
    """
    if select_phi is not None and select != "pgd":
        raise click.UsageError("--select-phi is the size of PGD's noise: add --select pgd, or leave it out")
    (size,) = check_phi([PAPER_PHI[-1] if select_phi is None else select_phi])
    if plot:
        check_picture(plot)
    wanted = _jobs(file, runs, {key: value for key, value in options.items() if value not in (None, (), False)})
    device = "gpu" if any(job.settings.device == "gpu" for job in wanted) else "cpu"
    if device == "gpu" and scheduler is not None and not stack:
        raise click.UsageError("--stack: needed with --scheduler and a GPU, whose memory is not known here; give one")
    if plot and not heat_maps(group_by_seed(wanted), VALIDATION):
        raise NnliteError("plot: expected a grid with several values of lambda and of phi; leave --plot out")
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
            for job, failure in train_jobs(stacks, executor, advance, shared_disk=scheduler is None):
                advance(0, failure or f"trained {job.path.name}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted: finished runs are kept; the same command continues.") from None
    pgd = None
    if select == "pgd":
        local = partial(run_in_pool, processes=processes, threads=threads)
        with progress("PGD on the validation images") as show:
            pgd = pgd_accuracies(wanted, size, local, show)
    groups, by = group_by_seed(wanted, pgd), CHOOSING[select]
    words = f"validation accuracy under PGD of phi {size:g}" if pgd is not None else "validation accuracy"
    if table:
        write_csv(groups, table)
    if as_json:
        _print_json(groups, by)
    else:
        _print_groups(groups, by, words)
    maps = heat_maps(groups, by)
    if plot:
        plot_heat_maps(maps, f"{words}, %", plot)
        message(f"drew {plot}")
    statuses = [record.results.status for group in groups for record in group.records]
    failed = len(wanted) - sum(status not in ("diverged", "failed") for status in statuses)
    if failed:
        raise DivergedError(f"{failed} of {len(wanted)} nets diverged, or are no better than a guess; try another --lr")


def _jobs(file: Path | None, runs: Path, given: dict[str, Any]) -> list[Job]:
    if (file is None) == (not given):
        raise click.UsageError("expected a grid FILE, or settings as options, such as --lr 0.05,0.1")
    if file:
        return read_grid(file, runs)
    table = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    for key in {"hidden", "split"} & table.keys():
        table[key] = [list(numbers) for numbers in table[key]]
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


def _print_json(groups: Sequence[Group], by: str) -> None:
    """Print an entry for each net; `best` says whether its settings are the best ones."""
    best, entries = best_of(groups, by), []
    for group in groups:
        chosen = best is not None and group.jobs == best.jobs
        found = {record.path: number for number, record in enumerate(group.records)}
        for job in group.jobs:
            number = found.get(job.path)
            results = None if number is None else dataclasses.asdict(group.records[number].results)
            pgd = {} if PGD not in group.figures else {"pgd": None if number is None else group.figures[PGD][number]}
            entries.append({**_entry(job), "results": results, **pgd, "best": chosen})
    print_json(entries)


def _print_groups(groups: Sequence[Group], by: str, words: str) -> None:
    """Print the figures of each group, the best one, and the maps."""
    columns = [VALIDATION, TEST, NOISY, *([PGD] if by == PGD else [])]
    several = any(len(group.jobs) > 1 for group in groups)
    rows = [
        [
            f"{group.jobs[0].settings.data}/{group.name}",
            *([str(len(group.jobs))] if several else []),
            *(_figure(group, column) for column in columns),
            group.status,
        ]
        for group in groups
    ]
    title = "Accuracy in %, clean and under the net's own R1 noise" + ", mean ± standard deviation" * several
    print_table(title, ["settings", *(["seeds"] if several else []), *columns, "status"], rows)
    for one in heat_maps(groups, by):
        top = np.nanmax(one.values) if not np.isnan(one.values).all() else np.nan
        cells = [[f"{value:.2f}{'*' if value == top else ' '}" for value in row] for row in one.values]
        rows = [[f"{lam:g}", *row] for lam, row in zip(one.lam, cells, strict=True)]
        print_table(f"{one.name}: {words} in %", ["lambda", *(f"phi {phi:g} " for phi in one.phi)], rows)
    best = best_of(groups, by)
    if best:
        click.echo(f"best {words}: {best.name}, {_figure(best, by)} %; on the test images {_figure(best, TEST)} %")


def _figure(group: Group, figure: str) -> str:
    """Return a mean over the seeds that have a run, with its spread where there are several."""
    values = group.figures[figure]
    if not len(values):
        return "-"
    return f"{values.mean():.2f}" + (f" ± {group.spread(figure):.2f}" if len(values) > 1 else "")
