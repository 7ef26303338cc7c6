"""The run folder: weights, settings, history and results of one training, as files anyone can read.

    runs/<data>/<name>/weights.safetensors    the arrays, C-contiguous
                       settings.json          the settings, the data and the environment that it was trained in
                       history.csv            one line for each epoch
                       results.json           how it ended, and its accuracies
                       last.safetensors       the net of the last epoch, for more of them; only where another is best
                       SHA256SUMS             the SHA-256 of each of these, as sha256sum prints and checks them

A folder is written under another name and then takes its own, so there is never a half-written run. Reading one changes
nothing.
"""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnlite.backend import brief
from nnlite.datasets.description import Description
from nnlite.datasets.loading import read_record
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.network import Network
from nnlite.storage import kinds
from nnlite.storage.files import current, expect_readable, new_folder, read_file, read_text, undisturbed
from nnlite.storage.formats import expect_format
from nnlite.storage.refusals import RefusedError
from nnlite.storage.rows import Rows
from nnlite.storage.sums import SUMS, check_sums, write_sums
from nnlite.storage.tensors import ArrayFile, check_layout, open_arrays, write_arrays
from nnlite.storage.texts import parse_json
from nnlite.storage.weights import WEIGHTS, named_arrays, net_layout, read_net
from nnlite.training.checkpoint import read_history
from nnlite.training.loop import Epoch, TrainingResult
from nnlite.training.outcome import STATUSES
from nnlite.training.settings import Settings, read_settings

SETTINGS, HISTORY, RESULTS, LAST = "settings.json", "history.csv", "results.json", "last.safetensors"
FILES = (SETTINGS, HISTORY, RESULTS, WEIGHTS)  # that each run has
FORMAT = 2  # the first, of nnlite 0.1.0, has no SHA256SUMS, and does not say its number
# The largest size of each that is read, in bytes: more than the longest settings and the most epochs take.
LIMITS = {SETTINGS: 1 << 20, HISTORY: 1 << 23, RESULTS: 1 << 18}


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

    @property
    def record(self) -> "Record":
        """What a list of runs says of it, without the net."""
        return Record(self.path, self.settings, len(self.history), self.results, self.data)


@dataclass(frozen=True)
class Record:
    """What a list of runs says of one: no weights are read for it; epochs is how many were completed."""

    path: Path
    settings: Settings
    epochs: int
    results: Results
    data: Description

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.path.name


def load_run(path: Path | str) -> Run:
    """Return the run in the folder `path`; NnliteError says what is missing, damaged or inconsistent.

    All its files are of one training, even if another process replaces the run at that moment, and have the checksums
    that were written with them.
    """
    return undisturbed(Path(path), lambda folder: _read_run(Path(path), folder)[0])


def load_record(path: Path) -> Record:
    """Return the record of the run in the folder `path`, as `load_run` does; of its weights only the header is read."""
    return undisturbed(path, lambda folder: _read_record(path, folder))


def load_whole(path: Path) -> tuple[Run, Network | None, dict[str, Any]]:
    """Return the run, the net of its last epoch where it is kept, and the versions that it was trained with."""
    return undisturbed(path, lambda folder: _read_whole(path, folder))


def check_run(path: Path) -> str:
    """Return what is to be said of a run that is whole, mostly nothing; NnliteError where it is damaged."""
    load_whole(path)
    return "" if (current(path) / SUMS).exists() else f"whole, as far as can be seen without {SUMS}, which 0.1.0 lacked"


def load_settings(path: Path) -> Settings:
    """Return the settings of the run in the folder `path`, whatever else is wrong there; NnliteError."""
    with _damage(path, current(path)):
        return read_settings(parse_json(read_text(current(path) / SETTINGS, LIMITS[SETTINGS]))["settings"])


class _Files(NamedTuple):
    """The files of a run, its texts as the bytes that were read, and what is needed to read the others."""

    content: dict[str, bytes]
    written: Any  # what settings.json holds
    settings: Settings
    data: Description
    weights: ArrayFile

    def text(self, name: str) -> str:
        """Return one of the texts."""
        return self.content[name].decode("utf-8-sig")


def _read_run(path: Path, folder: Path) -> tuple[Run, _Files]:
    with _damage(path, folder):
        files = _read_files(folder)
        rows = Rows(io.StringIO(files.text(HISTORY)))
        if tuple(next(rows, ())) != Epoch._fields:
            raise ValueError(f"{HISTORY} holds other columns than {', '.join(Epoch._fields)}")
        history = read_history(rows, files.settings)
        results = _results(parse_json(files.text(RESULTS)), len(history))
        net = read_net(files.weights, files.settings.sizes(files.data), files.settings.heads)
        _check_sums(folder, files, FILES)
        return Run(path, files.settings, history, results, net, files.data), files


