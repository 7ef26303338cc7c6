"""Jobs: the nets of a grid. Those that have a finished run are kept; the others are trained, in stacks.

A job that was stopped goes on from its checkpoint.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlite.datasets.description import Description, check_same
from nnlite.datasets.loading import load
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.grid.checkpoints import StackCheckpoints
from nnlite.grid.pool import Executor, report_progress
from nnlite.storage.files import current, recover
from nnlite.storage.interrupts import defer_sigint
from nnlite.storage.locks import locks
from nnlite.training.checkpoint import check_settings, checkpoint_of, epochs_done, read_checkpoint_settings
from nnlite.training.loop import TrainingResult, train_stack
from nnlite.training.memory import check_budget, check_memory, largest_stack
from nnlite.training.outcome import advice
from nnlite.training.run_folder import Results, load_run, write_run
from nnlite.training.runs import SAVED, check_place, evaluate, prepare
from nnlite.training.settings import Settings
from nnlite.training.update import stack_key


@dataclass(frozen=True)
class Job:
    """One net to train: the path of its run, its settings, and the path of the data, "" for those of the catalogue."""

    path: Path
    settings: Settings
    source: str = ""

    @property
    def checkpoint(self) -> Path:
        """The path of its checkpoint, whether or not there is one."""
        return checkpoint_of(self.path)

    @property
    def cost(self) -> float:
        """The cost in epochs of a plain net: a term of Eq. 1 adds a pass, and rotations cost five times as much."""
        return (1 + len(self.settings.terms)) * (5 if self.settings.multitask else 1) * self.settings.epochs


def pending(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs without a finished run.

    NnliteError where a run was made with other settings or data, or a checkpoint is damaged or of other settings.
    """
    known: dict[tuple[Any, ...], Description] = {}
    found = []
    for job in jobs:
        if current(job.path).is_dir():
            run = load_run(job.path)
            if run.settings != job.settings:
                raise NnliteError(f"{job.path} was made with other settings; choose another folder, or move it away")
            if job.source:
                key = job.source, job.settings.seed, job.settings.label, job.settings.split
                if key not in known:
                    known[key] = load_data(job.settings, job.source).description
                check_same(run.data, known[key], str(job.path))
            if run.results.status != "interrupted":
                continue
        if job.checkpoint.exists():
            check_settings(job.checkpoint, read_checkpoint_settings(job.checkpoint), job.settings)
        found.append(job)
    return found


def group_into_stacks(jobs: Iterable[Job], size: int | None = None) -> list[list[Job]]:
    """Return the jobs in stacks that can be trained side by side, the most expensive stack first.

    size: how many jobs a stack holds at most. By default 1 on a CPU, where processes of one thread are faster, and on
    a GPU as many as fit into its memory.
    """
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault((stack_key(job.settings), job.source), []).append(job)
    stacks = []
    for group in groups.values():
        group.sort(key=lambda job: job.settings.seed)  # few seeds in a stack: each seed has images of its own
        while group:
            count = size or _default_size(group)
            stacks.append(group[:count])
            del group[:count]
    return sorted(stacks, key=lambda stack: -sum(job.cost for job in stack))


def _default_size(jobs: Sequence[Job]) -> int:
    models = [job.settings for job in jobs]
    return 1 if models[0].device == "cpu" else largest_stack(models, load_data(models[0], jobs[0].source))


def load_data(settings: Settings, source: str = "") -> Dataset:
    """Return the data set of these settings, from the path `source` where it is the user's own."""
    return load(source or settings.data, settings.seed, label=settings.label, split=settings.split)


def check_fit(stacks: Sequence[Sequence[Job]], processes: int) -> None:
    """Raise NnliteError unless the largest `processes` of the stacks fit into this machine's memory together."""
    models = [[job.settings for job in stack] for stack in stacks]
    first = {job.settings.data: job for stack in stacks for job in stack}
    data = {name: load_data(job.settings, job.source) for name, job in first.items()}
    check_memory(models, data, processes)
    for stack in stacks:
        check_budget(stack[0].settings, data[stack[0].settings.data])


