"""Trainings: what is there is kept, what is missing is trained, in stacks and by workers."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.grid.pool import Workers, report
from nnlite.storage.files import locks, recover
from nnlite.training.checkpoint import checkpoint_of
from nnlite.training.loop import Trained, train_stack
from nnlite.training.memory import check_memory, largest_stack
from nnlite.training.runs import Results, check_writable, divergence_advice, evaluate, load_run, write_run
from nnlite.training.settings import Settings
from nnlite.training.update import alike


@dataclass(frozen=True)
class Training:
    """One net to train: where its run goes, and with which settings."""

    path: Path
    settings: Settings

    @property
    def cost(self) -> float:
        """Epochs, weighed by what one costs: two passes cost twice, five rotations five times as much."""
        return (1 + len(self.settings.terms)) * (5 if self.settings.multitask else 1) * self.settings.epochs


def missing(trainings: Iterable[Training]) -> list[Training]:
    """Return the trainings that have no finished run; NnliteError where a run was made with other settings."""
    left = []
    for training in trainings:
        if training.path.is_dir():
            run = load_run(training.path)
            if run.settings != training.settings:
                raise NnliteError(
                    f"{training.path} was made with other settings; move it away or choose another folder"
                )
            if run.results.status != "interrupted":
                continue
        left.append(training)
    return left


def in_stacks(trainings: Iterable[Training], size: int | None = None) -> list[list[Training]]:
    """Put at most `size` trainings that are alike together, the longest stacks first, so that no worker is late.

    Without a size: one on a CPU, where processes of one thread are quicker; on a GPU all that fit into its memory.
    """
    groups: dict[tuple[Any, ...], list[Training]] = {}
    for training in trainings:
        groups.setdefault(alike(training.settings), []).append(training)
    stacks = []
    for group in groups.values():
        group.sort(key=lambda training: training.settings.seed)  # few seeds in a stack: each brings its own images
        while group:
            count = size or _usual_size([training.settings for training in group])
            stacks.append(group[:count])
            del group[:count]
    return sorted(stacks, key=lambda stack: -sum(training.cost for training in stack))


def _usual_size(models: Sequence[Settings]) -> int:
    return 1 if models[0].device == "cpu" else largest_stack(models, load(models[0].data))


def check_fit(stacks: Sequence[Sequence[Training]], jobs: int) -> None:
    """Raise NnliteError where `jobs` of the stacks do not fit into this machine's memory at the same time."""
    models = [[training.settings for training in stack] for stack in stacks]
    check_memory(models, {name: load(name) for name in {one.data for stack in models for one in stack}}, jobs)


def train_all(
    stacks: Sequence[Sequence[Training]], by: Workers, on_cost: Callable[[float], None]
) -> Iterator[tuple[Training, str | None]]:
    """Have each stack trained; yield each training when its run is written, with what went wrong or None.

    `on_cost` is told what has been done since it was last told. Stopped, this leaves the finished runs; those under
    way are lost and start again the next time. NnliteError where another process trains one of them.
    """
    trainings = [training for stack in stacks for training in stack]
    for folder in {training.path.parent for training in trainings}:
        check_writable(folder)
    epochs = {training.path: 0 for training in trainings}

    def tell(index: int, what: tuple[int, int]) -> None:
        place, epoch = what
        training = stacks[index][place]
        further = max(0, epoch - epochs[training.path])  # whoever takes over from a dead worker begins again
        epochs[training.path] += further
        on_cost(further * training.cost / training.settings.epochs)

    with locks([training.path for training in trainings]):
        for training in trainings:
            recover(training.path)
        left = {training.path for training in missing(trainings)}  # another call may have finished some
        on_cost(sum(training.cost for training in trainings if training.path not in left))
        stacks = [some for stack in stacks if (some := [training for training in stack if training.path in left])]
        tasks = [(train_models, tuple(training.settings for training in stack)) for stack in stacks]
        for index, outcomes in by(tasks, tell):
            for place, (training, outcome) in enumerate(zip(stacks[index], outcomes, strict=True)):
                failure = _keep(training, *outcome)
                tell(index, (place, training.settings.epochs))  # it may have ended early
                yield training, failure


def train_models(models: Sequence[Settings]) -> list[tuple[Trained, Results | None]]:
    """Train a stack of `models` and evaluate each net; on the host, without results where there is no net.

    This is a task: it needs nothing but its settings and the data set, and reports (place, epoch).
    """
    data = {one.seed: load(one.data, one.seed) for one in models}
    check_memory([models], {models[0].data: data[models[0].seed]})
    outcomes = []
    trained = train_stack(models, data, lambda place, epoch: report((place, epoch.epoch)))
    for settings, one in zip(models, trained, strict=True):
        results = evaluate(one, one.best, settings, data[settings.seed]) if one.best else None
        outcomes.append((dataclasses.replace(one, net=one.net.to("cpu")), results))
    return outcomes


def _keep(training: Training, trained: Trained, results: Results | None) -> str | None:
    """Write the run, and return what went wrong in its training, or None."""
    name = training.path.name
    if results is None:
        return f"{name}: diverged in epoch 1; nothing was saved. {divergence_advice(training.settings)}"
    write_run(training.path, training.settings, trained, results)
    checkpoint_of(training.path).unlink(missing_ok=True)  # of nnlite train, stopped before
    if results.status == "diverged":
        return f"{name}: diverged after epoch {len(trained.history)}; its net of epoch {results.best_epoch} is used"
    return None
