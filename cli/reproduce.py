"""`nnlite reproduce`: the paper's tables and figures, with the paper's own numbers beside ours."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import FLOATS, INTEGERS, Choice, device_option, hidden_option, jobs_option
from nnlite.cli.progress import progress
from nnlite.datasets.catalog import DATASETS
from nnlite.grid.pool import default_processes
from nnlite.paper import reproduction
from nnlite.paper.plan import Plan
from nnlite.paper.tables import BEST_MODELS, MODELS, ROWS
from nnlite.paper.targets import TARGETS
from nnlite.training.settings import DEFAULTS

CHOICES = {"best": BEST_MODELS, "paper": MODELS, "all": ROWS}


class FamilyEpochs(click.ParamType[tuple[tuple[str, int], ...]]):
    """Epochs by family, such as Rect=200,L1=200."""

    name = "family=number,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, int], ...]:
        """Return pairs of a family and its number of epochs."""
        if isinstance(value, tuple):
            return value
        pairs = [text.partition("=") for text in value.split(",") if text.strip()]
        try:
            return tuple((family.strip(), int(epochs)) for family, _, epochs in pairs)
        except ValueError:
            self.fail(f"expected families and numbers such as Rect=200,L1=200, found {value!r}", param, ctx)


@click.command()
@click.argument("targets", nargs=-1, required=True, type=Choice([*TARGETS, "all"]), metavar="TARGET...")
@click.option(
    "--models",
    type=Choice(list(CHOICES)),
    default="best",
    show_default=True,
    help="Rows: the fewest that decide each claim, the paper's 46, or all, with six that its tables lack.",
)
@click.option("--data", type=Choice(list(DATASETS)), default="digits", show_default=True, help="Data set of images.")
@click.option("--epochs", type=int, default=30, show_default=True, help="Epochs of a single-task net.")
@click.option("--mt-epochs", type=int, default=8, show_default=True, help="Epochs of a multi-task net.")
@click.option(
    "--family-epochs",
    type=FamilyEpochs(),
    default=(),
    help="Epochs of single families in place of these, such as Rect=200,L1=200,L2=200.",
)
@click.option("--seeds", type=INTEGERS, default="0", show_default=True, help="Seeds; each one trains all nets.")
@click.option("--lr", type=FLOATS, default="0.1", show_default=True, help="Learning rate; several are searched.")
@click.option("--mt-lr", type=FLOATS, default="", help="Learning rate of multi-task nets.  [default: as --lr]")
@click.option(
    "--gamma", type=FLOATS, default=(DEFAULTS["gamma"],), show_default=True, help="Weight of the rotation loss; as lr."
)
@hidden_option
@jobs_option
@device_option
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is kept.  [default: reproduction/DATA]")
def reproduce(
    targets: tuple[str, ...],
    models: str,
    data: str,
    epochs: int,
    mt_epochs: int,
    family_epochs: tuple[tuple[str, int], ...],
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

    TARGET is table1 to table8, fig1, fig2, fig3, or all. Missing nets are trained and finished ones are used again;
    stopped at any moment, the same command continues. The report, FOLDER/report.md, compares the results with the
    paper's own, with CSV files and figures beside it. With several --lr or --gamma, those that are best on the
    validation set are used, as in the paper.
    """
    plan = Plan(data, epochs, mt_epochs, seeds, lr, mt_lr, gamma, hidden, device, family_epochs)
    with progress("training and attacks") as show:
        report = reproduction.reproduce(
            folder or Path("reproduction") / data,
            plan,
            list(TARGETS) if "all" in targets else list(dict.fromkeys(targets)),
            CHOICES[models],
            processes=jobs or default_processes(device),
            command=_command(targets, models, plan),
            on_progress=lambda done, total, text: show(done, total, note=text),
        )
    click.echo(report)


def _command(targets: tuple[str, ...], models: str, plan: Plan) -> str:
    """Return the whole command line, which makes the same report even where a later nnlite has other defaults."""
    words = ["nnlite reproduce", *targets]
    for name, value in {"models": models, **dataclasses.asdict(plan)}.items():
        if name == "family_epochs":
            value = ",".join(f"{family}={number}" for family, number in value)
        if value:
            given = ",".join(f"{number:g}" for number in value) if isinstance(value, tuple) else value
            words.append(f"--{name.replace('_', '-')} {given}")
    return " ".join(words)
