"""`nnlite audit`: how robust one run is, and what a reviewer would ask about it."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nnlite.cli.options import (
    PHIS,
    data_option,
    device_option,
    json_option,
    message,
    print_json,
    print_table,
    runs_option,
)
from nnlite.datasets.catalog import load
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.evaluation.auditing import FAIL, NOT_TESTED, PASS, Audit
from nnlite.evaluation.auditing import audit as audit_net
from nnlite.evaluation.pictures import check_format, plot_audit
from nnlite.init import generator
from nnlite.training.runs import find_run, list_runs

COLOURS = {PASS: "green", FAIL: "red", NOT_TESTED: "yellow"}


@click.command()
@click.argument("run")
@data_option
@runs_option
@click.option("--phi", type=PHIS, default=PAPER_PHI, help="Sizes of noise.  [default: 0,0.005,0.01,0.05,0.1]")
@click.option("--clip/--no-clip", default=True, show_default=True, help="Pixels within [0, 1], or free.")
@click.option("--examples", type=click.IntRange(1), help="Test images, drawn by the seed.  [default: all]")
@click.option("--steps", type=int, default=40, show_default=True, help="Steps of PGD.")
@click.option("--restarts", type=int, default=5, show_default=True, help="Starts of PGD, the first at the image.")
@click.option("--tries", type=int, default=20, show_default=True, help="Draws of random signs.")
@click.option(
    "--transfer", type=click.Choice(["all", "none"]), default="all", show_default=True, help="Other runs' noise, too."
)
@click.option("--queries", type=int, default=1000, show_default=True, help="Queries of Square, per image.")
@click.option(
    "--square-examples", type=int, default=500, show_default=True, help="Images for Square at each phi, at most."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all that is drawn.")
@device_option
@json_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
def audit(
    run: str,
    data: str,
    runs: Path,
    phi: tuple[float, ...],
    clip: bool,
    examples: int | None,
    steps: int,
    restarts: int,
    tries: int,
    transfer: str,
    queries: int,
    square_examples: int,
    seed: int,
    device: str,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Ask what a reviewer would about the robustness of RUN.

    Prints its accuracy under several attacks within the L-infinity ball of radius phi, the worst case of each
    example over all of them, and verdicts: did the attacks do their work, or does RUN only look robust?
    The exit code is 1 where a verdict failed.
    """
    if plot:
        check_format(plot)
    audited = find_run(run, data, runs)
    others = [other for other in list_runs(runs, data) if other.name != audited.name] if transfer == "all" else []
    test = load(data).test
    if examples and examples < len(test):
        # drawn, as the first half of MNIST's test images is easier than the second
        test = test[np.sort(generator(seed, "split").choice(len(test), examples, replace=False))]
    with _progress() as on_progress:
        found = audit_net(
            audited.net.to(device),
            test.to(device),
            {other.name: other.net.to(device) for other in others},
            phi=phi,
            clip=clip,
            steps=steps,
            restarts=restarts,
            tries=tries,
            square_queries=queries,
            square_examples=square_examples,
            seed=seed,
            on_progress=on_progress,
        )
    ball = "pixels within [0, 1]" if clip else "pixels not clipped"
    if as_json:
        print_json({"run": audited.name, "data": data, **_content(found)})
    else:
        title = f"{audited.name} under L-infinity noise of radius phi, {ball}: accuracy in %"
        _print(found, f"{title}, {len(test):,} test images of {data}")
    if plot:
        plot_audit(found, f"{audited.name} on {data}, {ball}", plot)
        message(f"drew {plot}")
    if found.failed:
        sys.exit(1)


def _content(found: Audit) -> dict[str, Any]:
    return {
        "phi": found.phi,
        "accuracy": {name: values.tolist() for name, values in found.accuracy.items()},
        "chance": found.chance,
        "square": {"tried": found.tried.sum(axis=1).tolist(), "broken": found.broken.sum(axis=1).tolist()},
        "verdicts": [dataclasses.asdict(verdict) | {"answer": verdict.answer} for verdict in found.verdicts],
        "parameters": found.parameters,
    }


def _print(found: Audit, title: str) -> None:
    rows = {name: [f"{value:.2f}" for value in values] for name, values in found.accuracy.items()}
    worst = rows.pop("worst")
    if found.tried.any():
        counts = zip(found.broken.sum(axis=1), found.tried.sum(axis=1), strict=True)
        rows["square"] = [f"{broken} of {tried}" if tried else "" for broken, tried in counts]
    rows["worst"] = worst
    print_table(
        title,
        ["attack", *(f"phi {size:g}" for size in found.phi)],
        [[found.words[name], *cells] for name, cells in rows.items()],
    )
    widest = max(len(verdict.question) for verdict in found.verdicts)
    for verdict in found.verdicts:
        answer = click.style(f"{verdict.answer:10}", COLOURS[verdict.answer], bold=True)
        figure = "" if verdict.found is None else f"{verdict.found:7.2f}, limit {verdict.limit:.2g}"
        click.echo(f"{answer}  {verdict.question:{widest}}{figure}".rstrip())
        click.echo(click.wrap_text(verdict.evidence, 100, " " * 12, " " * 12))
    answers = [verdict.answer for verdict in found.verdicts]
    click.echo("\n" + ", ".join(f"{answers.count(answer)} {answer}" for answer in COLOURS))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show each attack on stderr: as a bar on a terminal, elsewhere as a line at its end and each half minute."""
    console = Console(stderr=True)
    last = time.monotonic()

    def line(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() > last + 30:
            message(f"{stage}: {done:,} of {total:,} images")
            last = time.monotonic()

    if not console.is_terminal:
        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("")

        def draw(stage: str, done: int, total: int) -> None:
            if bar.tasks[0].description != stage:
                bar.reset(task)
            bar.update(task, description=stage, completed=done, total=total)

        yield draw
