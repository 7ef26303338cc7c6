"""`nnlite audit`: how robust one run is, and what a reviewer would ask about it."""

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from nnlite.cli.options import (
    PHIS,
    Choice,
    Command,
    as_lists,
    csv_option,
    data_option,
    device_option,
    figures,
    in_blocks,
    json_option,
    message,
    print_csv,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.own import Reach, column_options, data_of, on_same_data, tell_units, with_columns_held
from nnlite.cli.progress import progress
from nnlite.datasets.description import Description
from nnlite.datasets.loading import source_name
from nnlite.evaluation.accuracy import BoolArray
from nnlite.evaluation.auditing import Audit, AuditOptions
from nnlite.evaluation.auditing import audit as audit_net
from nnlite.evaluation.intervals import Limits
from nnlite.evaluation.nets import OnDemand
from nnlite.evaluation.pictures import check_picture, plot_audit
from nnlite.evaluation.verdicts import FAIL, NOT_TESTED, PASS
from nnlite.training.run_folder import Run, load_run
from nnlite.training.runs import find_run, list_records, whole_records

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
@click.option(
    "--phi", type=PHIS, default=tuple(USUAL.phi), help=f"Sizes of noise, such as 0.1,8/255.  [default: {PHI}]"
)
@click.option("--clip/--no-clip", default=True, show_default=True, help="Keep pixels within [0, 1], or not.")
@click.option("--examples", type=click.IntRange(1), help="Number of test images, drawn by the seed.  [default: all]")
@_count("--steps", "steps", "Steps of PGD.")
@_count("--restarts", "restarts", "Starts of PGD, the first at the image itself.")
@_count("--apgd-steps", "apgd_steps", "Steps of APGD from each start.")
@_count("--apgd-restarts", "apgd_restarts", "Starts of APGD.")
@_count("--tries", "tries", "Draws of random signs.")
@click.option(
    "--transfer", type=Choice(["all", "none"]), default="all", show_default=True, help="Noise of other runs, too."
)
@_count("--queries", "square_queries", "Queries of Square for each image.")
@_count("--square-examples", "square_examples", "Images for Square at each phi, at most.")
@_count("--proven", "proven", "Images for which a lower bound is proven; 0 for none.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all that is drawn.")
@column_options
@device_option
@json_option
@csv_option
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
@in_blocks
def audit(
    run: str,
    data: str,
    runs: Path,
    transfer: str,
    frozen: tuple[str, ...],
    limits: Reach,
    whole: tuple[str, ...],
    device: str,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
    **asked: Any,
) -> None:
    """Ask what a reviewer would ask about the robustness of RUN.

    Prints its accuracy under several attacks within the L-infinity ball of radius phi, the worst case of each example
    over all of them, what is proven of some, and verdicts: did the attacks work, or does RUN only look robust? The
    truth lies between proven and worst case. The exit code is 1 if a verdict failed.
    """
    if plot:
        check_picture(plot)
    options = AuditOptions(**asked)
    source, data = data, source_name(data)
    audited = find_run(run, data, runs)
    others = [other for other in list_records(runs, data) if other.name != audited.name] if transfer == "all" else []
    dataset = with_columns_held(data_of(audited, source), frozen, limits, whole, clip=options.clip)
    if whole and options.proven:
        message("what is proven holds for all numbers within phi, and so for the whole ones, too")
    same = on_same_data([audited.record, *others], dataset, chosen=False)
    paths = {one.name: one.path for one in whole_records(same, audited) if one.name != audited.name}
    with progress("audit") as show:
        found = audit_net(
            audited.net.to(device),
            dataset.test.to(device),
            OnDemand(paths, lambda name: load_run(paths[name]).net.to(device)),
            options,
            on_progress=show,
        )
    about = dataset.description
    ball = f"{about.values} within {dataset.test.box}" if options.clip else f"{about.values} not clipped"
    rows = [{"run": audited.name} | row for row in found.records()]
    if as_json:
        print_json(
            {
                "run": audited.name,
                "data": data,
                "columns": dataclasses.asdict(dataset.columns),
                **_content(found),
                "balanced": found.balanced.tolist(),
                "classes": [
                    {"class": about.classes[label], "examples": count, "worst": worst}
                    for label, count, worst in _by_class(found)
                ],
                "model_info": _model_info(audited, found),
                "rows": rows,
            }
        )
    elif as_csv:
        print_csv(rows)
    else:
        title = f"{audited.name} under L-infinity noise of radius phi, {ball}: accuracy in %"
        _print(found, f"{title}, {len(found.rows):,} test {about.samples} of {data}", about)
    tell_units(dataset, max(found.phi))
    if plot:
        plot_audit(found, f"{audited.name} on {data}, {ball}", plot)
        message(f"drew {plot}")
    if found.interrupted:
        raise KeyboardInterrupt("Interrupted; what was finished before is printed.")
    if found.failed:
        sys.exit(1)


def _content(found: Audit) -> dict[str, Any]:
    outcomes, proven = {**found.correct, "worst": found.worst}, found.bracket
    return {
        "phi": found.phi,
        "accuracy": {name: values.tolist() for name, values in found.accuracy.items()},
        "intervals": as_lists(found.intervals),
        "bracket": proven and figures(proven) | {"proven": [_bits(row) for row in proven.proven]},
        "chance": found.chance,
        "follow_ups": {
            name: {"tried": one.tried.sum(axis=1).tolist(), "broken": one.broken.sum(axis=1).tolist()}
            for name, one in found.follow_ups.items()
        },
        "images": {
            "rows": found.rows.tolist(),
            "correct": {name: [_bits(row) for row in ones] for name, ones in outcomes.items()},
            "broken": {name: [_bits(row) for row in one.broken] for name, one in found.follow_ups.items()},
        },
        "verdicts": [dataclasses.asdict(verdict) | {"answer": verdict.answer} for verdict in found.verdicts],
        "parameters": found.parameters,
        "interrupted": found.interrupted,
    }


def _bits(row: BoolArray) -> str:
    """Return which images are marked as a text of 0 and 1, which a file holds in a byte for each."""
    return "".join(np.where(row, "1", "0"))


def _model_info(run: Run, found: Audit) -> list[dict[str, Any]]:
    """Return the fields of a RobustBench entry for each phi above 0."""
    worst = found.accuracy["worst"]
    return [
        {
            "name": run.name,
            "dataset": run.settings.data,
            "threat_model": "Linf",
            "eps": f"{size:g}",
            "architecture": f"MLP {'-'.join(map(str, run.net.sizes))}",
            "clean_acc": f"{worst[0]:.2f}",
            "reported": f"{worst[k]:.2f}",
            "autoattack_acc": f"{worst[k]:.2f}",
            "additional_data": False,
            "number_forward_passes": "1",
            "footnote": "autoattack_acc is the worst case of nnlite audit (APGD on the cross-entropy and the "
            "margin, PGD, Square), not of AutoAttack itself",
        }
        for k, size in enumerate(found.phi)
        if size
    ]


def _by_class(found: Audit) -> list[tuple[int, int, list[float]]]:
    """Return of each class its label, how many examples it has, and its worst case at each phi."""
    return [(label, int((found.labels == label).sum()), worst.tolist()) for label, worst in found.by_class.items()]


def _print(found: Audit, title: str, about: Description) -> None:
    rows = [[found.descriptions[name], *_cells(values)] for name, values in found.accuracy.items()]
    worst = rows.pop()
    for one in found.follow_ups.values():
        counts = zip(one.broken.sum(axis=1), one.tried.sum(axis=1), strict=True)
        if one.tried.any():
            rows.append([one.description, *(f"{broken} of {tried}" if tried else "" for broken, tried in counts)])
    rows += [worst, ["95 % interval", *_ranges(found.intervals["worst"])]]
    if found.bracket:
        examples = f"{len(found.bracket.rows)} {about.samples}"
        rows.append([f"proven, {examples}", *_cells(found.bracket.accuracy["proven"])])
        rows.append(["95 % interval", *_ranges(found.bracket.intervals["proven"])])
        rows.append([f"unknown, {examples}", *_cells(found.bracket.accuracy["unknown"])])
    sizes = [f"phi {size:g}" for size in found.phi]
    print_table(title, ["attack", *sizes], rows)
    per_class = [[about.classes[label], str(count), *_cells(worst)] for label, count, worst in _by_class(found)]
    per_class.append(["balanced accuracy", str(len(found.rows)), *_cells(found.balanced)])
    print_table("worst case of each class", ["class", "examples", *sizes], per_class)
    widest, width = max((len(verdict.question) for verdict in found.verdicts), default=0), min(100, Console().width)
    for verdict in found.verdicts:
        answer = click.style(f"{verdict.answer:10}", COLOURS[verdict.answer], bold=True)
        figure = "" if verdict.found is None else f"{verdict.found:7.2f}, limit {verdict.limit:.2g}"
        click.echo(f"{answer}  {verdict.question:{widest}}{figure}".rstrip())
        click.echo(click.wrap_text(verdict.evidence, width, " " * 12, " " * 12))
    answers = [verdict.answer for verdict in found.verdicts]
    click.echo("\n" + ", ".join(f"{answers.count(answer)} {answer}" for answer in COLOURS))


def _cells(values: Iterable[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


def _ranges(limits: Limits) -> list[str]:
    return [f"{low:.1f}-{high:.1f}".replace("100.0", "100") for low, high in zip(*limits, strict=True)]
