"""Power lost after each file operation in turn: what the disk may then hold is old or new, and whole.

    python tests/tools/power_loss.py

prints for each thing that nnlite writes how many fsyncs that takes, in how many moments the power was lost, how many
different states of the disk that left, how many of them held neither what was there before nor what was there then, and
how many a second call did not mend. No
kernel is asked: the states follow from a model, that of ALICE (Pillai et al., "All File Systems Are Not Created
Equal", OSDI 2014), in which a file system may do all that POSIX allows:

- A name that is made, moved, exchanged or removed is on the disk when its folder has been fsynced, and before that
  perhaps: each such operation as a whole, and in any order, so that a later one may be there without an earlier one.
- Bytes are on the disk when their file has been fsynced; before that all may be there, a part, zeros, or what was.

tests/storage/test_power_loss.py does a few of each, and leaves an fsync out.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

from nnlite.datasets import load
from nnlite.errors import NnliteError
from nnlite.evaluation.attack_file import (
    NetId,
    Record,
    clean_sha256,
    new_attack,
    open_attack,
    verify,
    weights_of,
    weights_sha256,
)
from nnlite.paper.plan import Plan
from nnlite.paper.reproduction import PLAN, Reproduction
from nnlite.storage import files, memory
from nnlite.training.checkpoint import checkpoint_of, epochs_done
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

NAMES = ("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir")  # calls of os that change names
ALL_SUBSETS = 6  # of more operations that are not on the disk yet, some subsets are tried
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small files

Names = dict[tuple[int, str], int | None]  # (number of the folder, name): number of what it names, None for nothing
Tree = frozenset[tuple[str, bytes | None]]  # paths below the root, and the bytes of files, None for folders


@dataclass(frozen=True)
class Moment:
    """All that is known of the disk at one moment.

    Arguments:
        operations: the changes of names so far, and whether each is on the disk for sure.
        written: the bytes of each file as the programs see them, None for a folder.
        synced: the bytes that are on the disk for sure.
        promised: how many moments there were when the program last could rely on what it had written.
    """

    operations: tuple[tuple[Names, bool], ...]
    written: Mapping[int, bytes | None]
    synced: Mapping[int, bytes]
    promised: int


@dataclass
class Disk:
    """Watches the folder `root`: all that is there at first is on the disk.

    left_out: the number of an fsync, from 1, that is not carried out.
    """

    root: Path
    left_out: int = 0
    moments: list[Moment] = field(default_factory=list)
    fsyncs: int = 0

    def __post_init__(self) -> None:
        self._held: dict[int, int] = {}  # open files, so that the system gives no number away twice
        self.first, self._written = self._look()
        self._names, self._promised = dict(self.first), 0
        self._synced = {number: content for number, content in self._written.items() if content is not None}
        self._operations: list[tuple[Names, bool]] = []
        self._note()

    def promise(self, *_: object) -> None:
        """Say that the program relies on what it has written."""
        self._promised = len(self.moments) - 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note each change within the block, but for what other processes do."""
        with ExitStack() as stack:
            for name in NAMES:
                stack.enter_context(mock.patch.object(os, name, self._noted(getattr(os, name))))
            stack.enter_context(mock.patch.object(files, "exchange", self._noted(files.exchange)))
            stack.enter_context(mock.patch.object(os, "fsync", self._noted_fsync(os.fsync)))
            yield
            self._note(in_one_step=False)
            for number in self._held.values():
                os.close(number)

    def _noted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **options: Any) -> Any:
            self._note(in_one_step=False)  # files that were opened since
            try:
                return real(*args, **options)
            finally:
                self._note()

        return call

    def _noted_fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        @functools.wraps(real)
        def call(number: int) -> None:
            self._note(in_one_step=False)
            self.fsyncs += 1
            if self.fsyncs == self.left_out:
                return
            real(number)
            which = os.fstat(number).st_ino
            if which not in self._held:  # it has no name yet
                self._held[which] = os.dup(number)
            if os.path.isfile(path := f"/proc/self/fd/{number}"):
                self._synced[which] = Path(path).read_bytes()
            self._operations = [
                (change, sure or any(folder == which for folder, _ in change)) for change, sure in self._operations
            ]
            self._note()

        return call

    def _note(self, in_one_step: bool = True) -> None:
        """Note a moment, and the names that have changed since the last: by one operation, or by one each."""
        before = self._names
        self._names, self._written = self._look()
        changed = {
            key: self._names.get(key) for key in {**before, **self._names} if before.get(key) != self._names.get(key)
        }
        if changed:
            self._operations += [
                (one, False) for one in ([changed] if in_one_step else [{key: changed[key]} for key in changed])
            ]
        self.moments.append(Moment(tuple(self._operations), self._written, dict(self._synced), self._promised))

    def _look(self) -> tuple[Names, dict[int, bytes | None]]:
        names: Names = {}
        written: dict[int, bytes | None] = {}
        for folder, below, content in os.walk(self.root):
            parent = os.stat(folder).st_ino
            for name in (*below, *content):
                path = Path(folder, name)
                names[parent, name] = number = os.stat(path).st_ino
                written[number] = path.read_bytes() if name in content else None
                if number not in self._held:
                    self._held[number] = os.open(path, os.O_RDONLY)
        return names, written

    def view(self, moment: Moment) -> Tree:
        """Return what programs see at a moment."""
        return self._tree([change for change, _ in moment.operations], moment.written)

    def left(self, moment: Moment) -> Iterator[Tree]:
        """Yield what the disk may hold where the power is lost at a moment."""
        pending = [k for k, (_, sure) in enumerate(moment.operations) if not sure]
        for missing in _subsets(pending):
            done = [change for k, (change, _) in enumerate(moment.operations) if k not in missing]
            for content in _contents(moment):
                yield self._tree(done, content)

    def _tree(self, changes: list[Names], content: Mapping[int, bytes | None]) -> Tree:
        names = dict(self.first)
        for change in changes:
            names.update(change)
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), number in names.items():
            if number is not None:
                below.setdefault(folder, []).append((name, number))
        found: list[tuple[str, bytes | None]] = []

        def walk(folder: int, path: str) -> None:
            for name, number in below.get(folder, ()):
                found.append((path + name, content.get(number)))
                walk(number, f"{path}{name}/")

        walk(os.stat(self.root).st_ino, "")
        return frozenset(found)


