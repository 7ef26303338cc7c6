"""Facts: what a reader of the report needs to know about how its numbers were made."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from nnlite import __version__
from nnlite.paper.plan import Plan
from nnlite.paper.tables import Model
from nnlite.storage.files import read_text
from nnlite.storage.texts import parse_json
from nnlite.training.run_folder import LIMITS, SETTINGS, Record, load_run
from nnlite.training.settings import Settings


def facts(plan: Plan, command: str, runs: Mapping[Model, Sequence[Record]]) -> dict[str, str]:
    """Return lines by their names: the command, the data, the nets and their epochs, versions, and what went wrong."""
    every = [run for found in runs.values() for run in found]
    hours = sum(epoch.seconds for run in every for epoch in load_run(run.path).history) / 3600
    own = "".join(f"; {family} {epochs}" for family, epochs in plan.family_epochs)
    found = {
        "command": command,
        "data": plan.data,
        "nets": f"{len(runs)} models, {len(plan.seeds)} seed(s): {', '.join(map(str, plan.seeds))}",
        "epochs": f"{plan.epochs} single-task, {plan.mt_epochs} multi-task (five rotations of each image in one "
        f"epoch){own}",
        "lr": _list(plan.lr) + (f", multi-task {_list(plan.mt_lr)}" if plan.mt_lr else ""),
        "gamma": _list(plan.gamma),
        "hidden": "-".join(map(str, plan.hidden)),
        "device": plan.device,
        "training": f"{hours:.2f} hours of one thread, added up over the nets used",
        "versions": f"nnlite {__version__}, NumPy {np.__version__}, Python {platform.python_version()}",
    }
    trained_by = Counter(_version(run) for run in every)
    if set(trained_by) != {__version__}:
        found["nets trained by"] = ", ".join(f"nnlite {one}: {count}" for one, count in sorted(trained_by.items()))
    if max(len(plan.lr), len(plan.mt_lr), len(plan.gamma)) > 1:
        found["chosen"] = "; ".join(f"{model.label}: {_numbers(seeds[0].settings)}" for model, seeds in runs.items())
    diverged = [f"{run.name} after epoch {run.epochs}" for run in every if run.results.status == "diverged"]
    if diverged:
        found["diverged"] = f"{', '.join(diverged)}; the best net before that is used"
    failed = [run.name for run in every if run.results.status == "failed"]
    if failed:
        found["failed"] = f"{', '.join(failed)}; no better than a guess"
    return found


def settled(runs: Mapping[Model, Sequence[Record]]) -> dict[Model, tuple[int, int]]:
    """Return for each model the best epoch of its first seed, and of how many; one near its end was still rising."""
    return {model: (found[0].results.best_epoch, found[0].epochs) for model, found in runs.items()}


def _version(run: Record) -> str:
    """Return the version of nnlite that trained a run."""
    written = parse_json(read_text(run.path / SETTINGS, LIMITS[SETTINGS]))
    return str(written.get("versions", {}).get("nnlite", "unknown"))


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _numbers(settings: Settings) -> str:
    return f"lr {settings.lr:g}" + ("" if settings.gamma is None else f", gamma {settings.gamma:g}")
