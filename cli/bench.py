"""`nnlite bench`: what training and attacks cost beside their own matrix products, and beside other libraries."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import click

from nnlite.attacks import PGD
from nnlite.bench.peers import MATMULS, contestants
from nnlite.bench.pictures import plot_times
from nnlite.bench.race import check_room, checkpoint_times, growth_times, run_race
from nnlite.bench.report import RaceReport, machine, race_report, read_reports
from nnlite.bench.workload import Workload
from nnlite.cli.options import (
    Choice,
    Command,
    device_option,
    hidden_option,
    json_option,
    message,
    method_options,
    print_json,
    print_table,
    setting_options,
)
from nnlite.cli.progress import progress
from nnlite.errors import NnliteError
from nnlite.evaluation.pictures import check_picture
from nnlite.evaluation.threads import available_cpus
from nnlite.methods import METHODS
from nnlite.storage.places import new_place
from nnlite.training.runs import check_writable
from nnlite.training.settings import DEFAULTS, EXAMPLES, Settings, with_defaults

BARS_LIMIT = 300  # in one picture

Race: TypeAlias = tuple[str, Workload]  # its title, and what is raced

threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    default=min(2, len(available_cpus())),
    show_default=True,
    help="Threads, and processors, of each contestant.",
)
picture_option = click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the times: .png, .svg or .pdf."
)


def _rounds_option(default: int) -> Callable[[Command], Command]:
    words = "Turns of each contestant."
    return click.option("--rounds", type=click.IntRange(3), default=default, show_default=True, help=words)


def _race(command: Callable[..., list[Race]]) -> Callable[..., None]:
    """Make a command of a function that returns races: it runs them, and prints and draws what they find."""

    @click.option("--against", default="", metavar="NAMES", help="Of torch, jax and sklearn, with commas.")
    @threads_option
    @_rounds_option(20)
    @device_option
    @picture_option
    @json_option
    @functools.wraps(command)
    def run(against: str, threads: int, rounds: int, plot: Path | None, as_json: bool, **options: Any) -> None:
        if plot:
            check_picture(plot)
        names, reports = [name.strip() for name in against.split(",") if name.strip()], []
        for title, work in command(**options):
            with progress(title, still=True) as show:
                timings = run_race(contestants(work, names), threads=threads, rounds=rounds, on_progress=show)
            reports.append(race_report(title, work, timings, threads=threads))
        several = len(reports) > 1
        if as_json:
            print_json(reports if several else reports[0])
        elif several:
            _print_methods(f"a step of every method, batch {options['batch_size']}", reports)
        else:
            _print_race(reports[0])
        if plot:
            plot_times(reports, plot)

    return run


@click.group()
def bench() -> None:
    """Time training and attacks beside their arithmetic, and beside other libraries.

    Each contestant has a process of its own, and all are timed in turns within one run; what they compute is compared
    first. For other libraries, pip install '.[bench]' in a clone of nnlite.
    """


@bench.command()
@method_options("dgl1", "all")
@setting_options("hidden", "batch_size", "multitask")
@_race
def step(**given: Any) -> list[Race]:
    """Time a training step.

    The net has the paper's shape, and --reg all times all methods. Where the method takes a lambda or phi that is not
    given, they are 0.01 and 0.1.
    """
    if given["reg"] != "all":
        settings = _settings(given)
        return [(f"{settings.method_name}, batch {settings.batch_size}", Workload("step", (settings,)))]
    for name in EXAMPLES:
        if given[name]:
            raise NnliteError(f"{name}: --reg all takes the usual numbers of each method; leave it out")
    every = [_settings({**given, "reg": reg}) for reg in METHODS]
    return [(settings.method_name, Workload("step", (settings,))) for settings in every]


@bench.command()
@click.option("--noise", type=Choice(["pgd", "pgd-l2"]), default="pgd", show_default=True, help="Attack.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Steps of the attack.")
@click.option(
    "--rows", type=click.IntRange(1), default=1000, show_default=True, help="Images; nnlite takes 250 at a time."
)
@hidden_option
@_race
def attack(noise: str, steps: int, rows: int, **given: Any) -> list[Race]:
    """Time the crafting of noise."""
    work = Workload("attack", (Settings(**given),), rows, PGD("l2" if noise == "pgd-l2" else "linf", steps))
    return [(f"{noise}, {steps} steps, {rows} images", work)]


@bench.command()
@method_options("dgl1")
@setting_options("hidden", "batch_size", "multitask")
@click.option("--images", type=click.IntRange(1), default=10_000, show_default=True, help="Images in the epoch.")
@_race
def epoch(images: int, **given: Any) -> list[Race]:
    """Time an epoch over images in a fixed random order."""
    settings = _settings(given)
    title = f"{settings.method_name}, an epoch of {images:,} images, batch {settings.batch_size}"
    return [(title, Workload("epoch", (settings,), images))]


@bench.command()
@method_options("dgl1")
@setting_options("hidden", "batch_size")
@click.option("--models", type=click.IntRange(2), default=2, show_default=True, help="Models in the stack.")
@_race
def stack(models: int, **given: Any) -> list[Race]:
    """Time a step of several models, in three ways.

    As a stack, one after another, and each in a process of its own with one thread. They differ in lambda, where the
    method takes one.
    """
    first = _settings(given)
    check_room([Workload("step", (first,))], models)
    spread = tuple(replace(first, lam=first.lam and first.lam * (k + 1) / models) for k in range(models))
    return [(f"{first.reg}, {models} models, batch {first.batch_size}", Workload("step", spread))]


@bench.command()
@method_options("dgl1")
@hidden_option
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="The smallest number of them.")
@threads_option
@_rounds_option(5)
@json_option
def cost(images: int, threads: int, rounds: int, as_json: bool, **given: Any) -> None:
    """Time training runs and attacks of growing size.

    Of 1, 2 and 4 times the models, images, epochs and features of the smallest run, and the phi, victims and images of
    the smallest attack, by PGD of two steps. Where the cost grows linearly, each costs the same. The models are trained
    as a stack, and noise is crafted once for all victims.
    """
    settings = _settings(given)
    with progress("cost", still=True) as show:
        times = growth_times(settings, images, threads=threads, rounds=rounds, on_progress=show)
    rows: list[dict[str, Any]] = [
        {"of": what, "count": count, "ms": timing.quartiles[1], "ms_each": timing.quartiles[1] / count}
        for what, count, timing in times
    ]
    smallest = {row["of"]: row["ms_each"] for row in reversed(rows)}
    cells = [
        [f"{row['count']:,} {row['of']}", f"{row['ms']:.0f}", f"{row['ms_each'] / smallest[row['of']]:.2f}"]
        for row in rows
    ]
    title = f"{settings.method_name}, {images:,} images, 1 epoch; an attack by PGD; and more of one of them"
    found = {"title": title, "threads": threads, "rounds": rounds, "rows": rows, "machine": machine()}
    _print(found, as_json, ["", "ms", "each, to the first"], cells)


@bench.command()
@method_options("dgl1")
@hidden_option
@click.option("--images", type=click.IntRange(1), default=50_000, show_default=True, help="Images in an epoch.")
@click.option("--folder", type=click.Path(path_type=Path), default=".", show_default=True, help="Where to write them.")
@threads_option
@_rounds_option(6)
@json_option
def checkpoint(images: int, folder: Path, threads: int, rounds: int, as_json: bool, **given: Any) -> None:
    """Time what a checkpoint adds to an epoch.

    One training run with as many epochs as rounds, and a checkpoint after each.
    """
    settings = replace(_settings(given), epochs=rounds)
    check_writable(folder)
    work = Workload("train", (settings,), images)
    with new_place(folder) as place, progress("epochs", still=True) as show:
        times = checkpoint_times(work, place / "checkpoint", threads, show)
    share = times[1].ratio(times[0])
    rows = [{"of": one.name, "ms": one.quartiles[1], "quartiles": one.quartiles[::2]} for one in times]
    title = f"{settings.method_name}, {images:,} images"
    found = {"title": title, "threads": threads, "rounds": rounds, "rows": rows, "share": share, "machine": machine()}
    quartiles = [[f"{ms:.0f}" for ms in one.quartiles] for one in times]
    cells = [[one.name, middle, f"{low} to {high}"] for one, (low, middle, high) in zip(times, quartiles, strict=True)]
    _print(found, as_json, ["", "ms", "quartiles"], cells)
    if not as_json:
        click.echo(f"a checkpoint takes {100 * share:.1f} % of its epoch")


@bench.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".png, .svg or .pdf.")
def plot(files: Sequence[Path], out: Path) -> None:
    """Draw the races that --json printed, a panel for each in FILES."""
    check_picture(out)
    reports = [report for path in files for report in read_reports(path)]
    count = sum(len(one["contestants"]) for one in reports)
    if not 1 <= count <= BARS_LIMIT:
        raise NnliteError(f"FILES: expected 1 to {BARS_LIMIT} contestants in all, found {count}; give other files")
    plot_times(reports, out)
    message(f"{out} written")


def _settings(given: dict[str, Any]) -> Settings:
    return Settings(**with_defaults(given, EXAMPLES | DEFAULTS))


def _print(found: RaceReport, as_json: bool, head: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    if as_json:
        print_json(found)
    else:
        print_table(f"{found['title']}; {_words(found)}", head, cells)


def _words(found: RaceReport) -> str:
    return f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}, medians of {found['rounds']} rounds"


def _print_race(found: RaceReport) -> None:
    head = ["", "ms", "quartiles", "x products", "x nnlite", found["unit"]]
    rows = [[one["name"], *(["-"] * 5 if one["ms"] is None else _cells(one))] for one in found["contestants"]]
    print_table(f"{found['title']}; {_words(found)}", head, rows)
    finite = next((one for one in found["contestants"] if one["name"] == "nnlite, finite"), None)
    if finite:
        click.echo(f"nnlite takes {1 / finite['to_nnlite']:.3f} times the step with the finite gradient")
    differences = [one["difference"] for one in found["contestants"] if one["difference"] is not None]
    if differences:
        click.echo(f"results after three steps differ by {max(differences):.1g} of the change at most")
    click.echo(_machine(found))


def _cells(one: dict[str, Any]) -> list[str]:
    low, high = one["quartiles"]
    ratios = [f"{one[name]:.2f}" for name in ("to_products", "to_nnlite")]
    return [f"{one['ms']:.2f}", f"{low:.2f} to {high:.2f}", *ratios, f"{one['per_second']:,.0f}"]


def _print_methods(title: str, reports: Sequence[RaceReport]) -> None:
    """Print a row for each method: nnlite, the matrix products, their ratio, and the other libraries."""
    rows = []
    for found in reports:
        rest = {one["name"]: one for one in found["contestants"]}
        own, matmuls = rest.pop("nnlite"), rest.pop(MATMULS)
        cells = {
            "nnlite": f"{own['ms']:.2f}",
            MATMULS: f"{matmuls['ms']:.2f}",
            "x products": f"{own['to_products']:.2f}",
        }
        for name in sorted(rest):
            cells[name] = "-" if rest[name]["ms"] is None else f"{rest[name]['ms']:.2f}"
        rows.append((found["title"], cells))
    head = list(rows[0][1])
    lines = [[name, *(cells[one] for one in head)] for name, cells in rows]
    print_table(f"{title}, ms; {_words(reports[0])}", ["", *head], lines)
    click.echo(_machine(reports[0]))


def _machine(found: RaceReport) -> str:
    here = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return f"{here['cpu']}, {here['blas']}; {versions}"
