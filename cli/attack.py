"""`nnlite attack`: one run crafts noise, every run is scored on it."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from nnlite.cli.options import (
    PHIS,
    Choice,
    Command,
    WithRows,
    csv_option,
    data_option,
    device_option,
    in_blocks,
    json_option,
    message,
    print_csv,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.own import Reach, column_options, data_of, number_of, on_same_data, tell_units, with_columns_held
from nnlite.cli.progress import progress
from nnlite.datasets.loading import source_name
from nnlite.datasets.table import listed
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable
from nnlite.evaluation.attack_file import LABELS, check_ending
from nnlite.evaluation.attacking import attack_nets
from nnlite.evaluation.named_attacks import NAMED_ATTACKS, NORM_NAMES, OPTIONS, ChosenAttack, choose_attack
from nnlite.evaluation.nets import OnDemand
from nnlite.evaluation.pictures import check_picture, plot_accuracy, plot_examples
from nnlite.network import Network
from nnlite.training.run_folder import Run, load_run
from nnlite.training.runs import find_run, list_records, whole_records


def _usual(values: dict[str, Any]) -> str:
    """Return which attacks have which default, such as: pgd, pgd-l2: 40; deepfool: 50."""
    names: dict[Any, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return "; ".join(", ".join(some) + ("" if value is None else f": {value}") for value, some in names.items())


def _attack_options(command: Command) -> Command:
    """Add the options that some attack takes, each with the attacks that take it."""
    for name, option in reversed(OPTIONS.items()):
        usual = _usual({attack: row.options[name] for attack, row in NAMED_ATTACKS.items() if name in row.options})
        command = click.option(f"--{name}", type=option.type, help=f"{option.meaning}.  [{usual}]")(command)
    return command


_NAMES = [name for known, row in NAMED_ATTACKS.items() for name in (known, *row.aliases)]
_SIZES = _usual({name: ",".join(f"{size:g}" for size in row.phi) for name, row in NAMED_ATTACKS.items()})
_UNLED = ", ".join(name for name, row in NAMED_ATTACKS.items() if not row.targets)
_FREE = ", ".join(name for name, row in NAMED_ATTACKS.items() if row.clip is False)
_ROWS = [
    (
        ", ".join([name, *row.aliases]),
        row.summary + (f", {NORM_NAMES[row.norm]} norm" if row.norm else "") + (f" [{row.extra}]" if row.extra else ""),
    )
    for name, row in NAMED_ATTACKS.items()
]


@click.command(cls=WithRows, title="Noise", rows=_ROWS)
@click.option("--adversary", required=True, help="Run that crafts the noise: its name, or the path of its folder.")
@click.option("--victim", "victims", multiple=True, help="Run to score; may be repeated.  [default: all on the data]")
@data_option
@click.option("--first", type=click.IntRange(1), metavar="N", help="Only the first N test images.  [default: all]")
@click.option(
    "--noise", type=Choice(_NAMES), metavar="NAME", default="r1", show_default=True, help="How it is crafted."
)
@click.option("--phi", type=PHIS, help=f"Sizes of noise, such as 0.1,8/255.  [{_SIZES}]")
@click.option("--clip/--no-clip", default=None, help=f"Keep pixels within [0, 1].  [default: yes, but not for {_FREE}]")
@_attack_options
@click.option("--target", metavar="CLASS", help=f"Lead images towards this class, by name or number.  [not {_UNLED}]")
@click.option(
    "--labels", type=Choice(LABELS), default="true", show_default=True, help="Those that the adversary is shown."
)
@column_options
@click.option("--dtype", type=Choice(["float32", "float64"]), default="float32", show_default=True, help="Type.")
@device_option
@runs_option
@json_option
@csv_option
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Keep the images; see verify."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
@click.option("--images", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw digits and predictions.")
@in_blocks
def attack(
    adversary: str,
    victims: tuple[str, ...],
    data: str,
    first: int | None,
    noise: str,
    phi: tuple[float, ...] | None,
    clip: bool | None,
    target: str | None,
    labels: str,
    frozen: tuple[str, ...],
    limits: Reach,
    whole: tuple[str, ...],
    dtype: str,
    device: str,
    runs: Path,
    as_json: bool,
    as_csv: bool,
    save: Path | None,
    plot: Path | None,
    images: Path | None,
    **options: Any,
) -> None:
    """Attack runs with the noise that one run crafts.

    Prints the accuracy of every victim at each phi, the size of the noise. With --target also how many of the images
    of other classes a victim takes for that class; images of it stay as they are. With --labels predicted the
    adversary goes by what its own net predicts, and needs no labels: noise made with true labels may leak them.

    \b
    Noise marked [interop] is that of the Adversarial Robustness Toolbox;
    to install it, in a clone of nnlite: pip install '.[interop]'
    """  # noqa: D301 - click wants the backspace itself
    for picture in filter(None, (plot, images)):
        check_picture(picture)
    if save:
        check_ending(save)
    given = {name: value for name, value in options.items() if value is not None}
    chosen = choose_attack(noise, phi, clip=clip, **given)  # what it refuses is told before a run is looked for
    source, data = data, source_name(data)
    crafting = find_run(adversary, data, runs)
    led = None if target is None else number_of(crafting.data, target)
    chosen = choose_attack(noise, phi, clip=clip, target=led, labels=labels, **given)
    scored = [find_run(name, data, runs).record for name in victims] or list_records(runs, data)
    if len({run.name for run in scored}) < len(scored):
        raise NnliteError("victim: expected runs of different names, found one twice")
    dataset = with_columns_held(data_of(crafting, source), frozen, limits, whole, clip=chosen.attack.clip)
    scored = on_same_data(scored, dataset, chosen=bool(victims))
    scored = scored if victims else whole_records(scored, crafting)
    nets = {run.name: partial(_net, run.path, crafting) for run in scored}
    count = len(dataset.test[:first])
    for line in _beyond_the_range(chosen, dataset.features):
        message(line)
    if save:
        size = count * dataset.features * len(chosen.phi) * np.dtype(dtype).itemsize
        message(f"keeps {count:,} images at {len(chosen.phi)} phi, {size / 1e6:,.1f} MB, in {save}")
    with progress(chosen.title) as show:
        found = attack_nets(
            chosen,
            (crafting.name, crafting.net),
            OnDemand(nets, lambda name: nets[name]()),
            dataset,
            first=first,
            dtype=dtype,
            device=device,
            save=save,
            with_examples=images is not None,
            on_progress=show,
        )

    table, how = found.table, {"adversary": crafting.name, "noise": f"{chosen.title}, {chosen.details}"}
    rows = [how | row for row in table.records()]
    figures, reached = (
        {victim: [float(value) for value in values] for victim, values in shares.items()}
        for shares in (table.accuracy, table.reached)
    )
    about = dataset.description
    aim = None if led is None else about.classes[led]
    own = 0 if led is None else int((dataset.test.labels[:first] == led).sum())
    if as_json:
        print_json(
            {
                "adversary": crafting.name,
                "data": data,
                "examples": count,
                "noise": chosen.name,
                "norm": chosen.attack.norm,
                "clip": chosen.attack.clip,
                "parameters": chosen.parameters,
                "seed": chosen.seed,
                "dtype": dtype,
                "target": aim,
                "labels": labels,
                "columns": asdict(dataset.columns),
                "phi": table.phi,
                "accuracy": figures,
                "reached": reached,
                "zero_share": table.zero_share,
                "failed": None if table.failed is None else int(table.failed),
                "median_noise": {norm: None if math.isnan(size) else size for norm, size in _medians(table).items()},
                "rows": rows,
            }
        )
    elif as_csv:
        print_csv(rows)
    else:
        samples = f"{count:,} test {about.samples} of {data}"
        titles = [f"{crafting.name} crafts {chosen.title} on {samples}, {chosen.details}"]
        titles += [f"taken for {aim}, in % of the {count - own:,} {about.samples} of other classes"] * bool(reached)
        for title, shares in zip(titles, (figures, reached), strict=False):
            print_table(
                title,
                ["victim", *(f"phi {size:g}" for size in table.phi)],
                [[victim, *(f"{value:.2f}" for value in values)] for victim, values in shares.items()],
            )
        message("accuracy in %" + ("; phi is the length of the noise in the L2 norm" if table.norm == "l2" else ""))
    if aim is not None:
        message(f"{own:,} {about.samples} of class {aim} stay as they are")
    if table.norm != "l2":
        tell_units(dataset, max(table.phi))
    for line in _notes(table, crafting.name, count):
        message(line)

    methods = {run.name: run.settings.reg for run in scored}
    heading = f"{data}: {chosen.title} crafted by {crafting.name}\n{chosen.details}"
    classes = about.classes
    if classes != tuple(map(str, range(len(classes)))):
        heading += "\n" + listed([f"{label} is {name}" for label, name in enumerate(classes)])
    if plot:
        plot_accuracy(table, methods, heading, plot)
        message(f"drew {plot}")
    if images and found.examples:
        plot_examples(found.examples, table, methods, dataset.shape, heading, images)
        message(f"drew {images}")


def _net(path: Path, crafting: Run) -> Network:
    """Return the net of a run, which the adversary's may be."""
    return crafting.net if path == crafting.path else load_run(path).net