def _subsets(pending: list[int]) -> Iterator[frozenset[int]]:
    """Yield which of the operations that are not on the disk for sure are missing there."""
    if len(pending) <= ALL_SUBSETS:
        for count in range(len(pending) + 1):
            yield from map(frozenset, itertools.combinations(pending, count))
        return
    for k in range(len(pending) + 1):
        yield frozenset(pending[k:])
        yield frozenset(pending[:k])
        yield frozenset(pending[k : k + 1])
        yield frozenset(pending) - frozenset(pending[k : k + 1])


def _contents(moment: Moment) -> Iterator[dict[int, bytes | None]]:
    """Yield the bytes that the files may have."""
    unsure = {
        number: content
        for number, content in moment.written.items()
        if content is not None and moment.synced.get(number) != content
    }
    torn: list[Callable[[int, bytes], bytes]] = [
        lambda number, content: moment.synced.get(number, b""),
        lambda number, content: content[: len(content) // 2],
        lambda number, content: bytes(len(content)),
        lambda number, content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    ]
    known = {**moment.written, **moment.synced}  # also of what has no name any more
    yield {**known, **unsure}
    for tear in torn if unsure else ():
        yield {**known, **{number: tear(number, content) for number, content in unsure.items()}}
        for one in unsure if len(unsure) > 1 else ():
            yield {**known, **unsure, one: tear(one, unsure[one])}


def put(tree: Tree, folder: Path) -> None:
    """Make the files and folders of a state of the disk below `folder`."""
    folder.mkdir(exist_ok=True)
    for name, content in sorted(tree):
        if content is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(content)


@dataclass(frozen=True)
class Thing:
    """Something that nnlite writes.

    Arguments:
        write: writes it to a folder, and calls its second argument whenever what is written so far is relied on.
        read: returns what can be read, something that can be compared; NnliteError.
        before: makes what was there before.
        again: what a user would do after the power is back; it ends with what `write` ends with.
    """

    write: Callable[[Path, Callable[..., None]], None]
    read: Callable[[Path], object]
    again: Callable[[Path], object]
    before: Callable[[Path], object] = lambda folder: None


@dataclass
class Figures:
    """What came of it."""

    fsyncs: int = 0
    moments: int = 0
    states: int = 0
    differing: int = 0
    not_mended: int = 0


def torment(thing: Thing, *, left_out: int = 0, every: int = 1, goes_on: int = 1) -> Figures:
    """Lose the power while a thing is written, and return what came of it.

    Arguments:
        thing: what is written.
        left_out: the number of an fsync, from 1, that is not carried out.
        every: how many moments there are from one loss of power to the next.
        goes_on: how many different states of the disk there are from one to the next in which nnlite is called again.
    """
    with TemporaryDirectory(dir=IN_MEMORY) as place, mock.patch.object(memory, "available", return_value=10**9):
        root = Path(place, "root")
        root.mkdir()
        thing.before(root)
        disk = Disk(root, left_out)
        with disk.watched():
            thing.write(root, disk.promise)
            disk.promise()
        moments = [moment for k, moment in enumerate(disk.moments) if k % every == 0 or k == len(disk.moments) - 1]
        figures, known, views = Figures(disk.fsyncs, len(moments)), dict[Tree, object](), []
        for tree in map(disk.view, disk.moments):
            if tree not in known:
                known[tree] = _read(thing, tree, Path(place, f"view{len(known)}"))
            views.append(known[tree])
        tried = set[tuple[int, Tree]]()
        for moment in moments:
            allowed = views[moment.promised : disk.moments.index(moment) + 1]
            for tree in disk.left(moment):
                if (moment.promised, tree) in tried:
                    continue
                tried.add((moment.promised, tree))
                figures.states += 1
                folder = Path(place, f"state{figures.states}")
                if tree not in known:
                    known[tree] = _read(thing, tree, folder)
                if known[tree] not in allowed:
                    figures.differing += 1
                elif figures.states % goes_on == 0:
                    put(tree, folder)
                    with suppress(NnliteError):
                        thing.again(folder)
                    figures.not_mended += thing.read(folder) != views[-1]
    return figures


def _read(thing: Thing, tree: Tree, folder: Path) -> object:
    put(tree, folder)
    try:
        return thing.read(folder)
    except NnliteError as error:
        return f"refused: {str(error).replace(str(folder), '')}"


# --- what nnlite writes

DATA = load("digits")
OLD, NEW = Settings(hidden=(4,), epochs=1, seed=1), Settings(hidden=(4,), epochs=2)


def train(folder: Path, promise: Callable[..., None] = lambda *_: None, **more: Any) -> None:
    make_run(NEW, DATA, folder / "runs", name="net", on_epoch=promise, **more)


def train_old(folder: Path) -> None:
    make_run(OLD, DATA, folder / "runs", name="net")


def go_on(folder: Path) -> None:
    """Resume, or, where nothing of the new training is there, begin again."""
    path = folder / "runs" / "digits" / "net"
    stopped = checkpoint_of(path).exists()
    done = path.exists() and load_run(path).settings == NEW
    train(folder, **({"resume": True} if stopped or done or not path.exists() else {"overwrite": True}))


def trained(folder: Path) -> tuple[object, object]:
    """Return the seed of the run, None without one, and how many epochs are kept."""
    path = folder / "runs" / "digits" / "net"
    run = load_run(path) if files.current(path).exists() else None
    kept = epochs_done(checkpoint_of(path))[0] if checkpoint_of(path).exists() else 0
    if run:
        assert run.results.best_epoch <= len(run.history)
    return run and run.settings.seed, NEW.epochs if run and run.settings == NEW else kept


@functools.cache
def attacker() -> Any:
    with TemporaryDirectory() as place:
        return make_run(OLD, DATA, place, name="net").net


def attack(folder: Path, promise: Callable[..., None] = lambda: None) -> None:
    """Write a small attack file, of noise that is made without an attack."""
    net, rows = NetId("net", weights_sha256(weights_of(attacker()))), np.array([0, 7, 499])
    x, y = DATA.test.batch(rows)
    record = Record("noise", "linf", True, (0.0, 0.1), "digits", clean_sha256(DATA.test[rows]), net, (net,))
    noisy = (x + np.float32(0.1)).clip(0, 1)
    with new_attack(folder / "kept" / "attack", record, DATA.test, rows, np.float32) as file:
        file.keep(0, [x, noisy])
        file.score(np.array([[(attacker().predict(images) == y).sum() for images in (x, noisy)]]))


def attacked(folder: Path) -> object:
    if not (folder / "kept" / "attack").exists():
        return None
    return verify(open_attack(folder / "kept" / "attack"), DATA.test, {"net": weights_of(attacker())}).failures


def plan(folder: Path, promise: Callable[..., None] = lambda: None) -> None:
    Reproduction(folder / "fig3", Plan(epochs=7)).reserve_folder()


def planned(folder: Path) -> object:
    """Return whether there is a plan; NnliteError where it is another one."""
    if (folder / "fig3" / PLAN).exists():
        plan(folder)
        return True
    return False


THINGS = {
    "a run and its checkpoints": Thing(train, trained, go_on),
    "a run replaced": Thing(functools.partial(train, overwrite=True), trained, go_on, train_old),
    "an attack file": Thing(attack, attacked, attack, lambda folder: attacker()),
    "a plan": Thing(plan, planned, plan),
}
OLDER_SYSTEMS = "with neither exchange nor O_TMPFILE"


@contextmanager
def older_system() -> Iterator[None]:
    """Have neither an exchange of names nor files without a name."""
    with (
        mock.patch.object(files, "exchange", return_value=False),
        mock.patch.object(files, "_unnamed_file", return_value=None),
    ):
        yield


if __name__ == "__main__":
    heads = ("fsyncs", "moments", "states", "differing", "not mended")
    print(" " * 28 + "".join(f"{head:>12}" for head in heads))
    for name, thing in THINGS.items():
        for older in (False, True):
            with older_system() if older else ExitStack():
                found = torment(thing)
            print(
                f"{name:28}"
                + "".join(f"{n:12,}" for n in vars(found).values())
                + (f"  {OLDER_SYSTEMS}" if older else "")
            )
