"""The run folder: weights, settings, history and results of one training, as files anyone can read.

    runs/<data>/<name>/weights.safetensors    the arrays, C-contiguous
                       settings.json          the settings, the data and the environment that it was trained in
                       history.csv            one line for each epoch
                       results.json           how it ended, and its accuracies
                       last.safetensors       the net of the last epoch, for more of them; only where another is best

A folder is written under another name and then renamed, so there is never a half-written run. The checkpoint and the
lock of a training in progress are beside it.
"""

import csv
import dataclasses
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nnlite.attacks import NOISES
from nnlite.backend import brief
from nnlite.datasets.catalog import DATASETS
from nnlite.datasets.description import Description, check_same
from nnlite.datasets.loading import read_record
from nnlite.datasets.samples import Dataset
from nnlite.errors import DivergedError, NnliteError, printable
from nnlite.evaluation.accuracy import PAPER_PHI, accuracy, evaluate_attack
from nnlite.methods import METHODS
from nnlite.network import Network
from nnlite.storage import kinds
from nnlite.storage.files import identity, new_folder, read_text, recover
from nnlite.storage.interrupts import defer_sigint
from nnlite.storage.locks import lock, recover_if_abandoned
from nnlite.storage.tensors import ArrayFile, check_layout, open_arrays, write_arrays
from nnlite.storage.texts import did_you_mean, parse_json
from nnlite.storage.weights import WEIGHTS, named_arrays, net_layout, read_net
from nnlite.training.checkpoint import (
    check_settings,
    checkpoint_of,
    epochs_done,
    read_checkpoint,
    read_checkpoint_settings,
    read_history,
    warn_of_versions,
    write_checkpoint,
)
from nnlite.training.loop import Epoch, TrainingResult, TrainingState, train
from nnlite.training.outcome import STATUSES, advice, went_nowhere
from nnlite.training.settings import Settings, read_settings

SETTINGS, HISTORY, RESULTS, LAST = "settings.json", "history.csv", "results.json", "last.safetensors"
# The largest size of each that is read, in bytes: more than the longest settings and the most epochs take.
LIMITS = {SETTINGS: 1 << 23, HISTORY: 1 << 23, RESULTS: 1 << 18}
SAVED = "Interrupted after training had ended: the run is saved."


@dataclass(frozen=True)
class Results:
    """How a training ended: its best epoch, and accuracies in percent; self_attack holds one under R1 for each phi."""

    status: str
    best_epoch: int
    validation: float
    test: float
    phi: tuple[float, ...]
    self_attack: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """A trained net with all that is known about it; `path` is its folder."""

    path: Path
    settings: Settings
    history: list[Epoch]
    results: Results
    net: Network
    data: Description
    __repr__ = brief("name", "net", "results", "path")

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.path.name


@dataclass(frozen=True)
class Record:
    """What a list of runs says of one: no weights are read for it; epochs is how many were completed."""

    path: Path
    settings: Settings
    epochs: int
    results: Results

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.path.name


Found = TypeVar("Found", Run, Record)
Read = TypeVar("Read")


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
    check_writable(path.parent)
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
            run = _write(path, settings, trained, evaluate(trained, trained.best, settings, data))
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


def write_run(path: Path, settings: Settings, trained: TrainingResult, results: Results) -> Run:
    """Write the run folder `path` completely or not at all, and return the run; NnliteError where that fails.

    The caller holds the `lock` of the run.
    """
    with defer_sigint(SAVED):
        return _write(path, settings, trained, results)


def load_run(path: Path | str) -> Run:
    """Return the run in the folder `path`; NnliteError says what is missing, damaged or inconsistent.

    All its files are of one training, even if another process replaces the run at that moment.
    """
    return _undisturbed(Path(path), _read_run)


def load_record(path: Path) -> Record:
    """Return the record of the run in the folder `path`, as `load_run` does; of its weights only the header is read."""
    return _undisturbed(path, _read_record)


def _undisturbed(path: Path, read: Callable[[Path], Read]) -> Read:
    """Return what `read` finds in `path` while no process replaces it; NnliteError."""
    for attempt in range(100):
        recover_if_abandoned(path)
        seen = identity(path)
        found: Read | NnliteError
        try:
            found = read(path)
        except NnliteError as error:
            found = error
        if seen == identity(path) and (seen or attempt):
            break
        time.sleep(0.01)  # it was replaced meanwhile, and for a moment there is no folder
    if isinstance(found, NnliteError):
        raise found
    return found


