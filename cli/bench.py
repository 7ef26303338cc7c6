"""`nnlite bench`: what a training step costs beside its own matrix products."""

import dataclasses
from typing import Any

import click

from nnlite.bench import time_step
from nnlite.cli.options import device_option, hidden_option, json_option, print_json, print_table
from nnlite.methods import METHODS
from nnlite.training import USUAL_GAMMA, Settings


@click.group()
def bench() -> None:
    """Time a training step beside its arithmetic."""


@bench.command()
@click.option("--reg", type=click.Choice(list(METHODS)), default="dgl1", show_default=True, help="Method.")
@click.option("--lam", type=float, help="Lambda.  [default: 0.01 where the method uses it]")
@click.option("--phi", type=float, help="Phi.  [default: 0.1 where the method uses it]")
@hidden_option
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Examples in a step.")
@click.option("--multitask", is_flag=True, help="With the rotation head.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the matrix products.")
@click.option("--pairs", type=click.IntRange(4), default=100, show_default=True, help="Number of timings.")
@device_option
@json_option
def step(
    reg: str,
    lam: float | None,
    phi: float | None,
    multitask: bool,
    threads: int,
    pairs: int,
    as_json: bool,
    **shape: Any,
) -> None:
    """Time training steps at the paper's shape beside their own matrix products, in one run."""
    method = METHODS[reg]
    lam = 0.01 if lam is None and method.uses_lam else lam
    phi = 0.1 if phi is None and method.uses_phi else phi
    gamma = USUAL_GAMMA if multitask else None
    settings = Settings(reg=reg, lam=lam, phi=phi, multitask=multitask, gamma=gamma, **shape)
    timing = time_step(settings, threads=threads, pairs=pairs)
    if as_json:
        print_json(dataclasses.asdict(timing))
        return
    low, high = timing.quartiles
    print_table(
        f"{settings.run_name}, batch {settings.batch_size}, {threads} thread(s): medians of {pairs} pairs",
        ["", "ms"],
        [["step", f"{timing.step_ms:.2f}"], ["its matrix products", f"{timing.products_ms:.2f}"]],
    )
    click.echo(f"ratio {timing.ratio:.3f} (quartiles {low:.3f} to {high:.3f})")
