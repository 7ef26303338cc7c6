"""The checkpoint: a training between two epochs, in one file, from which it goes on to the same bits.

    runs/<data>/.<name>.checkpoint    safetensors: last.dense0.W, ..., best.dense0.W, ..., and history (epochs, 4);
                                      settings, best epoch and versions as JSON in its metadata

There is no state of a random generator in it: each is made anew from (seed, purpose, epoch).
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.errors import NnliteError
from nnlite.storage.files import beside, new_file
from nnlite.storage.tensors import DTYPES, ArrayFile, check_layout, open_arrays, write_arrays
from nnlite.storage.texts import parse_json
from nnlite.storage.weights import named_arrays, net_layout, read_net
from nnlite.training.environment import makers
from nnlite.training.loop import Epoch, State, Trained
from nnlite.training.settings import Settings, read_settings

KEY = "nnlite-checkpoint"


def checkpoint_of(run: Path) -> Path:
    """Return where the checkpoint of the run `run` is, if there is one."""
    return beside(run, "checkpoint")


def write_checkpoint(path: Path, settings: Settings, state: State) -> None:
    """Write the checkpoint `path`, or replace it; NnliteError where the disk fails, and then the last one is there."""
    nets = {"last": state.last, "best": state.trained.net}
    arrays = {f"{which}.{name}": array for which, net in nets.items() for name, array in named_arrays(net).items()}
    arrays["history"] = np.array(state.trained.history, np.float64)
    best = state.trained.best
    content = {"settings": asdict(settings), "best": best and best.epoch, "versions": state.trained.makers}
    try:
        with new_file(path, replace=True, locked=True) as place:
            write_arrays(place, arrays, {KEY: json.dumps(content)})
    except OSError as error:
        raise NnliteError(
            f"{path}: cannot write the checkpoint of epoch {state.epoch} ({error.strerror}); "
            f"make room, and go on with --resume"
        ) from error


def read_checkpoint(path: Path, settings: Settings) -> State:
    """Return the state that the checkpoint `path` holds, of a training with these `settings`.

    NnliteError: a damaged file, or one of other settings. Where another version, BLAS or number of threads wrote it, a
    warning says so.
    """
    with _damage(path):
        file, content, found = _head(path)
        then = content["versions"]
        if not all(isinstance(text, str) and text.isprintable() for text in then.values()):
            raise ValueError("its versions are no texts of one line")
    check_settings(path, found, settings)
    with _damage(path):
        history = read_history(file.read("history"), settings)
        best = next(epoch for epoch in history if epoch.epoch == content["best"])
        nets = {which: read_net(file, settings.sizes, settings.heads, f"{which}.") for which in ("best", "last")}
    for name, now in makers().items():
        if then.get(name) != now:
            logging.getLogger("nnlite").warning(
                "%s: the checkpoint was written with %s, and this is %s: sums may be rounded otherwise",
                *(name, then.get(name), now),
            )
    return State(Trained(nets["best"], best, history, makers=then), nets["last"])


def check_settings(path: Path, found: Settings, settings: Settings) -> None:
    """Raise NnliteError where the settings `found` at `path` are not `settings`, and say which are not."""
    there, wanted = asdict(found), asdict(settings)
    differ = [f"{key} {there[key]}, not {wanted[key]}" for key in wanted if there[key] != wanted[key]]
    if differ:
        raise NnliteError(f"{path} is of another training ({'; '.join(differ)}); choose another --name, or --overwrite")


def epochs_done(path: Path) -> tuple[int, int]:
    """Return how many epochs the training of the checkpoint `path` has done, and of how many; NnliteError."""
    with _damage(path):
        file, _, settings = _head(path)
        return file.layout["history"][1][0], settings.epochs


def read_history(rows: Iterable[Iterable[Any]], settings: Settings) -> list[Epoch]:
    """Return the epochs that rows of four numbers, or of their texts, tell of.

    ValueError where they are not 1, 2, ..., and no more than the settings have, or hold NaN or infinity.
    """
    few = [[float(number) for number in row] for row in islice(rows, settings.epochs + 1)]
    if [row[:1] for row in few] != [[epoch] for epoch in range(1, min(len(few), settings.epochs) + 1)]:
        raise ValueError(f"the history is not that of epochs 1 to {settings.epochs} at most, each in its turn")
    if not all(len(row) == len(Epoch._fields) and all(map(math.isfinite, row)) for row in few):
        raise ValueError(f"the history holds something else than {len(Epoch._fields)} finite numbers for each epoch")
    return [Epoch(int(epoch), *numbers) for epoch, *numbers in few]


def _head(path: Path) -> tuple[ArrayFile, dict[str, Any], Settings]:
    """Return the file, whose arrays have the form that its settings give them, the JSON in it, and these settings."""
    file = open_arrays(path)
    content = parse_json(file.metadata[KEY])
    settings = read_settings(content["settings"])
    best, last = (net_layout(settings.sizes, settings.heads, prefix) for prefix in ("best.", "last."))
    epochs = min(file.layout["history"][1][0], settings.epochs)
    check_layout(file.layout, {**best, **last, "history": (DTYPES["F64"], (epochs, 4))})
    return file, content, settings


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say of whatever goes wrong in reading `path` that the file is damaged."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration) as error:
        what = str(error) if isinstance(error, NnliteError) else f"{type(error).__name__}: {error}"
        raise NnliteError(f"{path}: the checkpoint is damaged ({what}); delete it, or use --overwrite") from error
