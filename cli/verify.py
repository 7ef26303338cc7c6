"""`nnlite verify`: check an attack file, without the attack."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import (
    csv_option,
    in_blocks,
    json_option,
    message,
    print_csv,
    print_json,
    print_table,
    runs_option,
)
from nnlite.cli.progress import progress
from nnlite.datasets.loading import load, reload
from nnlite.errors import NnliteError
from nnlite.evaluation.attack_file import AttackFile, Verification, find_weights, open_attack
from nnlite.evaluation.attack_file import verify as verify_file
from nnlite.evaluation.named_attacks import NORM_NAMES
from nnlite.evaluation.nets import OnDemand


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--run", "names", multiple=True, help="Run that classifies the images: its name or path; may be repeated."
)
@click.option("--data", metavar="PATH", help="Your own data, if FILE is of them.")
@runs_option
@json_option
@csv_option
@in_blocks
def verify(file: Path, names: tuple[str, ...], data: str | None, runs: Path, as_json: bool, as_csv: bool) -> None:
    """Check the images that nnlite attack --save kept in FILE, without the attack's code.

    Compares them with the clean images: those in FILE must be finite, within phi of the clean ones, equal to them at
    phi 0, and within [0, 1] if the attack promised that. Each --run must classify as many of them correctly as FILE
    says; without --run no accuracy is checked.

    \b
    exit code 0  everything is as FILE says
              1  something differs; each difference is printed
              2  FILE is no attack file, or other bad input
    """  # noqa: D301 - click wants the backspace itself
    attack = open_attack(file)
    given = {find_weights(name, attack.record.data, runs)[0]: name for name in names}
    if len(given) < len(names):
        raise NnliteError("run: expected runs of different names, found one twice")
    weights = OnDemand(given, lambda run: find_weights(given[run], attack.record.data, runs)[1])
    source, recorded = data or attack.record.data, attack.record.source
    dataset = reload(source, recorded, str(file)) if recorded else load(source)
    with progress(f"checking {file.name}") as show:
        found = verify_file(attack, dataset.test, weights, on_progress=show)
    if as_json:
        print_json(_content(attack, found))
    elif as_csv:
        print_csv(_rows(attack, found))
    else:
        _print(attack, found, file)
    for score in found.scores:
        if score.note:
            message(f"Note: {score.note}.")
    if attack.record.norm is None:
        message("Note: phi is no radius of this noise; its size is shown, and not checked.")
    if found.failures:
        sys.exit(1)


def _content(attack: AttackFile, found: Verification) -> dict[str, object]:
    others = int((attack.arrays.read("labels") != attack.record.target).sum())
    images = [{name: _finite(value) for name, value in vars(size).items()} for size in found.sizes]
    return {
        "record": dataclasses.asdict(attack.record),
        "examples": attack.shape[0],
        "images": images,
        "runs": [
            {
                "name": score.run.name,
                "sha256": score.run.sha256,
                "recorded": _percent(score.recorded, attack),
                "found": _percent(score.found, attack),
                "reached": score.reached and _percent(score.reached, attack, others),
            }
            for score in found.scores
        ],
        "failures": [
            {"phi": None if failure.k is None else attack.record.phi[failure.k], "text": failure.text}
            for failure in found.failures
        ],
        "rows": _rows(attack, found),
    }


def _rows(attack: AttackFile, found: Verification) -> list[dict[str, Any]]:
    """Return a row for each phi and run, or for each phi where no run was given."""
    failed = {failure.k for failure in found.failures}
    scores: list[tuple[str | None, list[float] | None, list[float] | None]] = [
        (score.run.name, _percent(score.recorded, attack), _percent(score.found, attack)) for score in found.scores
    ]
    return [
        {
            "run": name,
            "phi": size.phi,
            "norm": _finite(size.norm),
            "lowest": _finite(size.low),
            "highest": _finite(size.high),
            "recorded": recorded and recorded[k],
            "found": right and right[k],
            "passed": k not in failed,
        }
        for name, recorded, right in scores or [(None, None, None)]
        for k, size in enumerate(found.sizes)
    ]


def _finite(value: float | None) -> float | None:
    """Return None for NaN and infinity, which are no JSON."""
    return value if value is not None and math.isfinite(value) else None


def _percent(counts: tuple[int, ...] | None, attack: AttackFile, examples: int | None = None) -> list[float] | None:
    return None if counts is None else [100 * count / (examples or attack.shape[0]) for count in counts]


def _print(attack: AttackFile, found: Verification, file: Path) -> None:
    record, failed = attack.record, {failure.k for failure in found.failures}
    head = ["phi", f"{NORM_NAMES[record.norm or 'linf']} norm", "lowest pixel", "highest pixel"]
    rows = [[f"{size.phi:g}", *(f"{x:.6f}" for x in (size.norm, size.low, size.high))] for size in found.sizes]
    for score in found.scores:
        for name, counts in ((f"{score.run.name} recorded", score.recorded), ("found", score.found)):
            percent = _percent(counts, attack)
            if percent:
                head.append(name)
                rows = [[*row, f"{value:.2f}"] for row, value in zip(rows, percent, strict=True)]
    verdicts = ["FAIL" if k in failed else "pass" for k in range(len(rows))]
    made = f"{record.attack}; crafted by {record.adversary.name} on {attack.shape[0]:,} test images of {record.data}"
    print_table(
        f"{file}: {made}",
        [*head, "verdict"],
        [[*row, verdict] for row, verdict in zip(rows, verdicts, strict=True)],
    )
    for failure in found.failures:
        where = "" if failure.k is None else f"phi {record.phi[failure.k]:g}: "
        click.echo(f"{click.style('FAIL', 'red', bold=True)}  {where}{failure.text}")
    if not found.failures:
        missing = "" if found.scores else "; no accuracy was checked, name a run with --run"
        click.echo(f"{click.style('pass', 'green', bold=True)}  all is as the file says{missing}")
