"""Commands that are killed by SIGKILL at random moments and called again until they end: the bytes must be the same.

    python tests/tools/kills.py 200

prints for each command how often it was killed, how often while it wrote, how many run folders could not be read, how
often a file held other bytes in the end, how many hidden files and folders were left then, and how many epochs were
trained again though a checkpoint held them.
tests/training/test_killed.py does a few of each.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nnlite.cli.main import main
from nnlite.errors import NnliteError
from nnlite.storage.sums import SUMS
from nnlite.training.checkpoint import read_checkpoint, read_checkpoint_settings
from nnlite.training.loop import Epoch
from nnlite.training.run_folder import HISTORY, load_run
from nnlite.training.runs import list_runs

MADE = ATTACK, PICTURE = "attack.safetensors", "audit.png"
NET = ["--hidden", "64", "--epochs", "40"]
LITTLE = ["--examples", "10", "--steps", "5", "--apgd-steps", "5", "--queries", "5", "--tries", "1", "--phi", "0,0.1"]
TRAIN = {
    "train": ["train", *NET],
    "train, DataGrad": ["train", *NET, "--reg", "dgl1", "--lam", "0.01", "--phi", "0.1"],
    "train, a search that draws": ["train", *NET, "--reg", "miyato", "--lam", "1", "--phi", "0.1"],
    "train, checkpoint every 3": ["train", *NET, "--checkpoint-every", "3"],
    "train, another run replaced": ["train", "--hidden", "64", "--epochs", "4", "--name", "rect", "--overwrite"],
}
MANY = {
    "grid": ["grid", *NET, "--lr", "0.1,0.2,0.3", "--jobs", "2", "--stack", "2"],
    "attack --save": ["attack", "--adversary", "rect", "--noise", "pgd", "--save", ATTACK],
    "audit --plot": ["audit", "rect", *LITTLE, "--proven", "0", "--plot", PICTURE],
    "reproduce": ["reproduce", "table1", "--hidden", "16", "--epochs", "5", "--mt-epochs", "1", "--jobs", "2"],
    "reproduce, long": ["reproduce", "fig3", "--hidden", "128,128", "--epochs", "50", "--jobs", "2"],
}
NEEDS_A_RUN = ("attack", "audit")


@dataclass
class Figures:
    """What came of the kills."""

    kills: int = 0
    while_writing: int = 0
    unreadable: int = 0
    ended: int = 0
    differing: int = 0
    leftovers: int = 0
    repeated: int = 0


CHANGES = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}  # as Python's audit events


def run(arguments: list[str], folder: Path, seconds: float | None = None, before: int = 0) -> int:
    """Call nnlite in `folder`, kill it after `seconds` or before its n-th file operation, and return its exit code.

    It is forked from a process that has imported all: most of the time goes into training.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nnlite.cli.main"])
    process = context.Process(target=_main, args=(arguments, folder, before))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode or 0


def _main(arguments: list[str], folder: Path, before: int) -> None:
    operations = 0

    def count(event: str, details: tuple[object, ...]) -> None:
        nonlocal operations
        if event in CHANGES and not str(details[0]).startswith("/"):  # what Python itself opens is absolute
            operations += 1
            if operations == before:
                os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    sys.stdout = sys.stderr = open("output.txt", "a")  # noqa: SIM115 - until it is killed
    if before:
        sys.addaudithook(count)
    main(arguments)


