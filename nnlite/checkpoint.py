"""The checkpoint: a training between two epochs, in one file, from which it goes on to the same bits.

    runs/<data>/.<name>.checkpoint    safetensors: last.dense0.W, ..., best.dense0.W, ..., and history (epochs, 4);
                                      settings, best epoch and versions as JSON in its metadata

There is no state of a random generator in it: each is made anew from (seed, purpose, epoch).
"""

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import threadpoolctl

from nnlite import __version__
from nnlite.arrays import ArrayFile, open_arrays, parse_json
from nnlite.disk import beside, write_file
from nnlite.errors import NnliteError
from nnlite.network import Network
from nnlite.settings import Settings
from nnlite.training import Epoch, State, Trained
from nnlite.weights import named_arrays, network

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
    content = {"settings": asdict(settings), "best": best and best.epoch, "versions": _makers()}
    try:
        write_file(path, safetensors.numpy.save(arrays, {KEY: json.dumps(content)}))
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
        file = open_arrays(path)
        content = parse_json(file.metadata[KEY])
        found, makers = dict(content["settings"]), dict(content["versions"])
    check_settings(path, found, settings)
    with _damage(path):
        history = [Epoch(int(row[0]), *map(float, row[1:])) for row in file.read("history")]
        best = next(epoch for epoch in history if epoch.epoch == content["best"])
        state = State(Trained(_net(file, "best.", settings), best, history), _net(file, "last.", settings))
    for name, now in _makers().items():
        if (then := makers.get(name)) != now:
            logging.getLogger("nnlite").warning(
                "%s: the checkpoint was written with %s, and this is %s: sums may be rounded otherwise", name, then, now
            )
    return state


def check_settings(path: Path, found: dict[str, Any], settings: Settings) -> None:
    """Raise NnliteError where the settings `found` at `path`, as a dict, are not `settings`, and say which are not."""
    found, wanted = (json.loads(json.dumps(one)) for one in (found, asdict(settings)))  # where a tuple is a list
    differ = [f"{key} {found.get(key)}, not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]]
    if differ:
        raise NnliteError(f"{path} is of another training ({'; '.join(differ)}); choose another --name, or --overwrite")


def epochs_done(path: Path) -> tuple[int, int]:
    """Return how many epochs the training of the checkpoint `path` has done, and of how many; NnliteError."""
    with _damage(path):
        file = open_arrays(path)
        return file.places["history"].shape[0], int(parse_json(file.metadata[KEY])["settings"]["epochs"])


def versions() -> dict[str, str]:
    """Return the versions of what trains."""
    return {"nnlite": __version__, "numpy": np.__version__, "python": platform.python_version()}


def _makers() -> dict[str, str]:
    """Return the versions, and BLAS, whose kernels and threads decide in which order sums are taken."""
    blas = [found for found in threadpoolctl.threadpool_info() if found["user_api"] == "blas"]
    words = [f"{found['internal_api']} {found['version']} {found.get('architecture', '')}" for found in blas[:1]]
    threads = [str(found["num_threads"]) for found in blas[:1]]  # the first is NumPy's
    return {**versions(), "BLAS": "".join(words), "BLAS threads": "".join(threads)}


def _net(file: ArrayFile, prefix: str, settings: Settings) -> Network:
    names = [name for name in file.places if name.startswith(prefix)]
    return network({name.removeprefix(prefix): file.read(name) for name in names}, settings)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say of whatever goes wrong in reading `path` that the file is damaged."""
    try:
        yield
    except (ValueError, LookupError, TypeError, ArithmeticError, StopIteration) as error:
        what = f"{type(error).__name__}: {error}"
        raise NnliteError(f"{path}: the checkpoint is damaged ({what}); delete it, or use --overwrite") from error
