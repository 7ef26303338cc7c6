"""The reproduction: train what tables and figures need and is not there yet, attack, and score.

Everything is kept in one folder: `plan.json` holds the settings and `runs/` the nets. A folder belongs to one plan, and
a call with other settings is refused. Nets are trained and attacked in processes of one thread each.
"""

import dataclasses
import itertools
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlite import __version__
from nnlite.attacks import NOISES, Noise
from nnlite.backend import to_device
from nnlite.datasets.catalog import load
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, evaluate_attack, first_of_each_class
from nnlite.evaluation.float32_trap import naive_softmax_cross_entropy
from nnlite.grid.jobs import Job, check_fit, group_into_stacks, pending, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.paper.report import write_report
from nnlite.paper.scores import SCORES, Percent, ScoreKey, Scores, read_scores
from nnlite.paper.tables import FIGURE_3, MODELS, Model, in_order
from nnlite.paper.targets import AttackSpec, attacks_for
from nnlite.penalties import L1
from nnlite.storage.files import new_file, read_text
from nnlite.storage.texts import parse_json, shown
from nnlite.storage.weights import WEIGHTS
from nnlite.training.run_folder import Run, load_run
from nnlite.training.settings import DEFAULTS, Settings

PLAN = "plan.json"
_ATTACK_COST = 3.0  # of one adversary with a dozen victims, in epochs of a plain net