def run_with_workers(arguments: list[str], folder: Path, seconds: float | None = None) -> int:
    """Do the same for a command with processes of its own, which are killed, too."""
    call = [sys.executable, "-c", "from nnlite.cli.main import main; main()", *arguments]
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(call, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def kill_until_it_ends(
    call: Callable[..., int], arguments: list[str], folder: Path, rng: random.Random, seconds: float, figures: Figures
) -> None:
    """Call nnlite again and again, and kill it within `seconds`, until it ends by itself, or its file is there."""
    kept: dict[Path, list[Epoch]] = {}
    before = figures.kills
    while not any((folder / name).exists() for name in MADE):
        again = arguments
        if arguments[0] == "train" and ("--overwrite" not in arguments or any(folder.rglob("runs/*/.*.checkpoint"))):
            again = [*(one for one in arguments if one != "--overwrite"), "--resume"]
        longer = 1 + (figures.kills - before) / 20  # or it would never end where the machine has become busier
        code = call(again, folder, rng.uniform(0, seconds * longer))
        if code != -signal.SIGKILL:
            break
        figures.kills += 1
        figures.while_writing += any(path.name.endswith((".new", ".old")) for path in folder.rglob(".*"))
        figures.unreadable += not is_readable(folder, least="--overwrite" in arguments)
        found = {path: kept_epochs(path) for path in folder.rglob("runs/*/.*.checkpoint")}
        if "--overwrite" in arguments:  # a run that was finished is replaced again, or left alone by --resume
            kept = {path: epochs for path, epochs in found.items() if not is_finished(path)}
        else:
            kept |= found
    else:
        return
    assert code == 0, (folder / "output.txt").read_text()
    for path, epochs in kept.items():
        ended = load_run(path.with_name(path.name[1:].removesuffix(".checkpoint"))).history
        figures.repeated += sum(one != other for one, other in zip(ended, epochs, strict=False))


def kept_epochs(checkpoint: Path) -> list[Epoch]:
    """Return the epochs that a checkpoint holds; trained again, an epoch would have taken another time."""
    return read_checkpoint(checkpoint, read_checkpoint_settings(checkpoint)).trained.history


def is_finished(checkpoint: Path) -> bool:
    """Whether the run of a checkpoint is there already, of the same settings: --resume leaves that as it is."""
    run = checkpoint.with_name(checkpoint.name[1:].removesuffix(".checkpoint"))
    return run.is_dir() and load_run(run).settings == read_checkpoint_settings(checkpoint)


def is_readable(folder: Path, least: int = 0) -> bool:
    """Whether every run folder below `folder` can be read, and there are `least` of them."""
    try:
        for runs in folder.rglob("runs"):
            found = len(list_runs(runs))  # which skips what is damaged
            if found < least or found < len([*runs.glob("*/[!.]*")]):
                return False
    except NnliteError as error:
        print(error, file=sys.stderr)
        return False
    return True


def content(folder: Path) -> dict[str, object]:
    """Return the bytes of the files of all runs below `folder`, and of what was made of them.

    The seconds that an epoch took are left out.
    """
    made = [folder / name for name in MADE if (folder / name).exists()]
    found: dict[str, object] = {path.name: path.read_bytes() for path in made}
    for path in folder.rglob("runs/*/[!.]*/*"):
        name = str(path.relative_to(folder))
        found[name] = path.read_bytes()
        if path.name == HISTORY:
            found[name] = [epoch[:3] for epoch in load_run(path.parent).history]
        elif path.name == SUMS:
            found[name] = [line for line in path.read_text().splitlines() if not line.endswith(HISTORY)]
    return found


def torment(name: str, kills: int, seed: int) -> Figures:
    """Kill the command `name` at least `kills` times, from the beginning again where it has ended."""
    arguments, call = (TRAIN[name], run) if name in TRAIN else (MANY[name], run_with_workers)
    figures, rng = Figures(), random.Random(seed)
    with TemporaryDirectory() as place:
        parts = ("first", "second", "whole") if name in TRAIN else ("whole",)
        seconds = min(_time(call, arguments, Path(place) / part) for part in parts)
        while figures.kills < kills:
            folder = Path(place) / str(figures.ended)
            folder.mkdir()
            if "--overwrite" in arguments:
                assert call([*arguments, "--seed", "1"], folder) == 0
            if arguments[0] in NEEDS_A_RUN:
                assert call(["train", *NET, "--name", "rect"], folder) == 0
            kill_until_it_ends(call, arguments, folder, rng, seconds, figures)
            figures.ended += 1
            figures.differing += differ(content(folder), content(Path(place) / "whole"))
            figures.leftovers += sum(path.name.startswith(".") for path in folder.rglob("*"))
    return figures


def differ(found: dict[str, object], expected: dict[str, object]) -> bool:
    """Whether the files are others, and say which."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    for name in names:
        print(f"{name}: found {str(found.get(name))[-700:]}, not {str(expected.get(name))[-700:]}", file=sys.stderr)
    return bool(names)


def _time(call: Callable[..., int], arguments: list[str], folder: Path) -> float:
    folder.mkdir()
    if arguments[0] in NEEDS_A_RUN:
        assert call(["train", *NET, "--name", "rect"], folder) == 0
    began = time.monotonic()
    assert call(arguments, folder) == 0, (folder / "output.txt").read_text()
    return time.monotonic() - began


if __name__ == "__main__":
    count, names = int(sys.argv[1]), sys.argv[2:] or [*TRAIN, *MANY]
    heads = ("kills", "while writing", "unreadable", "ended", "differing", "leftovers", "repeated")
    widths = [max(8, len(head) + 2) for head in heads]
    print(" " * 28 + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for number, name in enumerate(names):
        figures = torment(name, count // len(names) + 1, number)
        print(f"{name:28}" + "".join(f"{n:{width}}" for n, width in zip(astuple(figures), widths, strict=True)))
