"""`nnlite attack`: one run crafts noise, every run is scored on it."""

import csv
import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from nnlite.attacks import NOISES, PGD, Attack
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
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, AttackTable, evaluate_attack, first_of_each_class
from nnlite.evaluation.attack_file import NetId, Record, clean_sha256, layout, new_attack, weights_of, weights_sha256
from nnlite.evaluation.pictures import check_format, plot_accuracy, plot_examples
from nnlite.interop import ART_ATTACKS
from nnlite.lbfgs import LBFGS
from nnlite.storage.tensors import size_of
from nnlite.training.runs import Run, find_run, list_runs

L2_PHI = (0.0, 0.25, 0.5, 1.0, 2.0)  # phi on each of D pixels is sqrt(D) phi long, so the paper's sizes are tiny here
NORM_NAMES = {"l2": "L2", "linf": "L-infinity"}
NAMES = {"r1": "R1", "r2": "R2", "pgd": "PGD", "pgd-l2": "PGD", "lbfgs": "L-BFGS"}
PGDS = {"pgd": "linf", "pgd-l2": "l2"}
TAKES = {  # what each noise can be told, beside its size
    "r1": (),
    "r2": (),
    "pgd": ("steps", "restarts", "stride", "seed"),
    "pgd-l2": ("steps", "restarts", "stride", "seed"),
    "lbfgs": (),
    "square": ("queries", "restarts", "seed"),
    "autopgd": ("steps", "restarts", "seed"),
    "deepfool": ("steps",),
    "carlini": ("steps",),
    "hopskipjump": ("steps", "seed"),
}


