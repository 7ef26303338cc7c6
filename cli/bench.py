"""`nnlite bench`: what training and attacks cost beside their own matrix products, and beside other libraries."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nnlite.attacks import PGD
from nnlite.bench.peers import PRODUCTS, Contestant, contestants
from nnlite.bench.race import checkpoint_times, machine, race, read_reports, report
from nnlite.bench.workload import Work
from nnlite.cli.options import (
    Command,
    device_option,
    hidden_option,
    json_option,
    message,
    method_numbers,
    method_options,
    print_json,
    print_table,
)
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import BLOCK
from nnlite.evaluation.pictures import check_format, plot_times
from nnlite.grid.pool import available_cpus
from nnlite.methods import EXAMPLES, METHODS
from nnlite.training.runs import check_writable
from nnlite.training.settings import USUAL_GAMMA, Settings

BARS_LIMIT = 300  # in one picture

Report = dict[str, Any]

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
batch_option = click.option(
    "--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Examples in a step."
)
multitask_option = click.option("--multitask", is_flag=True, help="With the rotation head.")


def _rounds_option(default: int) -> Callable[[Command], Command]:
    words = "Turns of each contestant."
    return click.option("--rounds", type=click.IntRange(3), default=default, show_default=True, help=words)


def _race_options(command: Command) -> Command:
    """Add the options that all races have."""
    against = click.option("--against", default="", metavar="NAMES", help="Of torch, jax and sklearn, with commas.")
    for option in (json_option, picture_option, device_option, _rounds_option(20), threads_option, against):
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Time training and attacks beside their arithmetic, and beside other libraries.

    Each contestant has a process of its own, and all are timed in turns within one run; what they compute is compared
    first. Other libraries come with pip install '.[bench]' in a clone of nnlite.
    """


@bench.command()
@method_options("dgl1", "all")
@hidden_option
@batch_option
@multitask_option
@_race_options
def step(multitask: bool, **options: Any) -> None:
    """Time a training step.

    The net has the paper's shape, and --reg all goes through all methods. What the method takes and is not given is
    0.01 for lambda and 0.1 for phi.
    """
    race_options, given = _split(options)
    if given["reg"] != "all":
        settings = _settings(given, multitask)
        _race(f"{settings.run_name}, batch {settings.batch_size}", Work("step", (settings,)), **race_options)
        return
    for name in EXAMPLES:
        if given[name]:
            raise NnliteError(f"{name}: --reg all takes the usual numbers of each method; leave it out")
    reports = []
    for reg in METHODS:
        settings = _settings({**given, "reg": reg}, multitask)
        reports.append(_report(settings.run_name, Work("step", (settings,)), **race_options))
    if race_options["as_json"]:
        print_json(reports)
    else:
        _print_methods(f"a step of every method, batch {given['batch_size']}", reports)
    if race_options["plot"]:
        plot_times(reports, race_options["plot"])


@bench.command()
@click.option("--noise", type=click.Choice(["pgd", "pgd-l2"]), default="pgd", show_default=True, help="Attack.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Steps of the attack.")
@click.option("--rows", type=click.IntRange(1), default=BLOCK, show_default=True, help="Images crafted at a time.")
@hidden_option
@_race_options
def attack(noise: str, steps: int, rows: int, **options: Any) -> None:
    """Time the crafting of noise."""
    race_options, given = _split(options)
    made = PGD("l2" if noise == "pgd-l2" else "linf", steps)
    work = Work("attack", (Settings(**given),), rows, made)
    _race(f"{noise}, {steps} steps, {rows} images", work, **race_options)


@bench.command()
@method_options("dgl1")
@hidden_option
@batch_option
@multitask_option
@click.option("--images", type=click.IntRange(1), default=10_000, show_default=True, help="Images in the epoch.")
@_race_options
def epoch(multitask: bool, images: int, **options: Any) -> None:
    """Time an epoch over images in a fixed random order."""
    race_options, given = _split(options)
    settings = _settings(given, multitask)
    title = f"{settings.run_name}, an epoch of {images:,} images, batch {settings.batch_size}"
    _race(title, Work("epoch", (settings,), images), **race_options)


