"""`nnlite reproduce`: the paper's tables and figures, with the paper's own numbers beside ours."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nnlite.cli.options import FLOATS, INTEGERS, data_option, device_option, hidden_option, message
from nnlite.paper import BEST_MODELS, MODELS, TARGETS
from nnlite.reproduction import Plan
from nnlite.reproduction import reproduce as reproduce_all

ROWS = {"best": BEST_MODELS, "all": MODELS}


@click.command()
@click.argument("targets", nargs=-1, required=True, type=click.Choice([*TARGETS, "all"]), metavar="TARGET...")
@click.option(
    "--models", type=click.Choice(list(ROWS)), default="best", show_default=True, help="Rows: the best, or all 46."
)
@data_option
@click.option("--epochs", type=int, default=30, show_default=True, help="Epochs of a single-task net.")
@click.option("--mt-epochs", type=int, default=8, show_default=True, help="Epochs of a multi-task net.")
@click.option("--seeds", type=INTEGERS, default="0", show_default=True, help="Seeds; each trains all nets.")
@click.option("--lr", type=FLOATS, default="0.1", show_default=True, help="Learning rate; several are searched.")
@click.option("--mt-lr", type=FLOATS, default="", help="Learning rate of multi-task nets.  [default: as --lr]")
@click.option("--gamma", type=FLOATS, default="0.5", show_default=True, help="Weight of the rotation loss; as lr.")
@hidden_option
@click.option("--jobs", type=click.IntRange(1), help="Processes of one thread each.  [default: one for each core]")
@device_option
@click.option("--folder", type=click.Path(path_type=Path), help="Place of it all.  [default: reproduction/DATA]")
def reproduce(
    targets: tuple[str, ...],
    models: str,
    data: str,
    epochs: int,
    mt_epochs: int,
    seeds: tuple[int, ...],
    lr: tuple[float, ...],
    mt_lr: tuple[float, ...],
    gamma: tuple[float, ...],
    hidden: tuple[int, ...],
    jobs: int | None,
    device: str,
    folder: Path | None,
) -> None:
    """Make tables and figures of the paper.

    TARGET is table1 to table8, fig1, fig2, fig3, or all. Nets that are missing are trained, those that are
    there are used again; stopped, the same command goes on. The report stands beside the paper's numbers in
    FOLDER/report.md, with CSV files and figures. With several --lr or --gamma the best on the validation set
    counts, as in the paper.
    """
    plan = Plan(data, epochs, mt_epochs, seeds, lr, mt_lr, gamma, hidden, device)
    with _progress() as on_progress:
        report = reproduce_all(
            folder or Path("reproduction") / data,
            plan,
            list(TARGETS) if "all" in targets else list(dict.fromkeys(targets)),
            ROWS[models],
            jobs=jobs or (1 if device == "gpu" else os.cpu_count() or 1),
            command=_command(targets, models, plan),
            on_progress=on_progress,
        )
    click.echo(report)


def _command(targets: tuple[str, ...], models: str, plan: Plan) -> str:
    """Return the call in full, so that it makes the same report wherever the defaults have moved to."""

    def several(numbers: tuple[float, ...]) -> str:
        return ",".join(f"{number:g}" for number in numbers)

    options = {
        "models": models,
        "data": plan.data,
        "epochs": plan.epochs,
        "mt-epochs": plan.mt_epochs,
        "seeds": several(plan.seeds),
        "lr": several(plan.lr),
        "mt-lr": several(plan.mt_lr),
        "gamma": several(plan.gamma),
        "hidden": several(plan.hidden),
        "device": plan.device,
    }
    return " ".join(["nnlite reproduce", *targets, *(f"--{name} {value}" for name, value in options.items() if value)])


@contextmanager
def _progress() -> Iterator[Callable[[float, float, str], None]]:
    """Show the whole work on stderr: as a bar on a terminal, as a line for each step elsewhere."""
    console = Console(stderr=True)
    start = time.monotonic()

    def line(done: float, total: float, text: str) -> None:
        if text:
            left = f", {(time.monotonic() - start) / done * (total - done) / 60:.0f} min left" if done else ""
            message(f"{100 * done / total:3.0f} %{left}  {text}")

    if not console.is_terminal:
        yield line
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("")

        def draw(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total)
            if text:
                bar.console.print(text, highlight=False)

        yield draw