@click.command()
@click.option("--adversary", required=True, help="Run that crafts the noise: its name, or the path of its folder.")
@click.option("--victim", "victims", multiple=True, help="Run to score; may be repeated.  [default: all on the data]")
@data_option
@click.option("--first", type=click.IntRange(1), metavar="N", help="Only the first N test images.  [default: all]")
@click.option("--noise", type=click.Choice(list(TAKES)), default="r1", show_default=True, help="How it is crafted.")
@click.option(
    "--phi", type=PHIS, help="Sizes of noise.  [default: 0,0.005,0.01,0.05,0.1; in the L2 norm 0,0.25,0.5,1,2]"
)
@click.option("--clip/--no-clip", default=None, help="Keep pixels within [0, 1].  [default: yes, but for r1 and r2]")
@click.option("--steps", type=int, help="Steps of pgd and others.  [default for pgd: 40]")
@click.option("--restarts", type=int, help="Starts of pgd, square and autopgd.  [default: 1]")
@click.option("--stride", type=float, help="A step of pgd as a share of phi.  [default: 2.5 / steps]")
@click.option("--queries", type=int, help="Queries of square for each image.  [default: 1000]")
@click.option("--seed", type=click.IntRange(0), help="Seed of what pgd and others draw.  [default: 0]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="Type.")
@device_option
@runs_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Keep the images in FILE.safetensors; see verify."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw accuracy against phi.")
@click.option("--images", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw digits and predictions.")
def attack(
    adversary: str,
    victims: tuple[str, ...],
    data: str,
    first: int | None,
    noise: str,
    phi: tuple[float, ...] | None,
    clip: bool | None,
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

    Prints the accuracy of every victim at each phi, the size of the noise.

    \b
    r1, r2       the paper's noise: one step of size phi along sign(J), or 2J
    pgd, pgd-l2  projected gradient descent: many steps, within phi of each pixel
                 (L-infinity norm) or of the whole image (L2 norm)
    lbfgs        the smallest noise in the L2 norm, as Szegedy et al. 2013;
                 an image is changed where phi is enough for that
    square, autopgd (L-infinity), deepfool, carlini, hopskipjump (L2)
                 from the Adversarial Robustness Toolbox:
                 pip install '.[interop]' in a clone of nnlite
    """  # noqa: D301 - click wants the backspace itself
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    for picture in filter(None, (plot, images)):
        check_format(picture)
    given = {name: value for name, value in options.items() if value is not None}
    made, seed = make_attack(noise, clip, given), given.get("seed", 0)
    crafting = find_run(adversary, data, runs)
    scored = [find_run(name, data, runs) for name in victims] or list_runs(runs, data)
    if len({run.name for run in scored}) < len(scored):
        raise NnliteError("victim: expected runs of different names, found one twice")
    dataset = load(data)
    test = dataset.test[:first].to(device)
    nets = {run.name: run.net.astype(dtype).to(device) for run in scored}
    net = crafting.net.astype(dtype).to(device)
    sizes = (L2_PHI if made.norm == "l2" else PAPER_PHI) if phi is None else phi
    name, how = f"{NAMES.get(noise, noise)} noise", describe(noise, made, seed)
    if save is None:
        table = evaluate_attack(net, nets, test, made, sizes, seed=seed)
    else:
        rows = np.arange(len(test))
        record = Record(
            attack=f"{name}, {how}",
            norm=made.norm,
            clip=made.clip,
            phi=tuple(sizes),
            data=data,
            clean=clean_sha256(dataset.test[rows]),
            adversary=_identity(crafting),
            victims=tuple(map(_identity, scored)),
        )
        size = size_of(layout(record, (len(test), dataset.features), dtype))
        message(f"keeps {len(test):,} images at {len(sizes)} phi, {size / 1e6:,.1f} MB, in {save}")
        with new_attack(save, record, dataset.test, rows, dtype) as file:
            table = evaluate_attack(net, nets, test, made, sizes, seed=seed, keep=file.keep)
            file.score(np.stack([table.correct[run.name].sum(axis=-1) for run in scored]))

    figures = {victim: [float(value) for value in values] for victim, values in table.accuracy.items()}
    if as_json:
        print_json(
            {
                "adversary": crafting.name,
                "data": data,
                "examples": len(test),
                "noise": noise,
                "norm": made.norm,
                "clip": made.clip,
                "parameters": made.parameters,
                "seed": seed if "seed" in TAKES[noise] else None,
                "dtype": dtype,
                "phi": table.phi,
                "accuracy": figures,
                "zero_share": table.zero_share,
                "failed": None if table.failed is None else int(table.failed),
                "median_noise": {norm: None if math.isnan(size) else size for norm, size in _medians(table).items()},
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["victim", "adversary", "noise", *table.phi])
        writer.writerows([victim, crafting.name, f"{name}, {how}", *values] for victim, values in figures.items())
    else:
        print_table(
            f"{crafting.name} crafts {name} on {len(test):,} test images of {data}, {how}",
            ["victim", *(f"phi {size:g}" for size in table.phi)],
            [[victim, *(f"{value:.2f}" for value in values)] for victim, values in figures.items()],
        )
        message("accuracy in %" + ("; phi is the length of the noise in the L2 norm" if made.norm == "l2" else ""))
    for line in notes(table, crafting.name, len(test)):
        message(line)

    methods = {run.name: run.settings.reg for run in scored}
    heading = f"{data}: {name} crafted by {crafting.name}\n{how}"
    if plot:
        plot_accuracy(table, methods, heading, plot)
        message(f"drew {plot}")
    if images:
        cases = first_of_each_class(net, nets, test, made, sizes, seed=seed)
        plot_examples(cases, table, methods, dataset.shape, heading, images)
        message(f"drew {images}")


def make_attack(noise: str, clip: bool | None, given: dict[str, Any]) -> Attack:
    """Return the attack that the command line names; NnliteError for an option that it does not take."""
    for name in given.keys() - set(TAKES[noise]):
        able = ", ".join(other for other, takes in TAKES.items() if name in takes)
        raise NnliteError(f"{name}: noise {noise} does not use it, only {able}; leave it out")
    options = {name: value for name, value in given.items() if name != "seed"}
    if noise in NOISES:
        return dataclasses.replace(NOISES[noise], clip=bool(clip))
    if noise in PGDS:
        return PGD(PGDS[noise], clip=clip is not False, **options)
    if clip is False:
        raise NnliteError(f"clip: noise {noise} always keeps pixels within [0, 1]; leave --no-clip out")
    if noise in ART_ATTACKS:
        from nnlite.interop.art import ArtAttack

        return ArtAttack(noise, **options)
    return LBFGS()


def _identity(run: Run) -> NetId:
    return NetId(run.name, weights_sha256(weights_of(run.net)))


def describe(noise: str, made: Attack, seed: int) -> str:
    """Say how the noise is made, such as: L2 norm, steps 40, restarts 5, stride 0.0625, seed 0, clipped to [0, 1]."""
    words = [f"{NORM_NAMES[made.norm]} norm"] if made.norm and noise not in NOISES else []
    words += [f"{name} {value:g}" for name, value in made.parameters.items()]
    words += [f"seed {seed}"] if "seed" in TAKES[noise] else []
    return ", ".join([*words, "clipped to [0, 1]" if made.clip else "not clipped"])


def notes(table: AttackTable, adversary: str, examples: int) -> Iterator[str]:
    """Yield what a reader of the table needs to know to judge it."""
    medians = _medians(table)
    if medians and not math.isnan(medians["l2"]):
        sizes = ", ".join(f"{size:.3g} in the {NORM_NAMES[norm]} norm" for norm, size in medians.items())
        yield f"median size of the smallest noise found that fools {adversary}: {sizes}"
    if table.failed:
        yield (
            f"Note: the attack itself failed on {int(table.failed):,} of {examples:,} images: it found nothing, or had "
            f"not converged. That they stand, if they do, is no sign of robustness."
        )
    if table.zero_share:
        yield (
            f"Note: {100 * table.zero_share:.2g} % of the adversary's input-gradient entries are exactly 0; "
            f"R1 leaves those pixels as they are, so the attack may look weaker than it is."
        )


def _medians(table: AttackTable) -> dict[str, float]:
    return {norm: float(table.lengths[norm]) for norm in NORM_NAMES if norm in table.lengths}
