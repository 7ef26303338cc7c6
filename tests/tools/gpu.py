"""All that is to be measured on a GPU, in one run of less than eight minutes, without the network.

    python tests/tools/gpu.py [--device cpu] [--quick] [PART...]

runs the tests marked gpu, races beside the matrix products, certificates, and the paper's 46 models, and writes what it
finds to build/gpu/report.json, and to build/gpu/report.md as a table. A part that fails, or takes longer than its
budget, is named there, and the others go on. Data are MNIST where NNLITE_DATA has it, else the embedded digits. On a
CPU, and with tiny nets, it shows that the parts work.
"""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from nnlite.backend import get_xp, to_device
from nnlite.bench.report import machine
from nnlite.errors import NnliteError
from nnlite.evaluation.threads import processors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "gpu"
EPOCHS = "{epochs}"  # in a command that is repeated with 1, 2, 4 and more of them while there is time
NNLITE = (sys.executable, "-m", "nnlite")


@dataclass(frozen=True)
class Part:
    """Something to measure.

    Arguments:
        name: What it is called in the report, and on the command line.
        seconds: Its budget; what is still under way by then is ended.
        commands: Are carried out one after another, until one fails.
        words: Makes a cell of the table of the outputs of the commands that came to their end, and their seconds.
    """

    name: str
    seconds: float
    commands: tuple[tuple[str, ...], ...]
    words: Callable[[Sequence[str], Sequence[float]], str]


