"""`nnlite gradcheck`: backprop against central differences, for a net of the user's size and seed."""

import dataclasses
import sys

import click
import numpy as np

from nnlite.cli.options import hidden_option, json_option, print_json, print_table
from nnlite.gradcheck import TOLERANCE, away_from_kinks, check_network
from nnlite.network import mlp


@click.command()
@click.option("--features", type=click.IntRange(1), default=64, show_default=True, help="Width of the input.")
@hidden_option
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="Number of classes.")
@click.option("--batch-size", type=click.IntRange(1), default=5, show_default=True, help="Examples.")
@click.option("--entries", type=click.IntRange(1), default=50, show_default=True, help="Entries checked per array.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the net and the inputs.")
@json_option
def gradcheck(
    features: int, hidden: tuple[int, ...], classes: int, batch_size: int, entries: int, seed: int, as_json: bool
) -> None:
    """Check backprop against central differences.

    Compares every parameter's gradient and the input's, in float64. The net is random; its biases are
    moved so that no ReLU sits within reach of its kink. Exit code 1 if a relative error is not below 1e-6.
    """
    rng = np.random.default_rng(seed)
    x, y = rng.random((batch_size, features)), rng.integers(0, classes, batch_size)
    net = away_from_kinks(mlp((features, *hidden, classes), rng, np.float64), x)
    checks = check_network(net, x, y, entries=entries, seed=seed)
    passed = all(check.passed for check in checks)
    if as_json:
        print_json({"passed": passed, "tolerance": TOLERANCE, "checks": list(map(dataclasses.asdict, checks))})
    else:
        rows = [
            [
                check.name,
                " x ".join(map(str, check.shape)),
                str(check.entries),
                f"{check.error:.1e}",
                "pass" if check.passed else "FAIL",
            ]
            for check in checks
        ]
        print_table(f"{net}", ["array", "shape", "entries", "relative error", f"below {TOLERANCE:g}"], rows)
    sys.exit(0 if passed else 1)
