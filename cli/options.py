"""What several commands share: option types, options, and how a table is printed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from nnlite.backend import DEVICES
from nnlite.datasets.catalog import DATASETS
from nnlite.errors import printable
from nnlite.methods import DUALS, GRADIENTS, METHODS

Command = TypeVar("Command", bound=Callable[..., Any])


class NumberList(click.ParamType[tuple[Any, ...]]):
    """Numbers with commas between them, such as 784,784,784; an empty text is an empty list."""

    def __init__(self, number: type[int] | type[float], metavar: str) -> None:
        self.number, self.name = number, metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(map(self.number, value.split(","))) if value.strip() else ()
        except ValueError:
            self.fail(f"expected {self.number.__name__} numbers with commas between them, found {value!r}", param, ctx)


WIDTHS, PHIS = NumberList(int, "widths"), NumberList(float, "phi,..")
INTEGERS, FLOATS = NumberList(int, "number,.."), NumberList(float, "number,..")

data_option = click.option("--data", type=click.Choice(DATASETS), default="digits", show_default=True, help="Data set.")
device_option = click.option(
    "--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="NumPy or, with CuPy, one GPU."
)
hidden_option = click.option(
    "--hidden", type=WIDTHS, default="784,784,784", show_default=True, help='Hidden widths; "" for none.'
)
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder that holds all runs.",
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), help="Processes of one thread each.  [default: one for each core; on a GPU 1]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_METHOD_OPTIONS = (
    click.option("--lam", type=float, help="Lambda; for l1 and l2 on the paper's scale, beside the batch sum."),
    click.option("--phi", type=float, help="Size of the noise, that is the step of the finite difference."),
    click.option("--alpha", type=float, help="Weight of the clean loss, where samples are mixed in.  [default: 0.5]"),
    click.option("--p", type=click.Choice(list(DUALS)), help="Norm of the noise, for lyu."),
    click.option(
        "--term", multiple=True, metavar="R,LAM,PHI[,TASK]", help="A term of Eq. 1, for datagrad; repeatable."
    ),
    click.option(
        "--gradient",
        type=click.Choice(GRADIENTS),
        default="finite",
        show_default=True,
        help="Of DataGrad's penalty: by a finite step phi, or exact, without one.",
    ),
)


def method_options(reg: str, *more: str) -> Callable[[Command], Command]:
    """Return a decorator that adds --reg, `reg` by default, and all options that a method may take.

    more: what --reg takes beside the methods.
    """

    def add(command: Command) -> Command:
        for option in reversed(_METHOD_OPTIONS):
            command = option(command)
        known = click.Choice([*METHODS, *more])
        words = "Method of training; nnlite train --help lists them."
        return click.option("--reg", type=known, default=reg, show_default=True, metavar="METHOD", help=words)(command)

    return add


def method_numbers(given: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Return what was given, with `usual` for what the method takes and the user left out."""
    numbers = {**given, "term": given["term"] or None}
    for name in METHODS[given["reg"]].takes:
        if numbers[name] is None:
            numbers[name] = usual.get(name)
    return numbers


def message(text: str) -> None:
    """Print `text`, in one line, to stderr, where progress and messages go."""
    click.echo(printable(text), err=True)


def print_json(content: Any) -> None:
    """Print `content` as JSON to stdout."""
    click.echo(json.dumps(content, indent=2))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, never narrower than its content; the first column is text, the rest to the right."""
    # the name of a run, or a text in a file, may be a stranger's
    title, head, rows = printable(title), [*map(printable, head)], [[*map(printable, row)] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    needed = Console(width=10_000, markup=False).measure(table).maximum
    console = Console(width=max(needed, Console().width), highlight=False, markup=False)  # a name is no markup
    console.print(title, style="bold", soft_wrap=True)
    console.print()
    console.print(table)
    console.print()