def train_jobs(
    stacks: Sequence[Sequence[Job]], executor: Executor, on_cost: Callable[[float], None], *, shared_disk: bool = True
) -> Iterator[tuple[Job, str | None]]:
    """Train each stack, and yield each job when its run is written, with a sentence on what went wrong or None.

    Stopped, this keeps the finished runs, and those under way go on from their checkpoints the next time, to the same
    bits. NnliteError where another process trains one of them.

    Arguments:
        stacks: as from `group_into_stacks`; one whose nets were stopped at different epochs is divided.
        executor: runs the tasks, one per stack.
        on_cost: is called with the cost of what was done since its last call, in the unit of `Job.cost`.
        shared_disk: whether the tasks see the files of this machine; without that there are no checkpoints.
    """
    jobs = [job for stack in stacks for job in stack]
    for folder in {job.path.parent for job in jobs}:
        prepare(folder)
    epochs = {job.path: 0 for job in jobs}

    def advance(index: int, progress: tuple[int, int]) -> None:
        place, epoch = progress
        job = stacks[index][place]
        new = max(0, epoch - epochs[job.path])  # where a worker dies, another one starts again at epoch 1
        epochs[job.path] += new
        on_cost(new * job.cost / job.settings.epochs)

    with locks([job.path for job in jobs]) as held:
        for job in jobs:
            recover(job.path)
            recover(job.checkpoint)
        left = {job.path for job in pending(jobs)}  # another call may have finished some
        for path in left:
            check_place(path)
        on_cost(sum(job.cost for job in jobs if job.path not in left))
        stacks = [part for stack in stacks for part in _by_epoch(job for job in stack if job.path in left)]
        tasks = [
            (
                train_and_evaluate,
                tuple(job.settings for job in stack),
                stack[0].source,
                tuple(job.checkpoint for job in stack) if shared_disk else (),
            )
            for stack in stacks
        ]
        for index, outcomes in executor(tasks, advance):
            for place, (job, outcome) in enumerate(zip(stacks[index], outcomes, strict=True)):
                failure = _write(job, *outcome)
                held[job.path].close()  # so that a kill leaves the locks of those alone that are trained again
                advance(index, (place, job.settings.epochs))  # it may have ended early
                yield job, failure


def _by_epoch(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the jobs of a stack in parts that can go on side by side: each of the same completed epochs."""
    parts: dict[int, list[Job]] = {}
    for job in jobs:
        done = epochs_done(job.checkpoint)[0] if job.checkpoint.exists() else 0
        parts.setdefault(done, []).append(job)
    return list(parts.values())


def train_and_evaluate(
    models: Sequence[Settings], source: str = "", checkpoints: Sequence[Path] = ()
) -> list[tuple[TrainingResult, Results | None]]:
    """Return the trained nets of a stack, on the host, and their results, None for a net that diverged at once.

    As a task it needs nothing but its settings and the data set, and reports (place in the stack, epoch).

    Arguments:
        models: the settings of the nets.
        source: the path of the data, "" for those of the catalogue.
        checkpoints: where the training is kept while it goes on, for each of `models`; none where it is not kept.
    """
    data = {one.seed: load_data(one, source) for one in models}
    check_memory([models], {models[0].data: data[models[0].seed]})
    outcomes = []
    kept = StackCheckpoints(checkpoints, models) if checkpoints else None
    trained = train_stack(
        models,
        data,
        lambda place, epoch: report_progress((place, epoch.epoch)),
        resume_from=kept.read(data) if kept else (),
        on_checkpoint=kept.write if kept else lambda states: None,
    )
    for settings, one in zip(models, trained, strict=True):
        results = evaluate(one, one.best, settings, data[settings.seed]) if one.best else None
        host = dataclasses.replace(one, net=one.net.to("cpu"), last=one.last and one.last.to("cpu"))
        outcomes.append((host, results))
    return outcomes


def _write(job: Job, trained: TrainingResult, results: Results | None) -> str | None:
    """Write the run, and return what went wrong in its training, or None."""
    name = job.path.name
    if results is None:
        return f"{name}: diverged in epoch 1; nothing was saved. {advice(job.settings)}"
    with defer_sigint(SAVED):
        write_run(job.path, job.settings, trained, results)
    job.checkpoint.unlink(missing_ok=True)
    if results.status == "diverged":
        return f"{name}: diverged after epoch {len(trained.history)}; its net of epoch {results.best_epoch} is used"
    if results.status == "failed":
        return f"{name}: no better than a guess, validation {results.validation:.2f} %. {advice(job.settings)}"
    return None
