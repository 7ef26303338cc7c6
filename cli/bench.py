"""`nnlite bench`: what a training step and an attack cost beside their own matrix products."""

import dataclasses
from typing import Any

import click

from nnlite.attacks import PGD
from nnlite.bench import Timing, time_attack, time_step
from nnlite.cli.options import (
    device_option,
    hidden_option,
    json_option,
    method_numbers,
    method_options,
    print_json,
    print_table,
)
from nnlite.evaluation import BLOCK
from nnlite.methods import EXAMPLES
from nnlite.settings import USUAL_GAMMA, Settings


@click.group()
def bench() -> None:
    """Time a training step or an attack beside its arithmetic."""


@bench.command()
@method_options("dgl1")
@hidden_option
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Examples in a step.")
@click.option("--multitask", is_flag=True, help="With the rotation head.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the matrix products.")
@click.option("--pairs", type=click.IntRange(4), default=100, show_default=True, help="Number of timings.")
@device_option
@json_option
def step(multitask: bool, threads: int, pairs: int, as_json: bool, **options: Any) -> None:
    """Time training steps at the paper's shape beside their own matrix products, in one run.

    What the method takes and is not given is 0.01 for lambda and 0.1 for phi.
    """
    phi = None if options["gradient"] == "exact" else EXAMPLES["phi"]
    usual = {**EXAMPLES, "phi": phi, "term": (EXAMPLES["term"],)}
    gamma = USUAL_GAMMA if multitask else None
    settings = Settings(multitask=multitask, gamma=gamma, **method_numbers(options, usual))
    timing = time_step(settings, threads=threads, pairs=pairs)
    title = f"{settings.run_name}, batch {settings.batch_size}"
    _report(timing, f"{title}, {threads} thread(s): medians of {pairs} pairs", "step", as_json)


@bench.command()
@click.option("--noise", type=click.Choice(["pgd", "pgd-l2"]), default="pgd", show_default=True, help="Attack.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Steps of the attack.")
@click.option("--rows", type=click.IntRange(1), default=BLOCK, show_default=True, help="Images crafted at a time.")
@hidden_option
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the matrix products.")
@click.option("--pairs", type=click.IntRange(4), default=20, show_default=True, help="Number of timings.")
@device_option
@json_option
def attack(noise: str, steps: int, threads: int, pairs: int, as_json: bool, **shape: Any) -> None:
    """Time crafting noise at the paper's shape beside its own matrix products, in one run."""
    made = PGD("l2" if noise == "pgd-l2" else "linf", steps)
    timing = time_attack(made, threads=threads, pairs=pairs, **shape)
    title = f"{noise}, {steps} steps, {shape['rows']} images"
    _report(timing, f"{title}, {threads} thread(s): medians of {pairs} pairs", "crafting", as_json)


def _report(timing: Timing, title: str, work: str, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(timing))
        return
    low, high = timing.quartiles
    rows = [[work, f"{timing.work_ms:.2f}"], ["its matrix products", f"{timing.products_ms:.2f}"]]
    print_table(title, ["", "ms"], rows)
    click.echo(f"ratio {timing.ratio:.3f} (quartiles {low:.3f} to {high:.3f})")
    if timing.to_finite is not None:
        click.echo(f"{timing.to_finite:.3f} times the step with the finite gradient")
