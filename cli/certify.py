"""`nnlite certify`: of how many images it is proven that no noise fools a run, and of how many it is not known."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import PHIS, data_option, json_option, message, print_json, print_table, runs_option
from nnlite.cli.progress import progress
from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.evaluation.certifying import Bracket, CertifyOptions, bracket
from nnlite.training.runs import find_run

USUAL = CertifyOptions()
PHI = ",".join(f"{size:g}" for size in USUAL.phi)
COLUMNS = {"proven": "proven", "unknown": "unknown", "worst": "worst case"}


def _count(ctx: click.Context, option: click.Parameter, value: str) -> int | None:
    """Return a number of images, None for all."""
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"expected a number or all, found {value!r}", ctx, option)
    return int(value)


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@data_option
@runs_option
@click.option("--phi", type=PHIS, default=tuple(USUAL.phi), help=f"Sizes of noise, up to 1.  [default: {PHI}]")
@click.option("--clip/--no-clip", default=True, show_default=True, help="Keep pixels within [0, 1], or not.")
@click.option(
    "--examples",
    metavar="N|all",
    callback=_count,
    default=str(USUAL.examples),
    show_default=True,
    help="Number of test images, drawn by the seed.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what is drawn.")
@json_option
def certify(names: tuple[str, ...], data: str, runs: Path, as_json: bool, **asked: Any) -> None:
    """Prove of how many images no noise within phi fools RUN.

    Prints for each phi the share of images that are proven correct under all noise of at most phi on each pixel, the
    share that is correct under Auto-PGD, a strong attack, and what is unknown between the two, with 95 % intervals.
    The truth about the images lies between proven and worst case.

    \b
    exit code 0  done
              1  a proven image fell to the attack: nnlite is wrong
            130  interrupted; what is known of the images so far is printed
    """  # noqa: D301 - click wants the backspace itself
    options = CertifyOptions(**asked)
    found = [find_run(name, data, runs) for name in names]
    if len({run.name for run in found}) < len(found):
        raise NnliteError("run: expected runs of different names, found one twice")
    test = load(data).test
    brackets: dict[str, Bracket] = {}
    stopped = None
    try:
        for run in found:
            with progress(run.name) as show:
                brackets[run.name] = one = bracket(run.net, test, options, on_progress=show)
            if not as_json:
                _print(run.name, data, one, options)
            if one.interrupted:
                raise KeyboardInterrupt(f"Interrupted after {len(one.rows):,} images of {run.name}.")
    except KeyboardInterrupt as error:
        stopped = error
    if as_json and brackets:
        print_json(_content(data, brackets, options))
    wrong = [(name, one) for name, one in brackets.items() if one.contradictions.any()]
    for name, one in wrong:
        message(f"Error: {name}: {_contradiction(one)}")
    if stopped:
        raise stopped
    if wrong:
        sys.exit(1)


def _contradiction(found: Bracket) -> str:
    """Return what to say of images that are proven and broken."""
    k = int(found.contradictions.any(axis=1).argmax())
    images = ", ".join(map(str, found.rows[found.contradictions[k]]))
    return f"at phi {found.phi[k]:g} proven and broken are test images {images}; a bug in nnlite, please report it"


def _content(data: str, brackets: dict[str, Bracket], options: CertifyOptions) -> dict[str, Any]:
    return {
        "data": data,
        "phi": options.sizes,
        "clip": options.clip,
        "seed": options.seed,
        "runs": [{"run": name, **_figures(found)} for name, found in brackets.items()],
    }


def _figures(found: Bracket) -> dict[str, Any]:
    return {
        "images": found.rows.tolist(),
        "accuracy": {name: values.tolist() for name, values in found.accuracy.items()},
        "intervals": {
            name: [[float(low), float(high)] for low, high in zip(*limits, strict=True)]
            for name, limits in found.intervals.items()
        },
        "contradictions": found.contradictions.sum(axis=1).tolist(),
        "interrupted": found.interrupted,
    }


def _print(name: str, data: str, found: Bracket, options: CertifyOptions) -> None:
    ball = "pixels within [0, 1]" if options.clip else "pixels not clipped"
    figures = [_cells(found, column) for column in COLUMNS]
    print_table(
        f"{name} under noise within phi, {ball}, {len(found.rows):,} test images of {data}",
        ["phi", *COLUMNS.values()],
        [[f"{size:g}", *cells] for size, *cells in zip(found.phi, *figures, strict=True)],
    )
    message("% of the images, with 95 % intervals; the truth lies between proven and worst case")


def _cells(found: Bracket, column: str) -> Sequence[str]:
    parts = found.accuracy[column], *found.intervals[column]
    return [f"{value:.1f} [{low:4.1f}, {high:4.1f}]" for value, low, high in zip(*parts, strict=True)]
