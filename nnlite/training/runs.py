"""The runs below a folder: trained, found by their names, and listed.

The checkpoint and the lock of a training in progress are beside the folder of its run. What is no run, or a damaged
one, is named and left as it is.
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nnlite.attacks import NOISES
from nnlite.datasets.catalog import DATASETS
from nnlite.datasets.description import check_same
from nnlite.datasets.samples import Dataset
from nnlite.errors import DivergedError, NnliteError, printable
from nnlite.evaluation.accuracy import PAPER_PHI, accuracy, evaluate_attack
from nnlite.methods import METHODS
from nnlite.storage import kinds
from nnlite.storage.companions import owners
from nnlite.storage.files import current, expect_replaceable, make_folder
from nnlite.storage.interrupts import defer_sigint
from nnlite.storage.locks import lock, remove_abandoned_locks
from nnlite.storage.texts import did_you_mean
from nnlite.training.checkpoint import (
    check_settings,
    checkpoint_of,
    epochs_done,
    read_checkpoint,
    read_checkpoint_settings,
    warn_of_versions,
    write_checkpoint,
)
from nnlite.training.loop import Epoch, TrainingResult, TrainingState, train
from nnlite.training.memory import check_budget, check_memory
from nnlite.training.outcome import advice, went_nowhere
from nnlite.training.run_folder import (
    SETTINGS,
    Record,
    Results,
    Run,
    check_run,
    is_foreign,
    load_record,
    load_run,
    load_settings,
    load_whole,
    write_run,
)
from nnlite.training.settings import Settings

SAVED = "Interrupted after training had ended: the run is saved."

Found = TypeVar("Found", Run, Record)


def make_run(
    settings: Settings,
    data: Dataset,
    runs: Path | str,
    *,
    name: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 1,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_message: Callable[[str], None] = lambda text: None,
) -> Run:
    """Train a net, attack it with its own R1 noise, write its folder below `runs`, and return the run.

    An interrupted training, and one that diverged after its first epoch, is written as well, with the best net so far,
    and so is a net that is no better than a guess; `results.status` says so. NnliteError where the run or a checkpoint
    exists, another process trains it, or nothing can be written; DivergedError or KeyboardInterrupt where no epoch was
    completed, and then nothing is written.

    Arguments:
        settings: all that decides the training; its `data` becomes the name of `data`.
        data: images and labels, on the host.
        runs: the folder of all runs; this one is written to `runs`/<data>/<name>.
        name: the name of the run, or None for `settings.run_name`.
        overwrite: replace a run of the same name.
        resume: go on from the last checkpoint, to the same weights, bit for bit, as without the stop. A run that is
            finished is returned. One of the same settings but for fewer epochs goes on, too: under `name` it becomes
            the longer run, and without a name it is kept beside that.
        checkpoint_every: the epochs from one checkpoint to the next; 0 for no checkpoints.
        on_epoch: called after each epoch.
        on_message: called with a line on what `resume` has found.
    """
    settings = _on(data, settings)
    folder = Path(runs) / settings.data
    path = folder / check_name(name) if name is not None else run_path(folder, settings, settings.method_name)
    check_memory([[settings]], {settings.data: data})
    check_budget(settings, data)
    prepare(path.parent)
    checkpoint = checkpoint_of(path)

    def on_checkpoint(state: TrainingState) -> None:
        if checkpoint_every and state.epoch % checkpoint_every == 0:
            write_checkpoint(checkpoint, settings, state)

    with lock(path):
        start = _start(path, settings, overwrite, resume)
        shorter = _shorter_run(path, settings) if resume and not start and name is None else None
        if shorter:
            start = _state_of(shorter, settings)
        recorded = start.data if isinstance(start, Run) else start and start.trained.data
        if recorded:
            check_same(recorded, data.description, str(shorter or path))
        if isinstance(start, Run):
            on_message(f"{path} is finished: there is nothing to do")
            return start
        if resume:
            kept = f" of {shorter}, which is kept" if shorter else ""
            on_message(
                f"going on after epoch {start.epoch}{kept}" if start else "no checkpoint: beginning with epoch 1"
            )
        trained = train(settings, data, on_epoch, resume_from=start, on_checkpoint=on_checkpoint)
        if trained.best is None and trained.status == "interrupted":
            raise KeyboardInterrupt("Interrupted within the first epoch: nothing was saved.")
        if trained.best is None:
            raise DivergedError(f"epoch 1: the loss is no longer finite; nothing was saved. {advice(settings)}")
        with defer_sigint(SAVED):
            run = write_run(path, settings, trained, evaluate(trained, trained.best, settings, data))
            if trained.status != "interrupted":
                checkpoint.unlink(missing_ok=True)
        return run


def evaluate(trained: TrainingResult, best: Epoch, settings: Settings, data: Dataset) -> Results:
    """Return how a training ended, with the test accuracies of its net, which is on the device of `settings`."""
    test = data.test.to(settings.device)
    failed = trained.status == "finished" and went_nowhere(trained.net, best, data.validation.to(settings.device))
    table = evaluate_attack(trained.net, {"self": trained.net}, test, NOISES["r1"], PAPER_PHI)
    return Results(
        status="failed" if failed else trained.status,
        best_epoch=best.epoch,
        validation=best.validation,
        test=float(accuracy(trained.net, test)),
        phi=table.phi,
        self_attack=tuple(table.accuracy["self"].tolist()),
    )


def find_run(name: str, data: str, runs: Path | str) -> Run:
    """Return the run `name` on `data` below `runs`, or the one in the folder `name`, if that is a path."""
    runs = Path(runs)
    below, anywhere = runs / data / name, Path(name)
    if kinds.FOLDER_NAME.fits(name) and current(below).is_dir():
        return load_run(below)
    if os.path.isfile(current(anywhere) / SETTINGS):  # False for a name too long
        return load_run(anywhere)
    known = [path.name for path in _folders(runs, data) if os.path.exists(current(path) / SETTINGS)]
    hint = f"there are {', '.join(known)}" if known else f"there are none on {data}; train one with nnlite train"
    hint = hint if runs.is_dir() else f"there is no folder {runs}; see --runs, or train one with nnlite train"
    raise NnliteError(f"run: expected the name or path of a run, found {name!r}{did_you_mean(name, known)}; {hint}")


def list_runs(runs: Path | str, data: str | None = None) -> list[Run]:
    """Return all runs below `runs`, or those on `data`, sorted by data, tasks, method, lambda, phi and name.

    Each holds its net; many nets fill the memory, and `list_records` reads none. What is no run, or a damaged one, is
    left out; a warning names each.
    """
    return _sorted(_readable(load_run, _folders(Path(runs), data)))


def list_records(runs: Path | str, data: str | None = None) -> list[Record]:
    """Return the records of what `list_runs` returns, in the same order; the weights are not read."""
    return _sorted(_readable(load_record, _folders(Path(runs), data)))


def whole_records(records: Iterable[Record], read: Run) -> list[Record]:
    """Return those of `records` whose weights can be read, one net at a time; a warning names each other one.

    read: a run that has been read already.
    """

    def record(path: Path) -> Record:
        return read.record if path == read.path else load_run(path).record

    return [*_readable(record, [one.path for one in records])]


def check_runs(runs: Path, data: str | None, on_progress: Callable[[int, int], None]) -> list[tuple[Path, bool, str]]:
    """Read each run folder below `runs`, or on `data`, whole; return its path, whether it is in order, and a remark.

    Folders that are no runs are left out, and named. `on_progress` is called with how many are done, and of how many.
    """
    paths, found = _folders(runs, data), []
    for done, path in enumerate(paths):
        on_progress(done, len(paths))
        if is_foreign(current(path)):
            _skip(f"{path}: no run of nnlite")
            continue
        try:
            found.append((path, True, check_run(path)))
        except NnliteError as error:
            found.append((path, False, str(error)))
    return found


def _readable(load: Callable[[Path], Found], paths: Iterable[Path]) -> Iterator[Found]:
    for path in paths:
        try:
            yield load(path)
        except NnliteError as error:
            _skip(error)


def _skip(error: object) -> None:
    logging.getLogger("nnlite").warning("skipped: %s", printable(str(error)))


def _sorted(found: Iterable[Found]) -> list[Found]:
    order = list(METHODS)
    return sorted(
        found,
        key=lambda run: (
            run.settings.data,
            run.settings.multitask,
            order.index(run.settings.reg),
            run.settings.lam or 0,
            run.settings.phi or 0,
            run.name,
        ),
    )


def list_unfinished(runs: Path, data: str | None = None) -> list[Path]:
    """Return the run folders, below `runs` or on `data`, of all trainings that have a checkpoint."""
    return sorted(path for group in _groups(runs, data) for path in _owners(group, "checkpoint"))


def _folders(runs: Path, data: str | None) -> list[Path]:
    """Return the run folders, including those that are being replaced, or whose process died doing so."""
    found: set[Path] = set()
    for group in _groups(runs, data):
        try:
            found |= {path for path in group.iterdir() if path.name[0] != "." and path.is_dir()}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            _skip(f"{group}: cannot be read ({error.strerror})")
            continue
        found |= {path for path in _owners(group, "old") if current(path) != path}
    return sorted(found)


def _owners(group: Path, kind: str) -> list[Path]:
    try:
        return owners(group, kind)
    except OSError:  # which `_folders` has said
        return []


def _groups(runs: Path, data: str | None) -> list[Path]:
    return [runs / data] if data else sorted(path for path in runs.glob("*") if path.is_dir())


def run_path(folder: Path, settings: Settings, *older: str, name: str | None = None) -> Path:
    """Return the path below `folder` of the run that `settings` make.

    Arguments:
        folder: that of the runs on one data set.
        settings: all that decides the training.
        older: names that earlier versions gave it; one that has a run, or a checkpoint, of these very settings counts.
        name: a name of the user's own, or None for `settings.run_name`.
    """
    own = folder / (name or settings.run_name)
    known = () if own.exists() or checkpoint_of(own).exists() else (folder / name for name in older)
    return next((path for path in known if _settings_of(path) == settings), own)


def _settings_of(path: Path) -> Settings | None:
    """Return the settings of the run `path`, or of its checkpoint; None where neither can be read."""
    for read, place in ((load_settings, path), (read_checkpoint_settings, checkpoint_of(path))):
        with suppress(NnliteError):
            return read(place)
    return None


def _start(path: Path, settings: Settings, overwrite: bool, resume: bool) -> "Run | TrainingState | None":
    """Return where a training starts: at the state of a checkpoint, or at nothing; or the run, if it is finished.

    NnliteError, before any training, where a run or a checkpoint is in the way.
    """
    checkpoint = checkpoint_of(path)
    check_place(path)
    run = load_run(path) if resume and path.exists() else None
    if run and run.settings == settings and run.results.status != "interrupted":
        with suppress(NnliteError):
            if read_checkpoint_settings(checkpoint) == settings:  # and not of more epochs
                checkpoint.unlink()
        return run
    if resume and (checkpoint.exists() or run):
        return _state_of(path, settings)
    if overwrite and is_foreign(path):
        raise NnliteError(f"run: {path} is no run of nnlite, and is not replaced; choose another --name")
    if overwrite:
        checkpoint.unlink(missing_ok=True)
    elif not resume and checkpoint.exists():
        raise NnliteError(
            f"run: {path} was stopped; go on with --resume, or choose another --name (--overwrite drops what is there)"
        )
    elif not resume and path.exists():
        raise NnliteError(f"run: {path} exists; choose another --name (--overwrite replaces it)")
    return None


def _on(data: Dataset, settings: Settings) -> Settings:
    """Return the settings as those of `data`; NnliteError where they, or its name, mean other samples."""
    known = DATASETS.get(data.name)
    if known and known.describe(0).sha256 != data.description.sha256:
        raise NnliteError(f"data: {data.name} is the name of a data set of nnlite, found other samples; name them else")
    if settings.data not in (data.name, Settings.data):
        raise NnliteError(f"data: expected the settings of {data.name}, found those of {settings.data}; give its data")
    return dataclasses.replace(settings, data=data.name)


def _shorter_run(path: Path, settings: Settings) -> Path | None:
    """Return the run beside `path` that came furthest with these settings, but for fewer epochs; None without one."""
    runs, found = path.parents[1], []
    for one in {*_folders(runs, settings.data), *list_unfinished(runs, settings.data)}:
        had = _settings_of(one)
        if had and had.epochs < settings.epochs and replace(had, epochs=settings.epochs) == settings:
            with suppress(NnliteError):  # a damaged one is no place to go on from
                stopped = checkpoint_of(one)
                found.append((epochs_done(stopped)[0] if stopped.exists() else load_record(one).epochs, one))
    return max(found, default=(0, None))[1]


def _state_of(path: Path, settings: Settings) -> TrainingState | None:
    """Return the state from which the training of the run `path`, or of its checkpoint, can go on to `settings`.

    None for a run that was interrupted without a checkpoint. NnliteError where its settings differ in more than fewer
    epochs, where it diverged, and where it was written by a version that kept no last net.
    """
    if checkpoint_of(path).exists():
        return read_checkpoint(checkpoint_of(path), settings)
    run, last, versions = load_whole(path)
    check_settings(path, run.settings, settings)
    if run.results.status == "interrupted":
        return None
    if run.results.status == "diverged":
        raise NnliteError(f"{path} diverged in epoch {len(run.history) + 1}: it has no more epochs. {advice(settings)}")
    if last is None:
        raise NnliteError(
            f"{path} keeps the net of its best epoch, {run.results.best_epoch} of {len(run.history)}, but not that of "
            f"the last, as 0.1.0 wrote it; train all {settings.epochs} epochs without --resume, under another --name"
        )
    warn_of_versions(str(path), versions)
    best = run.history[run.results.best_epoch - 1]
    return TrainingState(TrainingResult(run.net, best, run.history, data=run.data), last)


def check_name(name: str) -> str:
    """Return `name`, or raise NnliteError where no folder can have it."""
    kinds.expect("name", kinds.FOLDER_NAME, name)
    return name


def prepare(folder: Path) -> None:
    """Make the folder of the runs on a data set, and remove the locks that killed processes have left there.

    NnliteError where nothing can be written to it, or it is a link: it may lead anywhere.
    """
    if folder.is_symlink():
        raise NnliteError(f"runs: {folder} is a link, and may lead anywhere; give the folder it leads to as --runs")
    check_writable(folder)
    remove_abandoned_locks(folder)


def check_place(path: Path) -> None:
    """Raise NnliteError where the run `path`, or its checkpoint, could not be written in the end."""
    for one in (checkpoint_of(path), path):
        try:
            expect_replaceable(one)
        except OSError as error:
            raise NnliteError(
                f"run: {one} could not be written in the end ({error.strerror}); choose another --name or --runs"
            ) from error


def check_writable(folder: Path) -> None:
    """Create `folder` if necessary; NnliteError where nothing can be written to it."""
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NnliteError(f"runs: cannot write to {folder} ({error.strerror}); choose another --runs") from error
