"""The memory runs out at each line of nnlite in turn, in the readers of files, in a lock and in a training.

    python tests/tools/no_memory.py 7

tries every seventh line that is carried out, and prints for each reader what came of it, and how often something else
was read, or lost. MemoryError is raised before the line, as where an allocation in it had failed. Let CPython itself
fail its allocations (`_testcapi.set_nomemory`), and what is tested is CPython and NumPy: they end by SystemError, or by
a segmentation fault in a product of matrices.

tests/storage/test_no_memory.py does some of each.
"""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np
from power_loss import DATA, NEW, attack, attacked, go_on, plan, planned, train_old, trained

import nnlite
from nnlite.bench.report import read_reports
from nnlite.datasets import load
from nnlite.errors import NnliteError
from nnlite.grid.combinations import read_grid
from nnlite.network import Network
from nnlite.storage import locks
from nnlite.training.checkpoint import checkpoint_of, read_checkpoint
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run

SOURCE = str(Path(nnlite.__file__).parent)
REPORT = '{"title": "dgl1", "threads": 2, "contestants": [{"name": "nnlite", "ms": 8, "quartiles": [7.5, 9]}]}'


def failures(call: Callable[[], object], every: int) -> Iterator[tuple[BaseException | None, object]]:
    """Call once for every n-th line of nnlite, and fail there; yield the error, or None, and what was returned."""
    number = 1
    while True:
        left, error, found = number, None, None

        def step(frame: FrameType, event: str, _: object) -> object:
            nonlocal left
            if not frame.f_code.co_filename.startswith(SOURCE):
                return None
            left -= event == "line"
            if left == 0:
                sys.settrace(None)
                raise MemoryError
            return step

        sys.settrace(step)
        try:
            found = call()
        except BaseException as caught:
            error = caught.with_traceback(None)
        finally:
            sys.settrace(None)
        if left > 0:
            return
        locks._let_go_in_child()  # as a process that ends
        number += every
        yield error, found


def kind_of(error: BaseException | None) -> str:
    if isinstance(error, (MemoryError, NnliteError)):
        return type(error).__name__
    return f"{type(error).__name__}, which is not allowed" if error else "read"


def read_all(folder: Path) -> dict[str, Callable[[], object]]:
    """Return the readers by name, each with a file of its own below `folder`; what they return can be compared."""
    runs, own = folder / "runs", folder / "own.csv"
    train_old(folder)
    stop_after_first(folder / "stopped")
    attack(folder)
    plan(folder)
    (folder / "grid.toml").write_text("epochs = 2\nseed = [0, 1]\n[[models]]\nlr = [0.1, 2]\n")
    (folder / "report.json").write_text(REPORT)
    own.write_text("a,b,y\n" + "".join(f"{k},{k % 7},{k % 2}\n" for k in range(40)))
    np.savez(folder / "own.npz", x=np.arange(80.0).reshape(40, 2), y=np.arange(40) % 2)
    stopped = checkpoint_of(folder / "stopped" / "runs" / "digits" / "net")

    def locked() -> None:
        with locks.lock(runs / "free"):
            pass

    return {
        "run": lambda: bits(load_run(runs / "digits" / "net").net),
        "checkpoint": lambda: bits(read_checkpoint(stopped, NEW).last),
        "attack file": partial(attacked, folder),
        "plan": partial(planned, folder),
        "grid": lambda: [job.settings for job in read_grid(folder / "grid.toml", runs)],
        "report": lambda: read_reports(folder / "report.json"),
        "CSV": lambda: load(str(own)).train.images.tobytes(),
        "NPZ": lambda: load(str(folder / "own.npz")).train.images.tobytes(),
        "lock": locked,
    }


def bits(net: Network) -> list[bytes]:
    return [array.tobytes() for layer in net.all_layers for array in layer.parameters.values()]


def torment_readers(folder: Path, every: int) -> Iterator[tuple[str, Counter[str], int]]:
    """Yield each reader's name, the kinds of errors, and how often something else was read, then or afterwards."""
    before = None
    for name, read in read_all(folder).items():
        expected, kinds, others = read(), Counter[str](), 0
        before = before or content(folder)
        for error, found in failures(read, every):
            kinds[kind_of(error)] += 1
            others += error is None and found != expected
        others += read() != expected or content(folder) != before
        yield name, kinds, others


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class StoppedError(Exception):
    """Ends a training without a word."""


def stop_after_first(folder: Path) -> None:
    def stop(_: object) -> None:
        raise StoppedError

    try:
        make_run(NEW, DATA, folder / "runs", name="net", on_epoch=stop)
    except StoppedError:
        return


def torment_training(place: Path, every: int) -> tuple[Counter[str], int]:
    """Return what came of a training that goes on after its first epoch, and how often it was lost, or ended in others.

    Afterwards its first epoch is there, and it goes on to the bytes of a training that nothing has befallen.
    """
    go_on(place / "whole")
    expected, kinds, lost, count = trained_bits(place / "whole"), Counter[str](), 0, 0
    folder = place / "0"

    def prepare() -> None:
        nonlocal folder
        folder = place / str(count)
        stop_after_first(folder)

    prepare()
    for error, _ in failures(lambda: go_on(folder), every):
        kinds[kind_of(error)] += 1
        lost += trained(folder) not in {(None, 1), (None, 2), (NEW.seed, 2)}
        go_on(folder)
        lost += trained_bits(folder) != expected
        count += 1
        prepare()
    return kinds, lost


def trained_bits(folder: Path) -> list[bytes]:
    return bits(load_run(folder / "runs" / "digits" / "net").net)


if __name__ == "__main__":
    every = int(sys.argv[1])
    logging.disable()  # that a checkpoint is of another number of threads
    with TemporaryDirectory() as place:
        for name, kinds, others in torment_readers(Path(place), every):
            print(f"{name}: {dict(kinds)}, read otherwise: {others}", flush=True)
    with TemporaryDirectory() as place:
        kinds, lost = torment_training(Path(place), 7 * every)
        print(f"training: {dict(kinds)}, lost or other bytes: {lost}")