@bench.command()
@method_options("dgl1")
@hidden_option
@batch_option
@click.option("--models", type=click.IntRange(2), default=2, show_default=True, help="Models in the stack.")
@_race_options
def stack(models: int, **options: Any) -> None:
    """Time a step of several models, in three ways.

    As a stack, one after another, and each in a process of its own with one thread. They differ in lambda, where the
    method takes one.
    """
    race_options, given = _split(options)
    first = _settings(given, multitask=False)
    spread = [replace(first, lam=first.lam and first.lam * (k + 1) / models) for k in range(models)]
    _race(f"{first.reg}, {models} models, batch {first.batch_size}", Work("step", tuple(spread)), **race_options)


@bench.command()
@method_options("dgl1")
@hidden_option
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="The smallest number of them.")
@threads_option
@_rounds_option(5)
@json_option
def cost(images: int, threads: int, rounds: int, as_json: bool, **given: Any) -> None:
    """Time trainings of growing size.

    Of 1, 2 and 4 models, times the images, and epochs: where the cost grows linearly, that of each stays the same. The
    models are trained as a stack.
    """
    one = replace(_settings(given, multitask=False), epochs=1)
    sizes = {
        "models": {count: Work("train", (one,) * count, images) for count in (1, 2, 4)},
        "images": {count: Work("train", (one,), count) for count in (images, 2 * images, 4 * images)},
        "epochs": {count: Work("train", (replace(one, epochs=count),), images) for count in (1, 2, 4)},
    }
    entries = [
        (what, count, Contestant(f"{what} {count}", "nnlite.bench.peers.own:build", work))
        for what, row in sizes.items()
        for count, work in row.items()
    ]
    standings = race([entry for _, _, entry in entries], threads=threads, rounds=rounds)
    rows: list[dict[str, Any]] = [
        {"of": what, "count": count, "ms": found.quartiles[1], "ms_each": found.quartiles[1] / count}
        for (what, count, _), found in zip(entries, standings, strict=True)
    ]
    title = f"{one.run_name}, {images:,} images, 1 epoch, and more of one of them"
    if as_json:
        print_json({"title": title, "threads": threads, "rounds": rounds, "rows": rows, "machine": machine()})
        return
    smallest = {row["of"]: row["ms_each"] for row in reversed(rows)}
    cells = [
        [f"{row['count']:,} {row['of']}", f"{row['ms']:.0f}", f"{row['ms_each'] / smallest[row['of']]:.2f}"]
        for row in rows
    ]
    print_table(f"{title}; {_words(threads, rounds)}", ["", "ms", "each, to the first"], cells)


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

    One training of as many epochs as rounds, which writes a checkpoint after each.
    """
    settings = replace(_settings(given, multitask=False), epochs=rounds)
    check_writable(folder)
    with tempfile.TemporaryDirectory(prefix=".nnlite-", dir=folder) as place:
        times = checkpoint_times(Work("train", (settings,), images), Path(place) / "checkpoint", threads)
    rows = [{"of": one.name, "ms": one.quartiles[1], "quartiles": one.quartiles[::2]} for one in times]
    share = times[1].to(times[0])
    title = f"{settings.run_name}, {images:,} images"
    if as_json:
        found = {"title": title, "threads": threads, "rounds": rounds, "rows": rows, "share": share}
        print_json({**found, "machine": machine()})
        return
    quartiles = [[f"{ms:.0f}" for ms in one.quartiles] for one in times]
    cells = [[one.name, middle, f"{low} to {high}"] for one, (low, middle, high) in zip(times, quartiles, strict=True)]
    print_table(f"{title}; {_words(threads, rounds)}", ["", "ms", "quartiles"], cells)
    click.echo(f"a checkpoint takes {100 * share:.1f} % of its epoch")


@bench.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".png, .svg or .pdf.")
def plot(files: Sequence[Path], out: Path) -> None:
    """Draw what --json printed, a panel for each of FILES."""
    check_format(out)
    reports = [report for path in files for report in read_reports(path)]
    if not 1 <= sum(len(one["contestants"]) for one in reports) <= BARS_LIMIT:
        raise NnliteError(f"expected races with 1 to {BARS_LIMIT} contestants in all, found none or more")
    plot_times(reports, out)
    message(f"{out} written")


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the race, and those of the work."""
    names = ("against", "threads", "rounds", "as_json", "plot")
    chosen = {name: options[name] for name in names}
    chosen["against"] = [name.strip() for name in chosen["against"].split(",") if name.strip()]
    if chosen["plot"]:
        check_format(chosen["plot"])
    return chosen, {name: value for name, value in options.items() if name not in names}


