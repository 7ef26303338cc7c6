"""The run folder: weights, settings, history and results of one training, as files anyone can read.

    runs/<data>/<name>/weights.safetensors    the arrays, C-contiguous
                       settings.json          what was asked for, and the versions that did it
                       history.csv            one line for each epoch
                       results.json           how it ended, and its accuracies

A folder is written beside its place and renamed into it, so a half-written run never stands there.
"""

import csv
import dataclasses
import json
import os
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from nnlite import __version__
from nnlite.attacks import NOISES
from nnlite.backend import Array, to_host
from nnlite.datasets import Dataset
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation import PAPER_PHI, accuracy, attack
from nnlite.layers import Dense, Layer, ReLU
from nnlite.methods import METHODS
from nnlite.network import Network
from nnlite.rotation import ANGLES, ROTATION
from nnlite.settings import Settings
from nnlite.training import Epoch, Trained, train

WEIGHTS, SETTINGS, HISTORY, RESULTS = "weights.safetensors", "settings.json", "history.csv", "results.json"
# Runs of version 0.1 lack them. Their defaults are what those runs did.
LATER_SETTINGS = {"alpha", "p", "term", "gradient"}


@dataclass(frozen=True)
class Results:
    """How a training ended: its best epoch, and accuracies in percent; self_attack is R1, one for each phi."""

    status: str
    best_epoch: int
    validation: float
    test: float
    phi: tuple[float, ...]
    self_attack: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """A trained net with all that is known of it; `path` is its folder."""

    path: Path
    settings: Settings
    history: list[Epoch]
    results: Results
    net: Network

    @property
    def name(self) -> str:
        """The name of the run, that of its folder."""
        return self.path.name


