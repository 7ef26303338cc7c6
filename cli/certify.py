"""`nnlite certify`: of how many images it is proven that no noise fools a run, and of how many it is not known."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from nnlite.cli.options import (
    PHIS,
    csv_option,
    data_option,
    device_option,
    figures,
    in_blocks,
    json_option,
    message,
    method_of,
    print_csv,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.own import Reach, column_options, data_of, on_same_data, tell_units, with_columns_held
from nnlite.cli.progress import progress
from nnlite.datasets.loading import source_name
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.evaluation.certifying import Bracket, CertifyOptions, bracket
from nnlite.evaluation.pictures import check_picture, plot_radii
from nnlite.evaluation.radii import CLOSED, Radii, find_radii
from nnlite.training.run_folder import load_run
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
@click.option(
    "--phi", type=PHIS, default=tuple(USUAL.phi), help=f"Sizes of noise up to 1, such as 8/255.  [default: {PHI}]"
)
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
@click.option(
    "--splits",
    type=click.IntRange(0),
    default=USUAL.splits,
    show_default=True,
    help="ReLUs that a certificate may split for one image; 0 for CROWN alone, which is quicker for wide nets.",
)
@click.option("--per-image", is_flag=True, help="Find the largest phi proven, and the smallest broken, of each image.")
@column_options
@device_option
@json_option
@csv_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw those of each image.")
@in_blocks
def certify(
    names: tuple[str, ...],
    data: str,
    runs: Path,
    per_image: bool,
    frozen: tuple[str, ...],
    limits: Reach,
    whole: tuple[str, ...],
    device: str,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
    **asked: Any,
) -> None:
    """Prove of how many images no noise within phi fools RUN.

    Prints for each phi the share of images that are proven correct under all noise of at most phi on each pixel, the
    share that is correct under Auto-PGD, a strong attack, and what is unknown between the two, with 95 % intervals.
    The truth about the images lies between proven and worst case. With --per-image --csv has a row for each image.

    \b
    exit code 0  done
              1  a proven image fell to the attack: nnlite is wrong
            130  interrupted; what is known of the images so far is printed
    """  # noqa: D301 - click wants the backspace itself
    if plot:
        check_picture(plot)
    if whole and (per_image or plot):
        raise NnliteError(
            "whole: the radii of each image are those of any noise; leave it, or --per-image and --plot out"
        )
    options = CertifyOptions(**asked)
    source, data = data, source_name(data)
    found = [find_run(name, data, runs).record for name in names]
    if len({run.name for run in found}) < len(found):
        raise NnliteError("run: expected runs of different names, found one twice")
    dataset = with_columns_held(data_of(found[0], source), frozen, limits, whole, clip=options.clip)
    if whole:
        message("what is proven holds for all numbers within phi, and so for the whole ones, too")
    test = dataset.test.to(device)
    found = on_same_data(found, dataset, chosen=True)
    brackets: dict[str, Bracket] = {}
    radii: dict[str, Radii] = {}
    stopped = None
    tell_units(dataset, max(options.sizes))
    try:
        for run in found:
            with progress(run.name) as show:
                net = load_run(run.path).net.to(device)
                brackets[run.name] = bracket(net, test, options, on_progress=show)
            if not as_json and not as_csv:
                _print(run.name, dataset, brackets[run.name], options)
            _stop_if_interrupted(run.name, brackets[run.name])
            if per_image or plot:
                with progress(f"radii of {run.name}") as show:
                    radii[run.name] = find_radii(net, test, options, on_progress=show)
                _stop_if_interrupted(run.name, radii[run.name])
    except KeyboardInterrupt as error:
        stopped = error
    if as_json and brackets:
        print_json(_content(dataset, options, brackets, radii))
    elif as_csv:
        print_csv(_rows(radii or brackets))
    elif radii:
        _print_radii(radii, dataset.description.samples)
    if plot and radii:
        plot_radii(
            radii, {run.name: run.settings.reg for run in found}, {run.name: method_of(run) for run in found}, plot
        )
        message(f"drew {plot}")
    wrong = [*_contradictions(brackets, radii)]
    for text in wrong:
        message(f"Error: {text}; a bug in nnlite, please report it")
    if stopped:
        raise stopped
    if wrong:
        sys.exit(1)


def _stop_if_interrupted(name: str, found: Bracket | Radii) -> None:
    if found.interrupted:
        raise KeyboardInterrupt(f"Interrupted after {len(found.rows):,} images of {name}.")


def _contradictions(brackets: dict[str, Bracket], radii: dict[str, Radii]) -> Iterator[str]:
    """Yield what to say of images that are proven and broken."""
    for name, one in brackets.items():
        for k in np.flatnonzero(one.contradictions.any(axis=1))[:1]:
            images = ", ".join(map(str, one.rows[one.contradictions[k]]))
            yield f"{name}: at phi {one.phi[k]:g} proven and broken are test images {images}"
    for name, each in radii.items():
        if each.contradictions.any():
            images = ", ".join(map(str, each.rows[each.contradictions]))
            yield f"{name}: proven beyond the noise that breaks them are test images {images}"


def _content(
    data: Dataset, options: CertifyOptions, brackets: dict[str, Bracket], radii: dict[str, Radii]
) -> dict[str, Any]:
    runs = [
        {"run": name, **figures(found), "contradictions": found.contradictions.sum(axis=1).tolist()}
        for name, found in brackets.items()
    ]
    for run in runs:
        if run["run"] in radii:
            run["per_image"] = _per_image(radii[run["run"]])
    return {
        "data": data.name,
        "columns": asdict(data.columns),
        "phi": options.sizes,
        "clip": options.clip,
        "seed": options.seed,
        "splits": options.splits,
        "runs": runs,
        "rows": _rows(brackets),
    }


def _rows(found: Mapping[str, Bracket | Radii]) -> list[dict[str, Any]]:
    return [{"run": name} | row for name, one in found.items() for row in one.records()]


def _per_image(found: Radii) -> dict[str, Any]:
    lists = {"proven": found.proven, "broken": found.broken, "distance": found.distance}
    return {
        "images": found.rows.tolist(),
        **{name: [_finite(value) for value in values] for name, values in lists.items()},
        "medians": {name: _finite(value) for name, value in found.medians.items()},
        "closed": _finite(found.closed),
        "interrupted": found.interrupted,
    }


def _finite(value: float) -> float | None:
    """Return None for NaN and infinity, which are no JSON."""
    return float(value) if np.isfinite(value) else None


def _print(name: str, data: Dataset, found: Bracket, options: CertifyOptions) -> None:
    about = data.description
    ball = f"{about.values} within {data.test.box}" if options.clip else f"{about.values} not clipped"
    figures = [_cells(found, column) for column in COLUMNS]
    print_table(
        f"{name} under noise within phi, {ball}, {len(found.rows):,} test {about.samples} of {data.name}",
        ["phi", *COLUMNS.values()],
        [[f"{size:g}", *cells] for size, *cells in zip(found.phi, *figures, strict=True)],
    )
    message(f"% of the {about.samples}, with 95 % intervals; the truth lies between proven and worst case")


def _cells(found: Bracket, column: str) -> Sequence[str]:
    parts = found.accuracy[column], *found.intervals[column]
    return [f"{value:.1f} [{low:4.1f}, {high:4.1f}]" for value, low, high in zip(*parts, strict=True)]


def _print_radii(radii: dict[str, Radii], samples: str) -> None:
    one = samples.removesuffix("s")
    head = ["run", samples, "proven up to", "broken at", "closed, %", "in L2"]
    rows = []
    for name, found in radii.items():
        values = found.medians["proven"], found.medians["broken"], found.closed, found.medians["distance"]
        cells = [f"{value:.{digits}f}" for value, digits in zip(values, (4, 4, 1, 3), strict=True)]
        rows.append([name, f"{found.right.sum():,}", *(cells if found.right.any() else ["-"] * 4)])
    print_table(f"phi of each {one} that is right without noise, in the median", head, rows)
    message(f"closed: the two are within {CLOSED:.0%} of each other; in L2: the nearest misclassified {one} found")
