"""The checkpoint: a training between two epochs, in one file, from which it can go on to the same bits.

    runs/<data>/.<name>.checkpoint    safetensors: last.dense0.W, ..., best.dense0.W, ..., and history (epochs, 4);
                                      settings, best epoch and versions as JSON in its metadata

It holds no state of a random generator: each epoch makes its own from (seed, purpose, epoch).
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.backend import Array
from nnlite.datasets.description import Description
from nnlite.datasets.loading import read_record
from nnlite.errors import NnliteError
from nnlite.network import Network
from nnlite.storage.companions import beside
from nnlite.storage.files import expect_readable, new_file
from nnlite.storage.formats import expect_format
from nnlite.storage.kinds import expect, text
from nnlite.storage.memory import expect_budget
from nnlite.storage.refusals import RefusedError
from nnlite.storage.sums import arrays_sha256
from nnlite.storage.tensors import DTYPES, ArrayFile, check_layout, open_arrays, size_of, write_arrays
from nnlite.storage.texts import parse_json
from nnlite.storage.weights import named_arrays, net_layout, read_net
from nnlite.training.environment import environment
from nnlite.training.loop import Epoch, TrainingResult, TrainingState
from nnlite.training.settings import Settings, read_settings

KEY = "nnlite-checkpoint"
FORMAT = 2  # the first, of nnlite 0.1.0, has no number and no checksum
VERSION = text(0, 200)


def checkpoint_of(run: Path) -> Path:
    """Return the path of the checkpoint of the run `run`, whether or not there is one."""
    return beside(run, "checkpoint")


def write_checkpoint(path: Path, settings: Settings, state: TrainingState) -> None:
    """Write or replace the checkpoint `path`; where the disk fails the old one is kept, and NnliteError says so."""
    nets = {"last": state.last, "best": state.trained.net}
    arrays = _arrays(nets, np.array(state.trained.history, np.float64))
    best = state.trained.best
    content = {
        "format": FORMAT,
        "sha256": arrays_sha256(arrays),
        "settings": asdict(settings),
        "data": state.trained.data and asdict(state.trained.data),
        "best": best and best.epoch,
        "versions": state.trained.environment,
    }
    try:
        with new_file(path, replace=True, locked=True) as place:
            write_arrays(place, arrays, {KEY: json.dumps(content)})
    except OSError as error:
        raise NnliteError(
            f"{path}: cannot write the checkpoint of epoch {state.epoch} ({error.strerror}); "
            f"make room, and repeat the command, nnlite train with --resume"
        ) from error


def read_checkpoint(path: Path, settings: Settings) -> TrainingState:
    """Return the state in the checkpoint `path` of a training with these `settings`, or with fewer epochs.

    NnliteError: a damaged file, or one of other settings. A warning names the versions, BLAS or threads that differ.
    """
    with _damage(path):
        file, content, found, data = _head(path)
        then = content["versions"]
        for name, version in then.items():
            expect(f"versions: {name}", VERSION, version)
    check_settings(path, found, settings)
    with _damage(path):
        expect_budget(path, size_of(file.layout))
        rows = file.read("history")
        history = read_history(rows, found)
        best = next(epoch for epoch in history if epoch.epoch == content["best"])
        nets = {which: read_net(file, settings.sizes(data), settings.heads, f"{which}.") for which in ("best", "last")}
        if content.get("format", 1) > 1 and content["sha256"] != arrays_sha256(_arrays(nets, rows)):
            raise ValueError("its arrays are not those that were written: their SHA-256 is another one")
    warn_of_versions("the checkpoint", then)
    return TrainingState(TrainingResult(nets["best"], best, history, environment=then, data=data), nets["last"])


def _arrays(nets: Mapping[str, Network], history: Array) -> dict[str, Array]:
    """Return the arrays of a checkpoint by their names."""
    named = {f"{which}.{name}": array for which, net in nets.items() for name, array in named_arrays(net).items()}
    return {**named, "history": history}


def warn_of_versions(what: str, then: Mapping[str, Any]) -> None:
    """Warn where `what` was written in another environment than this one, for each thing that differs."""
    for name, now in environment().items():
        if then.get(name) != now:
            logging.getLogger("nnlite").warning(
                "%s: %s was written with %s, and this is %s: sums may be rounded otherwise",
                *(name, what, then.get(name), now),
            )


def check_settings(path: Path, found: Settings, settings: Settings) -> None:
    """Raise NnliteError where a training with `found`, at `path`, cannot go on with `settings`, and say what differs.

    More epochs are no difference: those of the shorter training are the first of the longer one, bit for bit.
    """
    there, wanted = asdict(found), asdict(settings)
    if found.epochs < settings.epochs:
        del wanted["epochs"]
    differ = [f"{key} {there[key]}, not {wanted[key]}" for key in wanted if there[key] != wanted[key]]
    if differ:
        raise NnliteError(f"{path} is of another training ({'; '.join(differ)}); choose another --name")


def read_checkpoint_settings(path: Path) -> Settings:
    """Return the settings of the training of the checkpoint `path`; NnliteError."""
    with _damage(path):
        return _head(path)[2]


def epochs_done(path: Path) -> tuple[int, int]:
    """Return the epochs that the training of the checkpoint `path` has completed, and all it will have; NnliteError."""
    with _damage(path):
        file, _, settings, _ = _head(path)
        return file.layout["history"][1][0], settings.epochs


def read_history(rows: Iterable[Iterable[Any]], settings: Settings) -> list[Epoch]:
    """Return the epochs that are given as rows of four numbers, or of four texts.

    ValueError where they are not numbered 1, 2, ..., are more than the settings have, or hold NaN or infinity.
    """
    few = [[float(number) for number in row] for row in islice(rows, settings.epochs + 1)]
    if [row[:1] for row in few] != [[epoch] for epoch in range(1, min(len(few), settings.epochs) + 1)]:
        raise ValueError(f"the history is not that of epochs 1 to {settings.epochs} at most, each in its turn")
    if not all(len(row) == len(Epoch._fields) and all(map(math.isfinite, row)) for row in few):
        raise ValueError(f"the history holds something else than {len(Epoch._fields)} finite numbers for each epoch")
    return [Epoch(int(epoch), *numbers) for epoch, *numbers in few]


def _head(path: Path) -> tuple[ArrayFile, dict[str, Any], Settings, Description]:
    """Return the file, the JSON in it, and its settings and data, which determine the shape of each array."""
    file = open_arrays(path)
    content = parse_json(file.metadata[KEY])
    expect_format(content.get("format", 1), FORMAT, content["versions"].get("nnlite"))
    settings = read_settings(content["settings"])
    data = read_record(content, settings.data)
    best, last = (net_layout(settings.sizes(data), settings.heads, prefix) for prefix in ("best.", "last."))
    epochs = min(file.layout["history"][1][0], settings.epochs)
    check_layout(file.layout, {**best, **last, "history": (DTYPES["F64"], (epochs, 4))})
    return file, content, settings, data


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn any error in reading `path` into one that says that the file is damaged."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration) as error:
        expect_readable(path, error)
        what = str(error) if isinstance(error, NnliteError) else f"{type(error).__name__}: {error}"
        raise NnliteError(
            f"{path}: the checkpoint is damaged ({what}); copy it again, or move it away and start again"
        ) from error