def parts(device: str, quick: bool, folder: Path = FOLDER) -> list[Part]:
    """Return all parts, of tiny nets where it is to be quick."""
    data = "mnist" if not quick and (Path(os.environ.get("NNLITE_DATA", "")) / "mnist").is_dir() else "digits"
    net = ("--hidden", "8") if quick else ()
    rounds, models, examples, splits = ("3", "2", "5", "0") if quick else ("8", "27", "200", "100")
    on = ("--data", data, "--runs", str(folder / "runs"))
    race = (*net, "--device", device, "--rounds", rounds, "--json", "--threads")
    steps = ("--steps", "2") if quick else ()
    once = ("--epochs", "1") if quick else ()
    few = ("--models", "best") if quick else ("--models", "paper")
    many = ("--epochs", EPOCHS, "--mt-epochs", EPOCHS, "--folder", str(folder / f"models-{EPOCHS}"))
    train = (*NNLITE, "train", "--name", "net", "--overwrite", *net, *once, "--device", device, *on)
    certify = (*NNLITE, "certify", "net", "--examples", examples, "--splits", splits, "--device", device, *on, "--json")
    reproduce = (*NNLITE, "reproduce", "all", *few, "--data", data, *net, *many, "--device", device)
    return [
        Part("tests", 120, ((sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_device.py"),), last_line),
        Part("step", 45, ((*NNLITE, "bench", "step", *race, "1"),), race_words),
        Part("stack", 75, ((*NNLITE, "bench", "stack", "--models", models, *race, str(processors())),), race_words),
        Part("attack", 45, ((*NNLITE, "bench", "attack", *steps, *race, "1"),), race_words),
        Part("certificates", 60, (train, certify), certificate_words),
        Part("models", 5 if quick else 120, (reproduce,), models_words),
    ]


def last_line(outputs: Sequence[str], seconds: Sequence[float]) -> str:
    """Return the last line, which sums up the tests."""
    return outputs[-1].strip().rpartition("\n")[2]


def race_words(outputs: Sequence[str], seconds: Sequence[float]) -> str:
    """Return the times of a race."""
    rows = [one for one in json.loads(outputs[-1])["contestants"] if one["ms"] is not None]
    return "; ".join(f"{one['name']} {one['ms']:.3g} ms, {one['to_products']:.2f} x products" for one in rows)


def certificate_words(outputs: Sequence[str], seconds: Sequence[float]) -> str:
    """Return what was proven, and in what time: the net is trained by the first command."""
    found = json.loads(outputs[-1])
    (run,) = found["runs"]
    shares = [f"{share:.1f} % at {phi:g}" for phi, share in zip(found["phi"], run["accuracy"]["proven"], strict=True)]
    return f"{len(run['images'])} images in {seconds[-1]:.1f} s, proven {', '.join(shares)}"


def models_words(outputs: Sequence[str], seconds: Sequence[float]) -> str:
    """Return how long each number of epochs has taken: 1, 2, 4 and more."""
    return ", ".join(f"{2**k} epoch{'s' * (k > 0)} in {took:.1f} s" for k, took in enumerate(seconds))


def carry_out(part: Part) -> dict[str, Any]:
    """Return what is found of a part, as JSON holds it."""
    end, epochs, left = time.monotonic() + part.seconds, 1, list(part.commands)
    commands, outputs, seconds, problem = [], [], [], ""
    while left and not problem:
        command = left.pop(0)
        given = [word.replace(EPOCHS, str(epochs)) for word in command]
        began = time.monotonic()
        output, problem = run(given, end - began)
        commands.append(" ".join(given))
        if not problem:
            outputs.append(output)
            seconds.append(round(time.monotonic() - began, 2))
            if any(EPOCHS in word for word in command) and time.monotonic() + 2 * seconds[-1] < end:
                left.append(command)
                epochs *= 2
    if not problem:
        try:
            found = part.words(outputs, seconds)
        except (ValueError, LookupError, TypeError) as error:
            problem = f"its output is not what was expected ({type(error).__name__}: {error})"
    return {
        "part": part.name,
        "budget": part.seconds,
        "commands": commands,
        "seconds": seconds,
        "outputs": outputs,
        "problem": problem,
        "found": problem or found,
    }


def run(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """Return what a command prints, and what is wrong with it, or "": its last words, or that its time is up."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=max(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            return "", f"ended when its budget was used up, after {seconds:.0f} s"
    said = (errors.strip() or output.strip()).splitlines()
    return output, f"exit code {process.returncode}: {said[-1] if said else ''}" if process.returncode else ""


def write(found: Sequence[dict[str, Any]], about: dict[str, Any], folder: Path) -> None:
    """Write both reports of the parts that are done."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"machine": about, "parts": found}, indent=2) + "\n", "utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about.get('gpu', about['cpu'])}; {versions}",
        "",
        "| part | commands | s | found |",
        "| - | - | -: | - |",
    ]
    for one in found:
        commands = ", ".join(f"`{shown(command)}`" for command in one["commands"])
        words = "**failed:** " * bool(one["problem"]) + one["found"]
        cells = one["part"], commands, f"{sum(one['seconds']):.1f}", words
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    (folder / "report.md").write_text("\n".join(lines) + "\n", "utf-8")


def shown(command: str) -> str:
    """Return a command as one would type it in the clone."""
    return command.replace(" ".join(NNLITE), "nnlite").replace(sys.executable, "python").replace(f"{ROOT}/", "")


def identify(device: str) -> dict[str, Any]:
    """Return the machine, and the name of its GPU; NnliteError where none can be used."""
    xp = get_xp(to_device(np.zeros(1), device))
    found = machine(device)
    if device == "gpu":
        runtime = xp.cuda.runtime
        name = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        found |= {"gpu": name, "CUDA": runtime.runtimeGetVersion()}
        found["versions"] |= {"cupy": xp.__version__}
    return found


def measure(wanted: Iterable[Part], about: dict[str, Any], folder: Path) -> bool:
    """Carry out the parts, and return whether all came to their end; what is found is written after each."""
    found: list[dict[str, Any]] = []
    for part in wanted:
        print(f"{part.name}, at most {part.seconds:.0f} s", flush=True)
        found.append(carry_out(part))
        print(f"  {found[-1]['found']}", flush=True)
        write(found, about, folder)
    return not any(one["problem"] for one in found)


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Measure, and return the exit code: 1 where a part failed, or there is no GPU."""
    known = [part.name for part in parts("cpu", quick=True)]
    parser = ArgumentParser(description="Measure all there is to measure on a GPU.")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--quick", action="store_true", help="tiny nets, to see that the parts work")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}; by default all")
    given = parser.parse_args(arguments)
    if unknown := {*given.parts} - {*known}:
        parser.error(f"PART: expected some of {', '.join(known)}, found {', '.join(sorted(unknown))}")
    try:
        here = identify(given.device)
    except NnliteError as error:
        print(error, file=sys.stderr)
        return 1
    rmtree(folder, ignore_errors=True)
    chosen = [part for part in parts(given.device, given.quick, folder) if part.name in (given.parts or known)]
    all_well = measure(chosen, here, folder)
    print(folder / "report.md")
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
