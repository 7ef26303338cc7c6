"""Commands that get SIGINT or SIGTERM at random moments: each must end with 130, and one line at most.

    python tests/tools/signals.py 200

sends 200 signals, to each of CALLS in turn, and prints how they ended. The first moments belong to Python itself:
until it runs a line of nnlite's, a signal ends a program as it ends any other one in Python.

    python tests/tools/signals.py 200 --workers

ends a worker of as many grids instead, by SIGTERM or SIGKILL, half of them while it sends a result of 75 MB: none may
hang, and a second call must finish the grid that was stopped.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

CALL = [sys.executable, "-c", "from nnlite.cli.start import start; start()"]
LONG = ["--hidden", "64", "--epochs", "1000"]
CALLS = {
    "train": ["train", *LONG, "--overwrite"],
    "grid": ["grid", *LONG, "--seed", "0,1,2", "--jobs", "2"],
    "grid, a cluster": ["grid", *LONG, "--seed", "0,1,2", "--jobs", "2", "--scheduler", "local"],
    "attack": ["attack", "--adversary", "rect", "--noise", "apgd", "--save", "attack.safetensors"],
    "audit": ["audit", "rect"],
    "certify": ["certify", "rect", "--per-image"],
    "reproduce": ["reproduce", "table1", "--epochs", "1000", "--jobs", "2"],
    "bench": ["bench", "step"],
}
SMALL = ["grid", "--hidden", "16", "--epochs", "20", "--seed", "0,1,2,3", "--jobs", "2"]
LARGE = ["grid", "--hidden", "3000,3000", "--epochs", "1", "--seed", "0,1", "--jobs", "2"]  # a result of 75 MB
PROGRESS = re.compile(r" *\d+ %|\s*$|the paper's Rect|training|keeps")  # how lines of progress begin, and empty ones
HANGS = 1200  # seconds until a command counts as hanging: the machine may be busy


def signals(count: int) -> None:
    """Send `count` signals, and print what came of them."""
    rng, ended = random.Random(0), Counter[str]()
    with TemporaryDirectory() as base:
        subprocess.run([*CALL, "train", "--name", "rect", "--epochs", "2"], cwd=base, capture_output=True, check=True)
        for k in range(count):
            name, number = [*CALLS][k % len(CALLS)], rng.choice((signal.SIGINT, signal.SIGTERM))
            seconds = rng.uniform(0, 4)
            code, lines = signalled(Path(base), CALLS[name], number, seconds)
            if code == 130 and len(lines) <= 1:
                how = "130, one line at most"
            elif code == 0:
                how = "done before"
            elif code == -number or any("Fatal Python error" in line for line in lines):
                how = "Python was starting"
            else:
                how = f"{code}, {len(lines)} lines"
                print(f"{name}: {number.name} after {seconds:.2f} s: {how}, {lines}", file=sys.stderr, flush=True)
            ended[how] += 1
    print(f"{count} signals")
    for how, times in ended.most_common():
        print(f"{how}: {times}")


def signalled(base: Path, arguments: list[str], number: signal.Signals, seconds: float) -> tuple[int, list[str]]:
    """Return how a command ended that got a signal after so many seconds, and what it said but for its progress."""
    with TemporaryDirectory() as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        with subprocess.Popen(
            [*CALL, *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # in the background: ignored
        ) as process:
            time.sleep(seconds)
            process.send_signal(number)
            said = process.communicate(timeout=HANGS)[1].splitlines()
    return process.returncode, [line for line in said if not PROGRESS.match(line)]


def workers(count: int) -> None:
    """End a worker of `count` grids, and print how the grids ended."""
    rng, ended = random.Random(0), Counter[str]()
    for k in range(count):
        arguments, number = (SMALL, LARGE)[k % 2], rng.choice((signal.SIGTERM, signal.SIGKILL))
        with TemporaryDirectory() as folder, open(Path(folder, "said"), "w+") as said:
            process = subprocess.Popen([*CALL, *arguments], cwd=folder, stdout=said, stderr=said)
            worker = any_worker(process)
            if worker and arguments is LARGE:
                until_it_sends(worker)
            time.sleep(rng.uniform(0, 0.5 if arguments is LARGE else 2))
            try:
                if worker:
                    worker.send_signal(number)
            except psutil.NoSuchProcess:
                pass
            try:
                code = process.wait(HANGS)
                lines = Path(folder, "said").read_text().splitlines()
                ended[f"{code}: {' '.join(lines[-1].split()[:5]) if code else 'done before'}"] += 1
                if code:
                    again = subprocess.run([*CALL, *arguments], cwd=folder, capture_output=True, timeout=HANGS)
                    ended[f"and again: {again.returncode}"] += 1
            except subprocess.TimeoutExpired:
                ended["HANGS"] += 1
                process.kill()
    print(f"{count} grids whose worker was ended")
    for how, times in ended.most_common():
        print(f"{how}: {times}")


def any_worker(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Return the first worker that a grid starts, or None where the grid ended before."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.01)
    return None


def until_it_sends(worker: psutil.Process) -> None:
    """Wait until a worker is about to send its result: its memory holds the nets, pickled, or it has ended."""
    try:
        while worker.memory_info().rss < 160e6:
            time.sleep(0.005)
    except psutil.Error:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, help="how many signals")
    parser.add_argument("--workers", action="store_true", help="end workers of grids instead")
    asked = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    (workers if asked.workers else signals)(asked.count)