def _beyond_the_range(chosen: ChosenAttack, features: int) -> Iterator[str]:
    """Yield a warning where noise of the largest phi can make any image of `features` pixels of any other."""
    largest, enough = max(chosen.phi), {"linf": 1.0, "l2": math.sqrt(features), None: math.inf}[chosen.attack.norm]
    if largest > enough:
        yield (
            f"Warning: phi {largest:g} is beyond the data's range: pixels are in [0, 1], and at phi {enough:g} every "
            f"pixel can already become anything. Write 8 of 255 levels of grey as 8/255."
        )


def _notes(table: AttackTable, adversary: str, examples: int) -> Iterator[str]:
    """Yield what a reader of the table needs to know to judge it."""
    medians = _medians(table)
    if medians and not math.isnan(medians["l2"]):
        sizes = ", ".join(f"{size:.3g} in the {NORM_NAMES[norm]} norm" for norm, size in medians.items())
        yield f"median size of the smallest noise found that fools {adversary}: {sizes}"
    if table.failed:
        yield (
            f"Note: the attack itself failed on {int(table.failed):,} of {examples:,} images: it found nothing, or had "
            f"not converged. If the nets still classify those correctly, that is no sign of robustness."
        )
    if table.zero_share:
        yield (
            f"Note: {100 * table.zero_share:.2g} % of the adversary's input-gradient entries are exactly 0; "
            f"R1 leaves those pixels as they are, so the attack may look weaker than it is."
        )


def _medians(table: AttackTable) -> dict[str, float]:
    return {norm: float(table.lengths[norm]) for norm in NORM_NAMES if norm in table.lengths}
