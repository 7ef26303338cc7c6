"""The reproduction: train what tables and figures need and is not there yet, attack, and score.

Everything is kept in one folder: `plan.json` holds the settings and `runs/` the nets. A folder belongs to one plan, and
a call with other settings is refused. Nets are trained and attacked in processes of one thread each.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from nnlite import __version__
from nnlite.backend import to_device
from nnlite.datasets.catalog import load
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, Examples, evaluate_attack, first_of_each_class
from nnlite.evaluation.nets import Nets
from nnlite.grid.jobs import Job, check_fit, group_into_stacks, pending, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.paper.facts import facts, settled
from nnlite.paper.outcomes import OUTCOMES, read_outcomes, write_outcomes
from nnlite.paper.plan import Plan
from nnlite.paper.report import write_report
from nnlite.paper.scores import EXACT, SCORES, Outcomes, ScoreKey, Scores, read_scores
from nnlite.paper.tables import FIGURE_3, ROWS, Model, in_order
from nnlite.paper.targets import NOISES, AttackSpec, attacks_for
from nnlite.storage.files import current, new_file, read_text
from nnlite.storage.formats import expect_format
from nnlite.storage.refusals import RefusedError
from nnlite.storage.texts import parse_json, shown
from nnlite.storage.weights import WEIGHTS
from nnlite.training.run_folder import Record, load_record, load_run

PLAN, RUNS = "plan.json", "runs"
FORMAT = 1  # that of nnlite 0.1.0 as well, which did not say it
Found = TypeVar("Found")
_ATTACK_COST = 3.0  # of one adversary with a dozen victims, in epochs of a plain net


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A folder and its plan."""

    folder: Path
    plan: Plan

    def reserve_folder(self) -> None:
        """Make the folder this plan's own; NnliteError where it is another plan's, or cannot be written."""
        path, runs = self.folder / PLAN, self.folder / RUNS
        if runs.is_symlink():
            raise NnliteError(f"{runs} is a link, and may lead anywhere; choose another --folder")
        try:
            if not path.exists():
                with suppress(FileExistsError), new_file(path, replace=False) as place:  # of a call at the same moment
                    content = {"format": FORMAT, "nnlite": __version__, **self.plan.as_json()}
                    place.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            found = parse_json(read_text(path, 1 << 16))
            if not isinstance(found, dict):
                raise ValueError("it holds no settings")
            expect_format(found.get("format", 1), FORMAT, found.get("nnlite"))
        except RefusedError as error:
            raise RefusedError(f"{path}: {error}") from error
        except (OSError, ValueError) as error:
            raise NnliteError(f"{path}: cannot be written or read ({error}); choose another --folder") from error
        changed = self.plan.differing(found)
        if changed:
            what = ", ".join(f"{name} {shown(found.get(name))}" for name in changed)
            raise NnliteError(f"{self.folder} was made with other settings ({what}); choose another --folder")

    def job(self, model: Model, seed: int, lr: float, gamma: float | None) -> Job:
        """Return the job that trains `model` with these numbers."""
        name = f"{model.slug}-lr{lr:g}" + ("" if gamma is None else f"-gamma{gamma:g}") + f"-seed{seed}"
        return Job(self.folder / RUNS / self.plan.data / name, self.plan.settings(model, seed, lr, gamma))

    def jobs(self, models: Iterable[Model]) -> list[Job]:
        """Return all jobs that `models` need."""
        return [
            self.job(model, seed, lr, gamma)
            for model in models
            for seed in self.plan.seeds
            for lr, gamma in self.plan.candidates(model)
        ]

    def best(self, model: Model) -> list[Record]:
        """Return the records of the runs of `model`, one for each seed.

        They are those at the (lr, gamma) of the best mean validation accuracy. A candidate that diverged before it had
        a net does not count; without any the list is empty.
        """
        tried = []
        for lr, gamma in self.plan.candidates(model):
            paths = [self.job(model, seed, lr, gamma).path for seed in self.plan.seeds]
            if all(current(path).is_dir() for path in paths):
                tried.append([load_record(path) for path in paths])
        return max(tried, key=lambda found: sum(run.results.validation for run in found), default=[])

    def known_scores(self, images: int) -> Scores:
        """Return the scores of an earlier call, except those of nets that were trained again since."""
        correct = self._unchanged(read_outcomes(self.folder, images), OUTCOMES)
        return Scores.of(images, correct, self._unchanged(read_scores(self.folder), SCORES))

    def _unchanged(self, found: dict[ScoreKey, Found], file: str) -> dict[ScoreKey, Found]:
        """Return what `file` says of nets that are older than it."""
        if not found:
            return {}
        written = (self.folder / file).stat().st_mtime_ns

        def is_older(model: Model) -> bool:
            runs = self.best(model)
            return bool(runs) and all((run.path / WEIGHTS).stat().st_mtime_ns < written for run in runs)

        models = {model for adversary, _, victim in found for model in (adversary, victim)}
        same = {model for model in models if is_older(model)}
        return {key: one for key, one in found.items() if key[0] in same and key[2] in same}


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

    Called again after it was stopped, this continues: finished runs and attacks are kept, a net that was under way goes
    on from its checkpoint, and so are the scores of a report.

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
    runs = {model: found for model in ROWS if (found := reproduction.best(model))}
    if not runs:
        raise DivergedError(f"{folder}: every net diverged; try another --lr")
    images = len(load(plan.data).test)
    scores = reproduction.known_scores(images)
    attacks = list(_without(wanted, scores.values))
    advance(_ATTACK_COST * (len(wanted) - len(attacks)) * len(plan.seeds), f"{len(attacks)} attacks are left")
    for correct in carry_out(attacks, runs, processes, lambda: advance(_ATTACK_COST)):
        scores = Scores.of(images, {**scores.correct, **correct}, scores.values)
        write_outcomes(folder, images, scores.correct)
    digits = {model: own_examples(runs[model][0]) for model in FIGURE_3 if model in runs}
    return write_report(scores, folder, facts(plan, command, runs), digits, settled(runs))


