"""`nnlite gradcheck`: backprop, and DataGrad's exact update, against central differences."""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource

from nnlite.backend import Array
from nnlite.cli.options import (
    PHIS,
    Choice,
    data_option,
    hidden_option,
    json_option,
    message,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.own import data_of, on_same_data
from nnlite.cli.progress import progress
from nnlite.datasets.loading import source_name
from nnlite.errors import NnliteError
from nnlite.evaluation.finite_step import PHI, Convergence, convergence
from nnlite.evaluation.passes import counted
from nnlite.evaluation.pictures import check_picture, plot_convergence
from nnlite.gradcheck import TOLERANCE, Check, away_from_kinks, check_network, check_penalty
from nnlite.network import Network, mlp
from nnlite.penalties import PENALTIES
from nnlite.training.memory import count_parameters, expect_free
from nnlite.training.runs import find_run

DIRECTIONS = 3  # along which each array is moved by the check of a penalty


@click.command()
@click.option("--features", type=click.IntRange(1), default=64, show_default=True, help="Width of the input.")
@hidden_option
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="Number of classes.")
@click.option("--batch-size", type=click.IntRange(1), help="Examples.  [default: 5; with --datagrad 100]")
@click.option("--entries", type=click.IntRange(1), default=50, show_default=True, help="Entries checked per array.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all that is drawn.")
@click.option("--datagrad", is_flag=True, help="Check the update of DataGrad's penalty; the options below go with it.")
@click.option("--run", help="A trained run in place of the random net: its name, or the path of its folder.")
@data_option
@runs_option
@click.option("--penalty", type=Choice(list(PENALTIES)), default="l1", show_default=True, help="R of R(J).")
@click.option("--phi", type=PHIS, default=PHI, help="Steps of the finite difference.  [default: 13, 1e-7 to 0.1]")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the errors against phi.")
@json_option
def gradcheck(
    features: int,
    hidden: tuple[int, ...],
    classes: int,
    batch_size: int | None,
    entries: int,
    seed: int,
    datagrad: bool,
    run: str | None,
    data: str,
    runs: Path,
    penalty: str,
    phi: tuple[float, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Check backprop against central differences.

    Compares every parameter's gradient and the input's, in float64. The net is random; its biases are
    moved so that no ReLU sits within reach of its kink. Exit code 1 if a relative error is not below 1e-6.

    With --datagrad it checks the exact update of a penalty on the input gradient instead, with every ReLU
    held on its side. Then it says how far the finite difference is from that update at each phi: for the net as it
    is, and how many of its ReLUs are flipped; with its ReLUs held, so that none changes side between the two points;
    and, as a smooth reference, for the same net without its ReLUs, where the error shrinks as phi does (slope 1).
    """
    if plot and datagrad:
        check_picture(plot)
    if not datagrad:
        _refuse(("run", "data", "runs", "penalty", "phi", "plot"), "goes with --datagrad; add it")
        rng = np.random.default_rng(seed)
        examples = batch_size or 5
        _check_room((features, *hidden, classes), examples)
        x, y = rng.random((examples, features)), rng.integers(0, classes, examples)
        net = away_from_kinks(mlp((features, *hidden, classes), rng, np.float64), x)
        checks = _counting(
            "backprop", net, entries, partial(check_network, x=x, y=y, entries=entries, seed=seed), x.size
        )
        if as_json:
            print_json(_as_json(checks))
        else:
            _print_checks(f"{net}", checks, "entries")
        sys.exit(_exit_code(checks))

    _refuse(("entries",), "does not go with --datagrad, which moves each array along random directions")
    if run:
        _refuse(("features", "hidden", "classes"), "and --run exclude each other: a run has its own size")
        what = f"{Path(run).name} on test images of {source_name(data)}"
        net, x, y = _trained(run, data, runs, batch_size or 100, seed)
    else:
        _refuse(("data", "runs"), "goes with --run; a random net gets random inputs")
        what = "a random net"
        _check_room((features, *hidden, classes), batch_size or 100)
        net, x, y = _random((features, *hidden, classes), batch_size or 100, seed)
    with progress("the finite difference") as show:
        found = convergence(net, x, y, PENALTIES[penalty], phi, on_progress=show)
    check = partial(check_penalty, x=x, y=y, penalty=PENALTIES[penalty], directions=DIRECTIONS, seed=seed)
    checks = _counting("the exact update", net, DIRECTIONS, check)
    if as_json:
        print_json({"net": repr(net), "penalty": penalty, "examples": len(x), **_as_json(checks), **_steps(found)})
    else:
        title = f"{what}, {len(x):,} examples, {net}: the exact update of {penalty}"
        _print_checks(title, checks, "directions")
        _print_steps(found)
    if plot:
        plot_convergence(found, f"{what}: the finite difference, {penalty}", plot)
        message(f"drew {plot}")
    sys.exit(_exit_code(checks))


def _refuse(options: tuple[str, ...], reason: str) -> None:
    """Raise a usage error if one of `options` was given."""
    context = click.get_current_context()
    for name in options:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} {reason}")


def _check_room(sizes: tuple[int, ...], examples: int) -> None:
    """Raise NnliteError where a net of these widths, in float64, and what is made of it do not fit into memory."""
    needed = np.dtype(np.float64).itemsize * (8 * count_parameters(sizes) + 6 * examples * sum(sizes))
    expect_free(needed, "this net needs", "narrower --hidden or a smaller --batch-size")


def _random(sizes: tuple[int, ...], examples: int, seed: int) -> tuple[Network, Array, Array]:
    """Return a net in float64 with inputs and labels, of numbers that float32 holds as they are."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((examples, sizes[0]), np.float32), rng.integers(0, sizes[-1], examples)
    return mlp(sizes, rng).astype(np.float64), x.astype(np.float64), y


def _trained(run: str, data: str, runs: Path, count: int, seed: int) -> tuple[Network, Array, Array]:
    """Return the net of a run in float64, with `count` test images drawn by `seed`, as float32 holds them."""
    found = find_run(run, source_name(data), runs)
    dataset = data_of(found, data)
    on_same_data([found], dataset, chosen=True)
    net, test = found.net, dataset.test
    if count > len(test):
        there = f"the {len(test):,} test images of {dataset.name}"
        raise NnliteError(f"batch-size: expected at most {there}, found {count:,}")
    x, y = test.batch(np.random.default_rng(seed).choice(len(test), count, replace=False))
    return net.astype(np.float64), x.astype(np.float64), y


def _counting(
    what: str, net: Network, entries: int, check: Callable[[Network], list[Check]], others: int = 0
) -> list[Check]:
    """Return the checks of a net, with progress: four forward runs for each entry that is moved.

    Those are `entries` of each array of the net, or all of a smaller one, and so of an array of `others` beside them.
    """
    sizes = [others, *(array.size for layer in net.all_layers for array in layer.parameters.values())]
    total, done = 4 * sum(min(entries, size) for size in sizes), count(1)
    with progress(what) as show:
        return check(counted(net, lambda: show(min(next(done), total), total)))


def _exit_code(checks: list[Check]) -> int:
    return 0 if all(check.passed for check in checks) else 1


def _as_json(checks: list[Check]) -> dict[str, object]:
    passed = _exit_code(checks) == 0
    return {"passed": passed, "tolerance": TOLERANCE, "checks": list(map(dataclasses.asdict, checks))}


def _print_checks(title: str, checks: list[Check], compared: str) -> None:
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
    print_table(title, ["array", "shape", compared, "relative error", f"below {TOLERANCE:g}"], rows)


def _steps(found: Convergence) -> dict[str, object]:
    floor = int(found.float32.argmin())
    return {
        "phi": found.phi,
        "float64": found.float64.tolist(),
        "slope": found.slope(found.float64).tolist(),
        "float32": found.float32.tolist(),
        "cosine": found.cosine.tolist(),
        "held": found.held.tolist(),
        "smooth": found.smooth.tolist(),
        "smooth_slope": found.slope(found.smooth).tolist(),
        "relus": found.relus,
        "flips": found.flips.tolist(),
        "float32_floor": {"phi": found.phi[floor], "error": float(found.float32[floor])},
        "float32_exact": found.exact32,
    }


def _print_steps(found: Convergence) -> None:
    slopes, smooth_slopes = (
        ["", *(f"{slope:.2f}" for slope in found.slope(errors))] for errors in (found.float64, found.smooth)
    )
    rows = [
        [
            np.format_float_scientific(phi, trim="-", exp_digits=2),
            f"{found.float64[k]:.1e}",
            slopes[k],
            f"{found.cosine[k]:.2f}",
            f"{found.float32[k]:.1e}",
            f"{found.flips[k]:,}",
            f"{100 * found.share[k]:.2g}",
            f"{found.held[k]:.1e}",
            f"{found.smooth[k]:.1e}",
            smooth_slopes[k],
        ]
        for k, phi in enumerate(found.phi)
    ]
    head = [
        "phi",
        "float64",
        "slope",
        "cosine",
        "float32",
        "flipped",
        "in %",
        "held",
        "smooth",
        "slope",
    ]
    print_table("the finite difference: its error, relative to the exact update in float64", head, rows)
    floor = int(found.float32.argmin())
    click.echo(
        f"In float32 the finite difference is off by {found.float32[floor]:.1e} at best, at phi {found.phi[floor]:g}; "
        f"the exact update by {found.exact32:.1e}."
    )