def _read_whole(path: Path, folder: Path) -> tuple[Run, Network | None, dict[str, Any]]:
    run, files = _read_run(path, folder)
    with _damage(path, folder):
        versions = files.written["versions"]
        kinds.expect("versions", kinds.Kind("an object", lambda value: isinstance(value, dict)), versions)
        if run.results.best_epoch == len(run.history):
            return run, run.net, versions
        if not (folder / LAST).exists():
            return run, None, versions
        last = read_net(open_arrays(folder / LAST), run.settings.sizes(run.data), run.settings.heads)
        _check_sums(folder, files, [LAST])
        return run, last, versions


def _read_record(path: Path, folder: Path) -> Record:
    with _damage(path, folder):
        files = _read_files(folder)
        check_layout(files.weights.layout, net_layout(files.settings.sizes(files.data), files.settings.heads))
        epochs = files.text(HISTORY).count("\n") - 1
        results = _results(parse_json(files.text(RESULTS)), epochs)
        _check_sums(folder, files, LIMITS)
        return Record(path, files.settings, epochs, results, files.data)


def _read_files(folder: Path) -> _Files:
    """Return the texts of a run, its settings and data, its weights unread."""
    if not folder.name.isprintable():
        raise ValueError("its name holds control characters")
    found = {*os.listdir(folder)}
    for name in FILES:
        if name not in found:
            raise ValueError(f"{name} is missing")
    content = {name: read_file(folder / name, limit) for name, limit in LIMITS.items()}
    written = parse_json(content[SETTINGS].decode("utf-8-sig"))
    expect_format(written.get("format", 1), FORMAT, written.get("versions", {}).get("nnlite"))
    settings = read_settings(written["settings"])
    return _Files(content, written, settings, read_record(written, settings.data), open_arrays(folder / WEIGHTS))


def _check_sums(folder: Path, files: _Files, names: Iterable[str]) -> None:
    """Raise ValueError where one of the files `names`, read before, is another than when the run was written."""
    if files.written.get("format", 1) > 1:
        check_sums(folder, names, files.content)


@contextmanager
def _damage(path: Path, folder: Path) -> Iterator[None]:
    """Turn any error in reading the run `path` into one that says what is wrong with it.

    YOLO, TensorBoard and MLflow call their folders `runs`, too: what has none of our files is not called damaged.
    """
    try:
        yield
    except RefusedError as error:
        raise RefusedError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        expect_readable(path, error)
        if is_foreign(folder):
            raise NnliteError(f"{path}: no run of nnlite, it holds none of {', '.join(FILES)}") from error
        what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise NnliteError(
            f"{path}: the run folder is damaged ({what}); copy it again as a whole, or move it away and train it again"
        ) from error


def is_foreign(path: Path) -> bool:
    """Return whether `path` is a folder that holds none of the files of a run; False where that cannot be seen."""
    try:
        return not {*FILES} & {*os.listdir(path)}
    except OSError:
        return False


def write_run(path: Path, settings: Settings, trained: TrainingResult, results: Results) -> Run:
    """Write the run folder `path` completely or not at all, and return the run; NnliteError where that fails.

    The caller holds the `lock` of the run.
    """
    if trained.data is None:
        raise NnliteError(f"{path}: expected the result of a training on a Dataset, found one without its data")
    run = Run(path, settings, trained.history, results, trained.net, trained.data)
    records = {"settings": dataclasses.asdict(settings), "data": dataclasses.asdict(run.data)}
    try:
        with new_folder(path) as place:
            write_arrays(place / WEIGHTS, named_arrays(run.net))
            if trained.last and results.best_epoch < len(trained.history):
                write_arrays(place / LAST, named_arrays(trained.last))
            _write_json(place / SETTINGS, {"format": FORMAT, **records, "versions": trained.environment})
            _write_json(place / RESULTS, dataclasses.asdict(results))
            with (place / HISTORY).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([Epoch._fields, *run.history])
            write_sums(place)
    except OSError as error:
        raise NnliteError(f"{path}: cannot write the run ({error.strerror}); choose another --runs") from error
    return run


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


_PERCENT = kinds.number(0, 100)
_RESULTS = {
    "status": kinds.one_of(STATUSES),
    "validation": _PERCENT,
    "test": _PERCENT,
    "phi": kinds.Kind(f"the paper's {[*PAPER_PHI]}", lambda value: value == [*PAPER_PHI]),
    "self_attack": kinds.sequence(_PERCENT, len(PAPER_PHI), len(PAPER_PHI)),
}


def _results(content: Any, epochs: int) -> Results:
    """Return the Results that a JSON object holds, as `evaluate` makes them; NnliteError names what is wrong."""
    values = kinds.expect_object(RESULTS, {**_RESULTS, "best_epoch": kinds.integer(1, epochs)}, content)
    return Results(**{**values, "phi": PAPER_PHI, "self_attack": tuple(values["self_attack"])})