def carry_out(
    attacks: Iterable[AttackSpec], runs: Mapping[Model, list[Record]], processes: int, on_attack: Callable[[], None]
) -> Iterator[dict[ScoreKey, Outcomes]]:
    """Carry out the attacks among models that have runs; yield for each the outcomes by adversary, noise and victim.

    The adversary of each seed attacks the victims of the same seed. `on_attack` is called after each seed.
    """
    specs = [one._replace(victims=tuple(victim for victim in one.victims if victim in runs)) for one in attacks]
    places = [(spec, seed) for spec in specs for seed in range(len(runs.get(spec.adversary, ())))]
    tasks = [
        (_outcomes, runs[spec.adversary][seed], spec.noise, [runs[victim][seed] for victim in spec.victims])
        for spec, seed in places
    ]
    found: dict[AttackSpec, dict[int, Outcomes]] = {}
    for index, correct in run_in_pool(tasks, processes=processes):
        spec, seed = places[index]
        seeds = found.setdefault(spec, {})
        seeds[seed] = correct
        on_attack()
        if len(seeds) == len(runs[spec.adversary]):
            of_seeds = np.stack([seeds[seed] for seed in sorted(seeds)], axis=1)  # (victims, seeds, phi, images)
            yield {
                (spec.adversary, spec.noise, victim): one for victim, one in zip(spec.victims, of_seeds, strict=True)
            }


def _outcomes(adversary: Record, noise: str, victims: Sequence[Record]) -> Outcomes:
    """Return which images each victim gets right under the adversary's noise, (victims, phi, images)."""
    settings = adversary.settings
    test = load(settings.data).test.to(settings.device)
    paths = [str(run.path) for run in victims]
    nets = Nets(paths, lambda path: load_run(path).net.to(settings.device))
    crafting = load_run(adversary.path).net.to(settings.device)
    table = evaluate_attack(crafting, nets, test, NOISES[noise], PAPER_PHI)
    return np.stack([table.correct[path] for path in paths])


def own_examples(run: Record) -> Examples:
    """Return the first test image of each class under the run's own R1 noise, with its own predictions as "self"."""
    net = load_run(run.path).net
    return first_of_each_class(net, {"self": net}, load(run.settings.data).test, NOISES[EXACT])


def _without(attacks: Iterable[AttackSpec], known: Mapping[ScoreKey, object]) -> Iterator[AttackSpec]:
    """Yield the attacks without the victims whose score is known, one for each adversary and noise."""
    victims: dict[tuple[Model, str], list[Model]] = {}
    for one in attacks:
        left = [victim for victim in one.victims if (one.adversary, one.noise, victim) not in known]
        victims.setdefault((one.adversary, one.noise), []).extend(left)
    for (adversary, noise), found in victims.items():
        if found:
            yield AttackSpec(adversary, noise, in_order(found))