def make_run(
    settings: Settings,
    data: Dataset,
    runs: Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """Train a net, attack it with its own R1 noise, write its folder below `runs`, and return the run.

    An interrupted training, and one that diverged after its first epoch, is written too, with its best
    net so far; `results.status` says so. Raises NnliteError where the run exists or its folder cannot be
    written; DivergedError or KeyboardInterrupt where no epoch was completed, and then writes nothing.
    """
    path = _claim(runs, settings, name, overwrite)
    trained = train(settings, data, on_epoch)
    if trained.best is None:
        if trained.status == "interrupted":
            raise KeyboardInterrupt("Interrupted within the first epoch: nothing was saved.")
        raise DivergedError(f"epoch 1: the loss is no longer finite; nothing was saved. {divergence_advice(settings)}")
    with _no_interruption():
        results = _evaluate(trained, trained.best, data, settings.device)
        run = Run(path, settings, trained.history, results, trained.net)
        _write(run)
    return run


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Hold Ctrl-C back until what was trained is written; only the main thread hears it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt("Interrupted after training had ended: the run is saved.")


def divergence_advice(settings: Settings) -> str:
    """Say what to try when the loss of a training is no longer finite."""
    advice = f"Try a smaller learning rate, such as --lr {settings.lr / 10:g}"
    if settings.lam is not None and settings.phi is not None and settings.lam > settings.phi:
        advice += ", or a lambda below phi: the clean gradient has a negative weight here"
    return advice


def load_run(path: Path) -> Run:
    """Read the run folder `path`; NnliteError says what is missing, damaged or does not fit together."""
    try:
        settings = _settings(json.loads((path / SETTINGS).read_text("utf-8"))["settings"])
        results = _results(json.loads((path / RESULTS).read_text("utf-8")))
        with (path / HISTORY).open(encoding="utf-8", newline="") as file:
            history = [
                Epoch(int(row["epoch"]), float(row["loss"]), float(row["validation"]), float(row["seconds"]))
                for row in csv.DictReader(file)
            ]
        if results.best_epoch not in [epoch.epoch for epoch in history]:
            raise ValueError(f"{HISTORY} lacks the best epoch, {results.best_epoch}")
        net = _network(safetensors.numpy.load_file(path / WEIGHTS), settings)
    except FileNotFoundError as error:
        raise _damaged(path, f"{Path(error.filename or WEIGHTS).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return Run(path, settings, history, results, net)


def find_run(name: str, data: str, runs: Path) -> Run:
    """Return the run `name` on `data` below `runs`, or the run in the folder that `name` is a path to."""
    below, anywhere = runs / data / name, Path(name)
    if _is_plain(name) and below.is_dir():
        return load_run(below)
    if os.path.isfile(anywhere / SETTINGS):  # False, where Path.is_file would raise, for a name that is too long
        return load_run(anywhere)
    known = [path.name for path in _folders(runs, data)]
    hint = f"there are {', '.join(known)}" if known else f"there are none on {data}; train one with nnlite train"
    raise NnliteError(f"run: expected the name or path of a run, found {name!r}; {hint}")


def list_runs(runs: Path, data: str | None = None) -> list[Run]:
    """Return all runs below `runs`, or those on `data`, in the order of METHODS, then lambda, phi and name."""
    found = [load_run(path) for path in _folders(runs, data)]
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


def _folders(runs: Path, data: str | None) -> list[Path]:
    groups = [runs / data] if data else sorted(path for path in runs.glob("*") if path.is_dir())
    return sorted(path for group in groups for path in group.glob("*") if path.is_dir() and path.name[0] != ".")


def _claim(runs: Path, settings: Settings, name: str | None, overwrite: bool) -> Path:
    """Return the folder of a new run, having made sure before any training that it can be written."""
    name = settings.run_name if name is None else name
    if not _is_plain(name):
        raise NnliteError(f"name: expected a plain folder name of at most 200 bytes, found {name!r}")
    path = runs / settings.data / name
    if path.exists() and not overwrite:
        raise NnliteError(f"run: {path} exists; choose another --name, or replace it with --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise NnliteError(f"runs: cannot write to {path.parent} ({error.strerror}); choose another --runs") from error
    return path


def _is_plain(name: str) -> bool:
    return (
        bool(name)
        and name.isprintable()
        and Path(name).name == name
        and name[0] != "."
        and len(os.fsencode(name)) <= 200
    )


def _evaluate(trained: Trained, best: Epoch, data: Dataset, device: str) -> Results:
    test = data.test.to(device)
    table = attack(trained.net, {"self": trained.net}, test, NOISES["r1"], PAPER_PHI)
    return Results(
        status=trained.status,
        best_epoch=best.epoch,
        validation=best.validation,
        test=float(accuracy(trained.net, test)),
        phi=table.phi,
        self_attack=tuple(table.accuracy["self"].tolist()),
    )


def _write(run: Run) -> None:
    """Write the folder beside its place, read the weights back, and move it in."""
    place = Path(tempfile.mkdtemp(prefix=f".{run.name}-", dir=run.path.parent))
    try:
        place.chmod(0o755)
        arrays = {key: np.ascontiguousarray(to_host(array)) for key, array in _named_arrays(run.net).items()}
        safetensors.numpy.save_file(arrays, place / WEIGHTS)
        back = safetensors.numpy.load_file(place / WEIGHTS)
        if any(not np.array_equal(back[key], array, equal_nan=True) for key, array in arrays.items()):
            raise NnliteError(f"{run.path}: the weights read back differ from those written; check the disk")
        versions = {"nnlite": __version__, "numpy": np.__version__, "python": platform.python_version()}
        _write_json(place / SETTINGS, {"settings": dataclasses.asdict(run.settings), "versions": versions})
        _write_json(place / RESULTS, dataclasses.asdict(run.results))
        with (place / HISTORY).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([Epoch._fields, *run.history])
        if run.path.exists():
            shutil.rmtree(run.path)
        os.replace(place, run.path)
    except OSError as error:
        raise NnliteError(f"{run.path}: cannot write the run ({error.strerror}); choose another --runs") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _named_arrays(net: Network) -> dict[str, Array]:
    dense = [layer for layer in net.layers if isinstance(layer, Dense)]
    layers = {f"dense{k}": layer for k, layer in enumerate(dense)} | dict(net.heads)
    return {f"{key}.{name}": array for key, layer in layers.items() for name, array in layer.parameters.items()}


def _settings(content: dict[str, Any]) -> Settings:
    missing = {field.name for field in dataclasses.fields(Settings)} - content.keys() - LATER_SETTINGS
    if missing:
        raise ValueError(f"{SETTINGS} lacks {', '.join(sorted(missing))}")
    lists = {name: tuple(content[name]) for name in ("hidden", "term") if content.get(name) is not None}
    return Settings(**{**content, **lists})


def _results(content: dict[str, Any]) -> Results:
    return Results(**{**content, "phi": tuple(content["phi"]), "self_attack": tuple(content["self_attack"])})


def _network(arrays: dict[str, Array], settings: Settings) -> Network:
    hidden = settings.hidden
    layers: list[Layer] = []
    for k in range(len(hidden) + 1):
        layers += [_dense(arrays, f"dense{k}", hidden[k - 1 : k], hidden[k : k + 1]), ReLU()]
    heads = {ROTATION: _dense(arrays, ROTATION, hidden[-1:], (len(ANGLES),))} if settings.multitask else {}
    net = Network(tuple(layers[:-1]), heads)
    if arrays:
        raise ValueError(f"unexpected arrays {', '.join(arrays)}")
    if not all(np.isfinite(array).all() for array in _named_arrays(net).values()):
        raise ValueError("the weights hold NaN or infinity")
    return net


def _dense(arrays: dict[str, Array], key: str, fan_in: tuple[int, ...], fan_out: tuple[int, ...]) -> Dense:
    """Take one layer out of `arrays`; an empty width is that of the input or of the classes, whatever it is."""
    W, b = arrays.pop(f"{key}.W"), arrays.pop(f"{key}.b")
    fan_in, fan_out = fan_in or W.shape[:1], fan_out or b.shape
    fits = W.ndim == 2 and W.shape == fan_in + fan_out and b.shape == fan_out
    if not fits or {W.dtype, b.dtype} != {np.dtype(np.float32)}:
        raise ValueError(f"{key}: W {W.shape} {W.dtype} and b {b.shape} {b.dtype} do not fit the settings")
    return Dense(W, b)


def _damaged(path: Path, what: str) -> NnliteError:
    return NnliteError(f"{path}: the run folder is damaged ({what}); delete it, or train it again with --overwrite")