def _settings(given: dict[str, Any], multitask: bool) -> Settings:
    phi = None if given["gradient"] == "exact" else EXAMPLES["phi"]
    usual = {**EXAMPLES, "phi": phi, "term": (EXAMPLES["term"],)}
    return Settings(multitask=multitask, gamma=USUAL_GAMMA if multitask else None, **method_numbers(given, usual))


def _report(title: str, work: Work, against: Sequence[str], threads: int, rounds: int, **_: Any) -> Report:
    standings = race(contestants(work, against), threads=threads, rounds=rounds, tell=message)
    return report(title, work, standings, threads=threads)


def _race(title: str, work: Work, **options: Any) -> None:
    found = _report(title, work, **options)
    if options["as_json"]:
        print_json(found)
    else:
        _print_race(found)
    if options["plot"]:
        plot_times([found], options["plot"])


def _words(threads: int, rounds: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}, medians of {rounds} rounds"


def _print_race(found: Report) -> None:
    head = ["", "ms", "quartiles", "x products", "x nnlite", found["unit"]]
    rows = [[one["name"], *(["-"] * 5 if one["ms"] is None else _cells(one))] for one in found["contestants"]]
    print_table(f"{found['title']}; {_words(found['threads'], found['rounds'])}", head, rows)
    finite = next((one for one in found["contestants"] if one["name"] == "nnlite, finite"), None)
    if finite:
        click.echo(f"nnlite takes {1 / finite['to_nnlite']:.3f} times the step with the finite gradient")
    differences = [one["difference"] for one in found["contestants"] if one["difference"] is not None]
    if differences:
        click.echo(f"results after three steps differ by {max(differences):.1g} of the change at most")
    click.echo(_machine(found))


def _cells(one: Report) -> list[str]:
    low, high = one["quartiles"]
    ratios = [f"{one[name]:.2f}" for name in ("to_products", "to_nnlite")]
    return [f"{one['ms']:.2f}", f"{low:.2f} to {high:.2f}", *ratios, f"{one['per_second']:,.0f}"]


def _print_methods(title: str, reports: Sequence[Report]) -> None:
    """Print a row for each method: nnlite, the products, their ratio, and each peer."""
    rows = []
    for found in reports:
        ms = {one["name"]: one["ms"] for one in found["contestants"]}
        own = next(one for one in found["contestants"] if one["name"] == "nnlite")
        peers = [name for name in ms if name not in ("nnlite", PRODUCTS)]
        times = {"nnlite": ms.pop("nnlite"), PRODUCTS: ms.pop(PRODUCTS)}
        cells = {name: f"{value:.2f}" for name, value in times.items()} | {"x products": f"{own['to_products']:.2f}"}
        cells |= {name: "-" if ms[name] is None else f"{ms[name]:.2f}" for name in sorted(peers)}
        rows.append((found["title"], cells))
    head = list(rows[0][1])
    words = _words(reports[0]["threads"], reports[0]["rounds"])
    print_table(f"{title}, ms; {words}", ["", *head], [[name, *(cells[one] for one in head)] for name, cells in rows])
    click.echo(_machine(reports[0]))


def _machine(found: Report) -> str:
    here = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return f"{here['cpu']}, {here['blas']}; {versions}"
