"""`nnlite train`: train one net and keep it as a run."""

import sys
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import WithRows, in_threads, message, print_line, runs_option, setting_options
from nnlite.cli.progress import progress
from nnlite.datasets.loading import load, source_name
from nnlite.methods import METHODS
from nnlite.training.checkpoint import checkpoint_of
from nnlite.training.diagnostics import diagnose
from nnlite.training.loop import Epoch
from nnlite.training.mix import mix
from nnlite.training.outcome import advice, went_nowhere
from nnlite.training.progress import epoch_line
from nnlite.training.run_folder import Run
from nnlite.training.runs import make_run
from nnlite.training.settings import FIELDS, Settings, with_defaults


@click.command(
    cls=WithRows,
    title="Methods, and the options that they take",
    rows=[(" ".join([name, *method.takes]), method.source) for name, method in METHODS.items()],
)
@setting_options(*FIELDS)
@click.option("--name", help="Name of the run.  [default: the method, and all that differs from the defaults]")
@runs_option
@click.option("--overwrite", is_flag=True, help="Replace a run of the same name.")
@click.option("--resume", is_flag=True, help="Continue where a training stopped, or has ended with fewer --epochs.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="EPOCHS",
    help="Write a checkpoint for --resume after so many epochs; 0 for never.",
)
@in_threads
def train(runs: Path, name: str | None, overwrite: bool, resume: bool, checkpoint_every: int, **settings: Any) -> None:
    """Train a net and keep it as a run.

    With --resume a stopped training goes on, and a finished one of fewer --epochs, too, to the same weights as without
    a stop. Epochs are part of a name, so rect goes on as rect-epochs90, and rect itself is kept; a run that --name
    names becomes the longer one.

    The net of the best validation epoch is kept. At the end it is attacked with its own R1 noise.

    The paper's best single-task setting is --reg dgl1 --lam 0.01 --phi 0.1.
    """
    if resume and overwrite:
        raise click.UsageError("--resume continues what is there, and --overwrite replaces it: choose one")
    source = settings["data"]
    chosen = Settings(**with_defaults(settings | {"data": source_name(source)}))
    data = load(source, chosen.seed, label=chosen.label, split=chosen.split)
    words, warnings = mix(chosen)
    message(words)
    if chosen.multitask:
        message(f"two tasks: digit loss + {chosen.gamma:g} x rotation loss; five rotations of each training image")
    for warning in warnings:
        message(f"Warning: {warning}")
    for note in data.notes:
        message(f"Note: {note}.")
    with progress("training", each=True) as show:

        def on_epoch(epoch: Epoch) -> None:
            show(epoch.epoch, chosen.epochs, epoch_line(epoch, chosen.epochs))

        run = make_run(
            chosen,
            data,
            runs,
            name=name,
            overwrite=overwrite,
            resume=resume,
            checkpoint_every=checkpoint_every,
            on_epoch=on_epoch,
            on_message=show.note,
        )
    print_line(_closing(run))
    if run.results.status == "finished" and len(run.history) < chosen.epochs:
        message(f"stopped: {chosen.patience} epochs without a better validation accuracy")
    for warning in diagnose(run, data):
        message(f"Warning: {warning}")
    if run.results.status == "interrupted":
        on = "; the same command with --resume goes on" if checkpoint_of(run.path).exists() else ""
        message(f"Interrupted after epoch {len(run.history)}; the best net so far is saved{on}.")
        sys.exit(130)
    if run.results.status == "diverged":
        message(
            f"Error: epoch {len(run.history) + 1}: the loss is no longer finite; the net of epoch "
            f"{run.results.best_epoch} is saved. {advice(chosen)}"
        )
        sys.exit(1)
    if run.results.status == "failed":
        best = run.history[run.results.best_epoch - 1]
        why = went_nowhere(run.net.to("cpu"), best, data.validation)
        message(f"Error: {why}; the net is saved. {advice(chosen)}; one that learns too slowly needs more --epochs")
        sys.exit(1)


def _closing(run: Run) -> str:
    results = run.results
    attacked = ", ".join(
        f"{accuracy:.2f} at {phi:g}" for phi, accuracy in zip(results.phi, results.self_attack, strict=True) if phi
    )
    return (
        f"{run.path}: best epoch {results.best_epoch} of {len(run.history)}, "
        f"validation {results.validation:.2f} %, test {results.test:.2f} %, "
        f"under its own R1 noise {attacked} %"
    )