@dataclass(frozen=True)
class Plan:
    """The settings of a reproduction. Several lr or gamma mean a search on the validation set.

    mt_epochs and mt_lr are for the multi-task nets, whose epoch takes five times as long; without mt_lr they take lr.
    """

    data: str = "digits"
    epochs: int = 30
    mt_epochs: int = 8
    seeds: tuple[int, ...] = (0,)
    lr: tuple[float, ...] = (0.1,)
    mt_lr: tuple[float, ...] = ()
    gamma: tuple[float, ...] = (DEFAULTS["gamma"],)
    hidden: tuple[int, ...] = (784, 784, 784)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("seeds", "lr", "gamma"):
            if not getattr(self, name):
                raise NnliteError(f"{name}: expected one or more numbers, found none")

    def candidates(self, model: Model) -> list[tuple[float, float | None]]:
        """Return the (lr, gamma) to try for `model`; gamma is None for a single task."""
        if model.multitask:
            return list(itertools.product(self.mt_lr or self.lr, self.gamma))
        return [(lr, None) for lr in self.lr]

    def settings(self, model: Model, seed: int, lr: float, gamma: float | None) -> Settings:
        """Return the training settings of `model`."""
        return Settings(
            reg=model.reg,
            lam=model.lam,
            phi=model.phi,
            data=self.data,
            hidden=self.hidden,
            lr=lr,
            epochs=self.mt_epochs if model.multitask else self.epochs,
            multitask=model.multitask,
            gamma=gamma,
            seed=seed,
            device=self.device,
        )


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A folder and its plan."""

    folder: Path
    plan: Plan

    def reserve_folder(self) -> None:
        """Make the folder this plan's own; NnliteError where it is another plan's, or cannot be written."""
        path = self.folder / PLAN
        wanted = json.loads(json.dumps(dataclasses.asdict(self.plan)))
        try:
            if not path.exists():
                with suppress(FileExistsError), new_file(path, replace=False) as place:  # of a call at the same moment
                    place.write_text(json.dumps(wanted, indent=2) + "\n", "utf-8")
            found = parse_json(read_text(path, 1 << 16))
            if not isinstance(found, dict):
                raise ValueError("it holds no settings")
        except (OSError, ValueError) as error:
            raise NnliteError(f"{path}: cannot be written or read ({error}); choose another --folder") from error
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            what = ", ".join(f"{name} {shown(found.get(name))}" for name in changed)
            raise NnliteError(f"{self.folder} was made with other settings ({what}); choose another --folder")

    def job(self, model: Model, seed: int, lr: float, gamma: float | None) -> Job:
        """Return the job that trains `model` with these numbers."""
        name = f"{model.slug}-lr{lr:g}" + ("" if gamma is None else f"-gamma{gamma:g}") + f"-seed{seed}"
        return Job(self.folder / "runs" / self.plan.data / name, self.plan.settings(model, seed, lr, gamma))

    def jobs(self, models: Iterable[Model]) -> list[Job]:
        """Return all jobs that `models` need."""
        return [
            self.job(model, seed, lr, gamma)
            for model in models
            for seed in self.plan.seeds
            for lr, gamma in self.plan.candidates(model)
        ]

    def best(self, model: Model) -> list[Run]:
        """Return the runs of `model`, one for each seed, at the (lr, gamma) of the best mean validation accuracy.

        A candidate that diverged before it had a net does not count; without any the list is empty.
        """
        tried = []
        for lr, gamma in self.plan.candidates(model):
            paths = [self.job(model, seed, lr, gamma).path for seed in self.plan.seeds]
            if all(path.is_dir() for path in paths):
                tried.append([load_run(path) for path in paths])
        return max(tried, key=lambda found: sum(run.results.validation for run in found), default=[])

    def known_scores(self) -> dict[ScoreKey, Percent]:
        """Return the scores of an earlier call, except those of nets that were trained again since."""
        scores = read_scores(self.folder)
        if not scores:
            return {}
        written = (self.folder / SCORES).stat().st_mtime_ns

        def unchanged(model: Model) -> bool:
            runs = self.best(model)
            return bool(runs) and all((run.path / WEIGHTS).stat().st_mtime_ns < written for run in runs)

        models = {model for adversary, _, victim in scores for model in (adversary, victim)}
        same = {model for model in models if unchanged(model)}
        return {key: accuracy for key, accuracy in scores.items() if key[0] in same and key[2] in same}


def reproduce(
    folder: Path,
    plan: Plan,
    targets: Sequence[str],
    models: Iterable[Model],
    *,
    processes: int,
    command: str,
    on_progress: Callable[[float, float, str], None],
) -> Path:
    """Train what `targets` need and is missing, attack, write the report of everything there is, and return its path.

    Called again after it was stopped, this continues: finished runs are kept, and so are the scores of a report.

    Arguments:
        folder: where everything is kept.
        plan: the settings.
        targets: of TARGETS.
        models: the rows of the tables that are wanted.
        processes: how many nets are trained or attacked at the same time.
        command: the command line to repeat the call, for the report.
        on_progress: is called with the work done, the whole work, and a line to show or "".
    """
    to_device(np.empty(0), plan.device)  # fails here, before any work, where there is no GPU
    reproduction = Reproduction(folder, plan)
    rows = tuple(models)
    needed = [attacks_for(target, rows) for target in targets]
    wanted = list(_without((one for attacks, _ in needed for one in attacks), {}))
    jobs = reproduction.jobs(in_order(model for _, found in needed for model in found))
    reproduction.reserve_folder()
    left = pending(jobs)
    stacks = group_into_stacks(left)
    check_fit(stacks, processes)
    total = sum(job.cost for job in left) + _ATTACK_COST * len(wanted) * len(plan.seeds)
    done = 0.0

    def advance(cost: float, text: str = "") -> None:
        nonlocal done
        done += cost
        on_progress(done, total, text)

    advance(0, f"{len(left)} of {len(jobs)} nets are left to train")
    for job, failure in train_jobs(stacks, partial(run_in_pool, processes=processes), advance):
        advance(0, failure or f"trained {job.path.name}")
    runs = {model: found for model in MODELS if (found := reproduction.best(model))}
    if not runs:
        raise DivergedError(f"{folder}: every net diverged; try another --lr")
    known = reproduction.known_scores()
    attacks = list(_without(wanted, known))
    advance(_ATTACK_COST * (len(wanted) - len(attacks)) * len(plan.seeds), f"{len(attacks)} attacks are left")
    values = known | score_attacks(attacks, runs, processes, lambda: advance(_ATTACK_COST))
    scores = Scores(len(load(plan.data).test), values)
    rect = runs.get(Model("Rect"))
    naive = np.mean([naive_attack(run) for run in rect], axis=0) if rect else None
    digits = {model: own_examples(runs[model][0]) for model in FIGURE_3 if model in runs}
    return write_report(scores, folder, _facts(plan, command, runs), naive, digits)


def score_attacks(
    attacks: Iterable[AttackSpec], runs: Mapping[Model, list[Run]], processes: int, on_attack: Callable[[], None]
) -> dict[ScoreKey, Percent]:
    """Carry out the attacks among models that have runs; return accuracies (seeds, phi) by adversary, noise, victim.

    The adversary of each seed attacks the victims of the same seed. `on_attack` is called after each.
    """
    specs: list[AttackSpec] = []
    tasks = []
    for one in attacks:
        victims = tuple(victim for victim in one.victims if victim in runs)
        for seed, adversary in enumerate(runs.get(one.adversary, [])):
            specs.append(one._replace(victims=victims))
            tasks.append((_score, adversary, one.noise, [runs[victim][seed] for victim in victims]))
    done: dict[int, Percent] = {}
    for index, accuracies in run_in_pool(tasks, processes=processes):
        done[index] = accuracies
        on_attack()
    values: dict[ScoreKey, list[Percent]] = {}
    for index, one in enumerate(specs):
        for victim, accuracy in zip(one.victims, done[index], strict=True):
            values.setdefault((one.adversary, one.noise, victim), []).append(accuracy)
    return {key: np.stack(seeds) for key, seeds in values.items()}


def _score(adversary: Run, noise: str, victims: Sequence[Run]) -> Percent:
    """Return the accuracies (victims, phi) under the adversary's noise."""
    settings = adversary.settings
    test = load(settings.data).test.to(settings.device)
    nets = {str(run.path): run.net.to(settings.device) for run in victims}
    table = evaluate_attack(adversary.net.to(settings.device), nets, test, NOISES[noise], PAPER_PHI)
    return np.stack([table.accuracy[str(run.path)] for run in victims])


