"""`nnlite audit`: how robust one run is, and what a reviewer would ask about it."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from nnlite.cli.options import (
    PHIS,
    Command,
    data_option,
    device_option,
    json_option,
    message,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.progress import progress
from nnlite.datasets.catalog import load
from nnlite.evaluation.auditing import Audit, AuditOptions
from nnlite.evaluation.auditing import audit as audit_net
from nnlite.evaluation.pictures import check_format, plot_audit
from nnlite.evaluation.verdicts import FAIL, NOT_TESTED, PASS
from nnlite.training.runs import find_run, list_runs

COLOURS = {PASS: "green", FAIL: "red", NOT_TESTED: "yellow"}
USUAL = AuditOptions()
PHI = ",".join(f"{size:g}" for size in USUAL.phi)


def _count(option: str, name: str, words: str) -> Callable[[Command], Command]:
    """Return an option that takes a count, whose default is that of AuditOptions."""
    return click.option(option, name, type=int, default=getattr(USUAL, name), show_default=True, help=words)


@click.command()
@click.argument("run")
@data_option
@runs_option
@click.option("--phi", type=PHIS, default=tuple(USUAL.phi), help=f"Sizes of noise.  [default: {PHI}]")
@click.option("--clip/--no-clip", default=True, show_default=True, help="Keep pixels within [0, 1], or not.")
@click.option("--examples", type=click.IntRange(1), help="Number of test images, drawn by the seed.  [default: all]")
@_count("--steps", "steps", "Steps of PGD.")
@_count("--restarts", "restarts", "Starts of PGD, the first at the image itself.")
@_count("--tries", "tries", "Draws of random signs.")
@click.option(
    "--transfer", type=click.Choice(["all", "none"]), default="all", show_default=True, help="Noise of other runs, too."
)
@_count("--queries", "square_queries", "Queries of Square for each image.")
@_count("--square-examples", "square_examples", "Images for Square at each phi, at most.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all that is drawn.")
@device_option
@json_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
def audit(
    run: str, data: str, runs: Path, transfer: str, device: str, as_json: bool, plot: Path | None, **asked: Any
) -> None:
    """Ask what a reviewer would ask about the robustness of RUN.

    Prints its accuracy under several attacks within the L-infinity ball of radius phi, the worst case of each example
    over all of them, and verdicts: did the attacks work, or does RUN only look robust? The exit code is 1 if a verdict
    failed.
    """
    if plot:
        check_format(plot)
    options = AuditOptions(**asked)
    audited = find_run(run, data, runs)
    others = [other for other in list_runs(runs, data) if other.name != audited.name] if transfer == "all" else []
    with progress("audit") as show:
        found = audit_net(
            audited.net.to(device),
            load(data).test.to(device),
            {other.name: other.net.to(device) for other in others},
            options,
            on_progress=show,
        )
    ball = "pixels within [0, 1]" if options.clip else "pixels not clipped"
    if as_json:
        print_json({"run": audited.name, "data": data, **_content(found)})
    else:
        title = f"{audited.name} under L-infinity noise of radius phi, {ball}: accuracy in %"
        _print(found, f"{title}, {len(found.rows):,} test images of {data}")
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
        [[found.descriptions[name], *cells] for name, cells in rows.items()],
    )
    widest, width = max(len(verdict.question) for verdict in found.verdicts), min(100, Console().width)
    for verdict in found.verdicts:
        answer = click.style(f"{verdict.answer:10}", COLOURS[verdict.answer], bold=True)
        figure = "" if verdict.found is None else f"{verdict.found:7.2f}, limit {verdict.limit:.2g}"
        click.echo(f"{answer}  {verdict.question:{widest}}{figure}".rstrip())
        click.echo(click.wrap_text(verdict.evidence, width, " " * 12, " " * 12))
    answers = [verdict.answer for verdict in found.verdicts]
    click.echo("\n" + ", ".join(f"{answers.count(answer)} {answer}" for answer in COLOURS))
