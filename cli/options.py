"""What several commands share: options, the types of their values, and how a table and a bracket are printed."""

import csv
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import add
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import numpy as np
import threadpoolctl
from rich.cells import cell_len
from rich.console import Console

from nnlite.errors import NnliteError, printable
from nnlite.evaluation.certifying import Bracket
from nnlite.evaluation.intervals import Limits
from nnlite.evaluation.threads import blocks_at_a_time, check_threads, processors
from nnlite.methods import METHODS
from nnlite.storage.texts import did_you_mean, parse_number
from nnlite.training.run_folder import Record, Run
from nnlite.training.settings import DEFAULTS, EXAMPLES, FIELDS

Command = TypeVar("Command", bound=Callable[..., Any])


class WithRows(click.Command):
    """A command whose help ends with a list: a title, and rows of a name and some words."""

    def __init__(self, *args: Any, title: str, rows: Sequence[tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self._title, self._rows = title, rows

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        with formatter.section(self._title):
            formatter.write_dl(self._rows, col_max=22)


class Choice(click.Choice[str]):
    """One of some names; for another one the nearest of them is told, as click does for commands and options."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return what is wrong."""
        near = did_you_mean(value, self.choices)
        return f"{super().get_invalid_choice_message(value, ctx).removesuffix('.')}{near}."


class Number(click.ParamType[float]):
    """A size of noise, which may be written as a fraction, such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            return parse_number(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class NumberList(click.ParamType[tuple[Any, ...]]):
    """Numbers separated by commas, such as 784,784,784; an empty text is an empty list.

    Arguments:
        number: int, float, or a Number for sizes of noise.
        metavar: what the help calls the list.
    """

    def __init__(self, number: type[int] | type[float] | Number, metavar: str) -> None:
        self.number, self.name = number, metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        texts = value.split(",") if value.strip() else ()
        if isinstance(self.number, Number):
            return tuple(self.number.convert(text, param, ctx) for text in texts)
        try:
            return tuple(map(self.number, texts))
        except ValueError:
            self.fail(f"expected {self.number.__name__} numbers separated by commas, found {value!r}", param, ctx)


PHI = Number()
WIDTHS, PHIS, SHARES = NumberList(int, "widths"), NumberList(PHI, "phi,.."), NumberList(float, "shares")
INTEGERS, FLOATS = NumberList(int, "number,.."), NumberList(float, "number,..")

METAVARS = {"reg": "METHOD", "data": "NAME|PATH", "label": "COLUMN"}

runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of all runs.",
)
jobs_option = click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one per core; on a GPU 1]")


def _as_many_as_processors(ctx: click.Context, option: click.Parameter, value: int | None) -> int | None:
    if value is not None:
        check_threads(value)
    return value


threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    callback=_as_many_as_processors,
    help="BLAS threads; more may round otherwise.",
)


def _one_form(ctx: click.Context, option: click.Parameter, value: bool) -> bool:
    if value and any(ctx.params.get(form) for form in ("as_json", "as_csv") if form != option.name):
        raise click.UsageError("--json and --csv exclude each other; choose one", ctx)
    return value


json_option = click.option("--json", "as_json", is_flag=True, callback=_one_form, help="Print JSON.")
csv_option = click.option(
    "--csv", "as_csv", is_flag=True, callback=_one_form, help="Print CSV, a row for each figure of the table."
)


def in_threads(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --threads, and carry it out in so many BLAS threads, whatever the environment says.

    One by default: the same bits on any number of cores, and no product that waits for a thread of a busy machine.
    """

    @functools.wraps(command)
    def limited(*args: Any, threads: int, **options: Any) -> None:
        with threadpoolctl.threadpool_limits(threads):
            command(*args, **options)

    return threads_option(limited)


def in_blocks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --threads, and work on so many blocks of images at a time, each in one BLAS thread."""

    @functools.wraps(command)
    def limited(*args: Any, threads: int | None, **options: Any) -> None:
        with threadpoolctl.threadpool_limits(1), blocks_at_a_time(threads or processors()):
            command(*args, **options)

    return click.option(
        "--threads",
        type=click.IntRange(1),
        callback=_as_many_as_processors,
        help="Blocks of images at a time; figures stay the same.  [default: one per core]",
    )(limited)


def setting_option(name: str, *, several: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds the option of a setting, as its field in Settings describes it.

    With `several` the option takes a list, and is None where the user leaves it out.
    """
    field = FIELDS[name]
    options: dict[str, Any] = {"default": None if several else field.default}
    about, default = field.metadata["about"], DEFAULTS.get(name, field.default)
    if default is not None and default is not False:
        words = ",".join(map(str, default)) if isinstance(default, tuple) else default
        about += f"  [default: {words}]"
    if name in METAVARS:
        options["metavar"] = METAVARS[name]
    if field.metadata["kind"].choices:
        options["type"] = Choice(field.metadata["kind"].choices)
    elif name in ("hidden", "split"):
        options |= {"type": {"hidden": WIDTHS, "split": SHARES}[name], "multiple": several}
    elif name == "term":
        options |= {
            "multiple": True,
            "metavar": "R,LAM,PHI[,TASK]",
            "callback": lambda ctx, option, value: value or None,
        }
    elif field.type is bool:
        options |= {"is_flag": True, "default": False}
    else:
        number = (*get_args(field.type), field.type)[0]  # X of X | None
        options["type"] = {int: INTEGERS, float: FLOATS}.get(number, number) if several else number
    if name == "phi":
        options["type"] = PHIS if several else PHI
    return click.option(f"--{name.replace('_', '-')}", help=about, **options)


def setting_options(*names: str, several: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of these settings, in this order."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = setting_option(name, several=several)(command)
        return command

    return add


def method_options(reg: str, *more: str) -> Callable[[Command], Command]:
    """Return a decorator that adds --reg, `reg` by default, and the numbers that methods take.

    more: values of --reg that are not methods.
    """

    def add(command: Command) -> Command:
        known, about = Choice([*METHODS, *more]), FIELDS["reg"].metadata["about"]
        command = setting_options(*EXAMPLES, "gradient")(command)
        return click.option("--reg", type=known, default=reg, show_default=True, metavar="METHOD", help=about)(command)

    return add


data_option, device_option, hidden_option = map(setting_option, ("data", "device", "hidden"))


def message(text: str) -> None:
    """Print `text` as a line to stderr, the place of progress and messages; where nobody can read it, go on without."""
    try:
        print_line(text, err=True)
    except OSError:  # a full disk, or a pipe whose reader went away
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the system in writing what --out names into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise NnliteError(f"out: cannot write {out} ({error.strerror}); choose another --out") from error


def print_line(text: str, *, err: bool = False) -> None:
    """Print `text` as a line to stdout, or stderr; one that is too long for a terminal breaks there between words."""
    console = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(printable(text))
    else:
        click.echo(printable(text), err=err)


def print_json(content: Any) -> None:
    """Print `content` as JSON to stdout."""
    click.echo(json.dumps(content, indent=2))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same columns as CSV to stdout; what is None is left empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    head = [list(row) for row in rows[:1]]
    writer.writerows([*head, *(row.values() for row in rows)])


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, err: bool = False) -> None:
    """Print a table to stdout or stderr, as wide as its content needs, the first column left, the others right."""
    # the name of a run, or a text in a file, may come from a stranger
    title, head, rows = printable(title), [*map(printable, head)], [[*map(printable, row)] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padding = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([cells[0] + padding[0], *map(add, padding[1:], cells[1:])]).rstrip()

    console = Console(stderr=err, highlight=False)  # its own tables take 1 ms a row, and there may be thousands of runs
    for text, style in ((f"{title}\n", "bold"), (line(head), "bold"), ("─" * (sum(widths) + 2 * len(head) - 2), None)):
        console.out(text, style=style)
    console.out("\n".join([*map(line, rows), ""]))


def figures(found: Bracket) -> dict[str, Any]:
    """Return a bracket as it stands in JSON."""
    return {
        "images": found.rows.tolist(),
        "accuracy": {name: values.tolist() for name, values in found.accuracy.items()},
        "intervals": as_lists(found.intervals),
        "interrupted": found.interrupted,
    }


def as_lists(intervals: Mapping[str, Limits]) -> dict[str, list[list[float]]]:
    """Return intervals as they stand in JSON, as pairs of a lower and an upper limit."""
    return {name: np.stack(limits, axis=-1).tolist() for name, limits in intervals.items()}


def method_of(run: Run | Record) -> str:
    """Return the method of a run with its numbers, lambda and phi as letters."""
    numbers = {"λ": run.settings.lam, "φ": run.settings.phi}
    method = "no regularisation" if run.settings.reg == "none" else run.settings.reg
    return ", ".join([method, *(f"{letter} = {number:g}" for letter, number in numbers.items() if number is not None)])