def naive_attack(run: Run) -> Percent:
    """Return the accuracies (phi,) of a net under its own R1 noise, crafted with the naive logit error."""
    test = load(run.settings.data).test
    table = evaluate_attack(run.net, {"self": run.net}, test, Noise(L1, loss=naive_softmax_cross_entropy))
    return table.accuracy["self"]


def own_examples(run: Run) -> npt.NDArray[np.floating]:
    """Return the first test image of each class under the run's own R1 noise, (classes, phi, D)."""
    return first_of_each_class(run.net, {}, load(run.settings.data).test, NOISES["r1"]).images


def _without(attacks: Iterable[AttackSpec], known: Mapping[ScoreKey, object]) -> Iterator[AttackSpec]:
    """Yield the attacks without the victims whose score is known, one for each adversary and noise."""
    victims: dict[tuple[Model, str], list[Model]] = {}
    for one in attacks:
        left = [victim for victim in one.victims if (one.adversary, one.noise, victim) not in known]
        victims.setdefault((one.adversary, one.noise), []).extend(left)
    for (adversary, noise), found in victims.items():
        if found:
            yield AttackSpec(adversary, noise, in_order(found))


def _facts(plan: Plan, command: str, runs: Mapping[Model, list[Run]]) -> dict[str, str]:
    """Return what a reader needs to know about how the numbers were made."""
    every = [run for found in runs.values() for run in found]
    hours = sum(epoch.seconds for run in every for epoch in run.history) / 3600
    facts = {
        "command": command,
        "data": plan.data,
        "nets": f"{len(runs)} models, {len(plan.seeds)} seed(s): {', '.join(map(str, plan.seeds))}",
        "epochs": f"{plan.epochs} single-task, {plan.mt_epochs} multi-task (five rotations of each image in one epoch)",
        "lr": _list(plan.lr) + (f", multi-task {_list(plan.mt_lr)}" if plan.mt_lr else ""),
        "gamma": _list(plan.gamma),
        "hidden": "-".join(map(str, plan.hidden)),
        "device": plan.device,
        "training": f"{hours:.2f} hours of one thread, added up over the nets used",
        "versions": f"nnlite {__version__}, NumPy {np.__version__}, Python {platform.python_version()}",
    }
    if max(len(plan.lr), len(plan.mt_lr), len(plan.gamma)) > 1:
        facts["chosen"] = "; ".join(f"{model.label}: {_numbers(found[0].settings)}" for model, found in runs.items())
    diverged = [f"{run.name} after epoch {len(run.history)}" for run in every if run.results.status == "diverged"]
    if diverged:
        facts["diverged"] = f"{', '.join(diverged)}; the best net before that is used"
    failed = [run.name for run in every if run.results.status == "failed"]
    if failed:
        facts["failed"] = f"{', '.join(failed)}; no better than a guess"
    return facts


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _numbers(settings: Settings) -> str:
    return f"lr {settings.lr:g}" + ("" if settings.gamma is None else f", gamma {settings.gamma:g}")