def _read_run(path: Path) -> Run:
    with _damage(path):
        text, settings, data, weights = _read_files(path)
        rows = csv.reader(io.StringIO(text[HISTORY]))
        if tuple(next(rows, ())) != Epoch._fields:
            raise ValueError(f"{HISTORY} holds other columns than {', '.join(Epoch._fields)}")
        history = read_history(rows, settings)
        results = _results(parse_json(text[RESULTS]), len(history))
        return Run(path, settings, history, results, read_net(weights, settings.sizes(data), settings.heads), data)


def _read_whole(path: Path) -> tuple[Run, Network | None, dict[str, Any]]:
    """Return the run, the net of its last epoch where it is kept, and the versions that it was trained with."""
    run = _read_run(path)
    with _damage(path):
        versions = read_versions(path)
        if run.results.best_epoch == len(run.history):
            return run, run.net, versions
        if not (path / LAST).exists():
            return run, None, versions
        return run, read_net(open_arrays(path / LAST), run.settings.sizes(run.data), run.settings.heads), versions


def read_versions(path: Path) -> dict[str, Any]:
    """Return the versions of what the run in the folder `path` was trained with; NnliteError where it is damaged."""
    with _damage(path):
        versions = parse_json(read_text(path / SETTINGS, LIMITS[SETTINGS]))["versions"]
        kinds.expect("versions", kinds.Kind("an object", lambda value: isinstance(value, dict)), versions)
        return versions


def _read_record(path: Path) -> Record:
    with _damage(path):
        text, settings, data, weights = _read_files(path)
        check_layout(weights.layout, net_layout(settings.sizes(data), settings.heads))
        epochs = text[HISTORY].count("\n") - 1
        return Record(path, settings, epochs, _results(parse_json(text[RESULTS]), epochs))


