"""`nnlite runs`: what has been trained, with its numbers."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from nnlite.cli.options import Choice, json_option, message, print_json, print_table, runs_option
from nnlite.cli.progress import progress
from nnlite.datasets.loading import source_name
from nnlite.errors import NnliteError
from nnlite.storage import kinds
from nnlite.training.checkpoint import checkpoint_of, epochs_done
from nnlite.training.outcome import STATUSES
from nnlite.training.run_folder import Record
from nnlite.training.runs import check_runs, list_records, list_unfinished
from nnlite.training.settings import FIELDS, LISTS

WIDTH = 80
# What runs are sorted by, the best first.
KEYS: dict[str, Callable[[Record], Any]] = {
    "validation": lambda run: -run.results.validation,
    "test": lambda run: -run.results.test,
    "phi": lambda run: -run.results.self_attack[-1],
    "name": lambda run: run.name,
}


NUMBERS = {name for name, field in FIELDS.items() if {int, float} & {field.type, *get_args(field.type)}} - {*LISTS}


class Condition(click.ParamType[tuple[str, str]]):
    """A condition such as reg=dgl1, lam=0.01 or status=failed."""

    name = "setting=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the name of a setting, or status, and the text that its value must have."""
        key, equals, wanted = value.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in (*FIELDS, "status"):
            self.fail(
                f"expected NAME=VALUE, where the name is status, {', '.join(FIELDS)}; found {value!r}", param, ctx
            )
        choices = STATUSES if key == "status" else FIELDS[key].metadata["kind"].choices
        if choices and wanted not in choices:
            self.fail(f"{key}: expected one of {', '.join(map(str, choices))}, found {wanted!r}", param, ctx)
        if key in NUMBERS and not _is_number(wanted):
            self.fail(f"{key}: expected a number, found {wanted!r}", param, ctx)
        return key, wanted


@click.command()
@click.option("--data", metavar="NAME|PATH", help="Only runs on this data set.")
@click.option(
    "--where",
    type=Condition(),
    multiple=True,
    help="Only runs with this setting, or status, such as reg=dgl1, hidden=64,64 or status=failed; repeatable.",
)
@click.option("--sort", type=Choice(list(KEYS)), help="The best first.  [default: by method, lambda and phi]")
@click.option("--check", is_flag=True, help="Read every file of every run, and compare it with its SHA-256.")
@runs_option
@json_option
@click.pass_context
def runs(
    ctx: click.Context,
    data: str | None,
    where: Sequence[tuple[str, str]],
    sort: str | None,
    check: bool,
    runs: Path,
    as_json: bool,
) -> None:
    """List the runs and their accuracies.

    Those under phi are the accuracies in % under each run's own R1 noise.

    With --check every run is read whole, and the exit code is 1 if one is damaged.
    """
    if ctx.get_parameter_source("runs") is not ParameterSource.DEFAULT and not runs.is_dir():
        raise NnliteError(f"runs: there is no folder {runs}; give the one that nnlite train wrote to")
    if data and not (kinds.FOLDER_NAME.fits(data) and (runs / data).is_dir()):
        data = source_name(data)
    if check:
        if where or sort:
            raise click.UsageError("--check goes through all runs: leave out --where and --sort")
        _check(runs, data, as_json)
        return
    found = [run for run in list_records(runs, data) if all(_is(run, *condition) for condition in where)]
    if sort:
        found.sort(key=KEYS[sort])
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
        message(f"no runs {'like this ' * bool(where)}in {runs}; train one with nnlite train")
    for name, some in groupby(sorted(found, key=lambda run: run.settings.data), lambda run: run.settings.data):
        _print(name, list(some))


def _check(runs: Path, data: str | None, as_json: bool) -> None:
    """Print whether each run is whole; exit with 1 where one is not."""
    with progress("checking runs") as show:
        found = check_runs(runs, data, show)
    damaged = sum(not whole for _, whole, _ in found)
    if as_json:
        print_json([{"path": str(path), "whole": whole, "remark": remark} for path, whole, remark in found])
    else:
        rows = [[str(path), "whole" if whole else "damaged"] for path, whole, _ in found]
        print_table(f"{damaged} of {len(found)} runs are damaged", ["run", "content"], rows)
        for path, whole, remark in found:
            if remark:
                message(f"{path}: {remark}" if whole else remark)
    if damaged:
        sys.exit(1)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is(run: Record, key: str, wanted: str) -> bool:
    """Return whether a setting, or the status, is what the user wrote: 0.010 is 0.01."""
    value = run.results.status if key == "status" else getattr(run.settings, key)
    if value is not None and key in NUMBERS:
        return bool(value == float(wanted))
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text.lower() == wanted.lower()


def _print(data: str, runs: Sequence[Record]) -> None:
    """Print a table; where it is wider than WIDTH, what is missed least is left out, and never a part of a name."""
    columns = {
        "run": [run.name for run in runs],
        "valid.": [f"{run.results.validation:.2f}" for run in runs],
        "test": [f"{run.results.test:.2f}" for run in runs],
        f"phi {runs[0].results.phi[-1]:g}": [f"{run.results.self_attack[-1]:.2f}" for run in runs],
        "epoch": [f"{run.results.best_epoch}/{run.epochs}" for run in runs],
        "status": [run.results.status for run in runs],
    }
    spare = ["epoch", "status"] if {*columns["status"]} == {"finished"} else ["epoch"]
    while spare and sum(2 + max(map(len, (head, *cells))) for head, cells in columns.items()) - 2 > WIDTH:
        del columns[spare.pop(0)]
    title = f"Runs on {data}: accuracy in %, under the run's own R1 noise at phi" + ", best epoch" * (
        "epoch" in columns
    )
    print_table(title, list(columns), list(zip(*columns.values(), strict=True)))


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