def _read_files(path: Path) -> tuple[dict[str, str], Settings, Description, ArrayFile]:
    """Return the texts of the run `path` by the names of their files, its settings and data, its weights unread."""
    if not path.name.isprintable():
        raise ValueError("its name holds control characters")
    found = {*os.listdir(path)}
    for name in (*LIMITS, WEIGHTS):
        if name not in found:
            raise ValueError(f"{name} is missing")
    text = {name: read_text(path / name, limit) for name, limit in LIMITS.items()}
    content = parse_json(text[SETTINGS])
    settings = read_settings(content["settings"])
    return text, settings, read_record(content, settings.data), open_arrays(path / WEIGHTS)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn any error in reading the run `path` into one that says what is wrong with it.

    YOLO, TensorBoard and MLflow call their folders `runs`, too: what has none of our files is not called damaged.
    """
    try:
        yield
    except PermissionError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); it belongs to another user") from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        if _is_foreign(path):
            raise NnliteError(f"{path}: no run of nnlite, it holds none of {', '.join((*LIMITS, WEIGHTS))}") from error
        what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise NnliteError(
            f"{path}: the run folder is damaged ({what}); copy it again as a whole, or move it away and train it again"
        ) from error


def _is_foreign(path: Path) -> bool:
    """Return whether `path` is a folder that holds none of the files of a run."""
    return path.is_dir() and not any((path / name).exists() for name in (*LIMITS, WEIGHTS))


def find_run(name: str, data: str, runs: Path | str) -> Run:
    """Return the run `name` on `data` below `runs`, or the one in the folder `name`, if that is a path."""
    runs = Path(runs)
    below, anywhere = runs / data / name, Path(name)
    recover_if_abandoned(below)
    recover_if_abandoned(anywhere)
    if kinds.FOLDER_NAME.fits(name) and below.is_dir():
        return load_run(below)
    if os.path.isfile(anywhere / SETTINGS):  # False, where Path.is_file would raise, for a name that is too long
        return load_run(anywhere)
    known = [path.name for path in _folders(runs, data) if (path / SETTINGS).exists()]
    hint = f"there are {', '.join(known)}" if known else f"there are none on {data}; train one with nnlite train"
    hint = hint if runs.is_dir() else f"there is no folder {runs}; see --runs, or train one with nnlite train"
    raise NnliteError(f"run: expected the name or path of a run, found {name!r}{did_you_mean(name, known)}; {hint}")


def list_runs(runs: Path | str, data: str | None = None) -> list[Run]:
    """Return all runs below `runs`, or those on `data`, sorted by data, tasks, method, lambda, phi and name.

    What is no run, or a damaged one, is left out; a warning names each.
    """
    return _sorted(_readable(load_run, Path(runs), data))


def list_records(runs: Path | str, data: str | None = None) -> list[Record]:
    """Return the records of what `list_runs` returns, in the same order."""
    return _sorted(_readable(load_record, Path(runs), data))


def _readable(load: Callable[[Path], Found], runs: Path, data: str | None) -> Iterator[Found]:
    for path in _folders(runs, data):
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
    found = [path for group in _groups(runs, data) for path in group.glob(".*.checkpoint")]
    return sorted(path.with_name(path.name[1:].removesuffix(".checkpoint")) for path in found)


def _folders(runs: Path, data: str | None) -> list[Path]:
    """Return the run folders, including those that a process died replacing."""
    found = set()
    for group in _groups(runs, data):
        try:
            inside = [*group.iterdir()] if group.is_dir() else []
        except OSError as error:
            _skip(f"{group}: cannot be read ({error.strerror})")
            continue
        for path in inside:
            if path.name[0] == "." and path.suffix == ".old":
                path = path.with_name(path.stem[1:])
                recover_if_abandoned(path)
            if path.name[0] != "." and path.is_dir():
                found.add(path)
    return sorted(found)


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
    recover_if_abandoned(path)
    with suppress(NnliteError, OSError, ValueError, LookupError, TypeError):
        return read_settings(parse_json(read_text(path / SETTINGS, LIMITS[SETTINGS]))["settings"])
    with suppress(NnliteError):
        return read_checkpoint_settings(checkpoint_of(path))
    return None


def _start(path: Path, settings: Settings, overwrite: bool, resume: bool) -> "Run | TrainingState | None":
    """Return where a training starts: at the state of a checkpoint, or at nothing; or the run, if it is finished.

    NnliteError, before any training, where a run or a checkpoint is in the way.
    """
    checkpoint = checkpoint_of(path)
    recover(path)
    recover(checkpoint)
    run = load_run(path) if resume and path.exists() else None
    if run and run.settings == settings and run.results.status != "interrupted":
        with suppress(NnliteError):
            if read_checkpoint_settings(checkpoint) == settings:  # and not of more epochs
                checkpoint.unlink()
        return run
    if resume and (checkpoint.exists() or run):
        return _state_of(path, settings)
    if overwrite and _is_foreign(path):
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
    run, last, versions = _undisturbed(path, _read_whole)
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


def check_writable(folder: Path) -> None:
    """Create `folder` if necessary; NnliteError where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NnliteError(f"runs: cannot write to {folder} ({error.strerror}); choose another --runs") from error


def _write(path: Path, settings: Settings, trained: TrainingResult, results: Results) -> Run:
    """Write the folder beside its place, and move it in."""
    if trained.data is None:
        raise NnliteError(f"{path}: expected the result of a training on a Dataset, found one without its data")
    run = Run(path, settings, trained.history, results, trained.net, trained.data)
    try:
        with new_folder(path) as place:
            write_arrays(place / WEIGHTS, named_arrays(run.net))
            if trained.last and results.best_epoch < len(trained.history):
                write_arrays(place / LAST, named_arrays(trained.last))
            records = {"settings": dataclasses.asdict(settings), "data": dataclasses.asdict(run.data)}
            _write_json(place / SETTINGS, {**records, "versions": trained.environment})
            _write_json(place / RESULTS, dataclasses.asdict(results))
            with (place / HISTORY).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([Epoch._fields, *run.history])
    except OSError as error:
        raise NnliteError(f"{path}: cannot write the run ({error.strerror}); choose another --runs") from error
    return run


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _results(content: Any, epochs: int) -> Results:
    """Return the Results that a JSON object holds, as `evaluate` makes them; NnliteError names what is wrong."""
    percent = kinds.number(0, 100)
    values = kinds.expect_object(
        RESULTS,
        {
            "status": kinds.one_of(STATUSES),
            "best_epoch": kinds.integer(1, epochs),
            "validation": percent,
            "test": percent,
            "phi": kinds.Kind(f"the paper's {[*PAPER_PHI]}", lambda value: value == [*PAPER_PHI]),
            "self_attack": kinds.sequence(percent, len(PAPER_PHI), len(PAPER_PHI)),
        },
        content,
    )
    return Results(**{**values, "phi": PAPER_PHI, "self_attack": tuple(values["self_attack"])})
